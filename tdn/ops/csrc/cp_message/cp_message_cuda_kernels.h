// Kernels of cp_message on a GPU: plain pointers to its memory, no PyTorch.

#ifndef TDN_CUDA_CP_MESSAGE_KERNELS_H
#define TDN_CUDA_CP_MESSAGE_KERNELS_H

#include "common/queue.h"

#include <cstdint>

namespace tdn {

// out[n,r,c] = sum_k (sum_l b[e,l,r] w[e,l,c]) x[source[e],r,c] over k in ptr[n]..ptr[n+1],
// where e = order[k], or e = k if order is null.
template <typename T> struct GatherArguments {
  int64_t rank, channels, degrees;
  const T *x, *b, *w;
  const int64_t *ptr, *order, *source;
  T *out;
};

// grad_b[e,l,r] = sum_c w[e,l,c] p[r,c] and grad_w[e,l,c] = sum_r b[e,l,r] p[r,c]
// with p[r,c] = g[center[e],r,c] u[neighbor[e],r,c]. Either output may be null.
template <typename T> struct EdgeArguments {
  int64_t rank, channels, degrees;
  const T *g, *u, *b, *w;
  const int64_t *center, *neighbor;
  T *grad_b, *grad_w;
};

}    // namespace tdn

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
