// Kernels of edge_product and edge_message on a GPU: plain pointers to its memory, no PyTorch.

#ifndef TDN_CUDA_EDGE_MATRIX_KERNELS_H
#define TDN_CUDA_EDGE_MATRIX_KERNELS_H

#include "edge_matrix_kernels.h"
#include "common/queue.h"

namespace tdn::cuda {

// Rows that indices lead to, which the kernels check: centers, the edges' other ends.
struct EdgeMatrixSizes {
  int64_t nodes, sources, edges;
};

// The arguments are those of edge_matrix_kernels.h; `center` is the node of each edge. Each
// enqueues its work and returns a cudaError_t. Every number is the sum of one thread: no atomics.
template <typename T>
int launch_edge_product(const EdgeMatrixArguments<T> &a, const int64_t *center,
                        const EdgeMatrixSizes &sizes, const Queue &queue);
template <typename T>
int launch_edge_message(const EdgeMatrixArguments<T> &a, const EdgeMatrixSizes &sizes,
                        const Queue &queue);
// grad_sum is left to launch_edge_message with the transposed matrix
template <typename T>
int launch_edge_matrix_adjoint(const EdgeMatrixAdjointArguments<T> &a, const int64_t *center,
                               const EdgeMatrixSizes &sizes, const Queue &queue);

}    // namespace tdn::cuda

#endif
