// Kernels of the convolutions for inference on a GPU: plain pointers to its memory, no PyTorch.
//
// What acts on nodes alone (the factors of the features) is matrix multiplication and left to
// PyTorch; here is the work per edge. `density` is the same with u = 1 and one rank per harmonic.

#ifndef TDN_CUDA_CONVOLUTION_KERNELS_H
#define TDN_CUDA_CONVOLUTION_KERNELS_H

#include "convolution_kernels.h"
#include "common/queue.h"

namespace tdn::cuda {

template <typename T> struct EdgeConvolution {
  int64_t l_max, rank, channels;
  int64_t num_centers, num_nodes, num_edges;
  EdgeList<T> edges;      // forward: by center; adjoint: by neighbor
  const T *harmonics;     // [(l_max + 1)^2, rank]
  const T *u;             // [nodes, rank, channels]; null: ones
  const T *g;             // adjoint: gradient [centers, rank, channels]
  T *out;                 // forward: sums [centers, rank, channels]
                          // adjoint: gradient of u [nodes, rank, channels], null: not needed
  double *grad_vec;       // adjoint: [E, 3]
};

// Each enqueues its work and returns a cudaError_t. No atomics: the same bits every time.
template <typename T>
int launch_convolution(const EdgeConvolution<T> &arguments, const Queue &queue);
template <typename T>
int launch_convolution_adjoint(const EdgeConvolution<T> &arguments, const Queue &queue);

}    // namespace tdn::cuda

#endif
