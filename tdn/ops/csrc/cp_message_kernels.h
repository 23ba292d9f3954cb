// Kernels of cp_message: plain pointers and loops, compiled once per instruction set.
// Nothing but <cstdint> may be included here: inline functions of other headers, compiled with
// wider instructions, could be picked by the linker for processors that lack them.

#ifndef TDN_CP_MESSAGE_KERNELS_H
#define TDN_CP_MESSAGE_KERNELS_H

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
// with p[r,c] = g[centre[e],r,c] u[neighbour[e],r,c]. Either output may be null.
template <typename T> struct EdgeArguments {
  int64_t rank, channels, degrees;
  const T *g, *u, *b, *w;
  const int64_t *centre, *neighbour;
  T *grad_b, *grad_w;
};

// Each works on the nodes or edges [begin, end).
template <typename T> struct Kernels {
  void (*gather)(const GatherArguments<T> &, int64_t begin, int64_t end);
  void (*edges)(const EdgeArguments<T> &, int64_t begin, int64_t end);
};

struct KernelTable {
  const char *name;
  Kernels<float> float32;
  Kernels<double> float64;
};

// The table for this processor.
const KernelTable &kernel_table();

}    // namespace tdn

#endif
