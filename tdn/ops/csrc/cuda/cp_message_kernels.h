// Kernels of cp_message on a GPU: plain pointers to its memory, no PyTorch.

#ifndef TDN_CUDA_CP_MESSAGE_KERNELS_H
#define TDN_CUDA_CP_MESSAGE_KERNELS_H

#include "../cp_message_kernels.h"
#include "queue.h"

namespace tdn::cuda {

// Lengths of the arrays, which the kernels hold every index against.
struct Sizes {
  int64_t nodes;      // rows of the output of gather; of g
  int64_t sources;    // rows of x; of u
  int64_t edges;
};

// Each enqueues its work and returns a cudaError_t. Results do not depend on the device or on the
// order in which its threads run: every number is the sum of one thread, or of a fixed tree.
template <typename T>
int launch_gather(const GatherArguments<T> &arguments, const Sizes &sizes, const Queue &queue);
template <typename T>
int launch_edges(const EdgeArguments<T> &arguments, const Sizes &sizes, const Queue &queue);

}    // namespace tdn::cuda

#endif
