// Kernels of cp_message: plain pointers and loops, compiled once per instruction set.
// Nothing but <cstdint> may be included here: inline functions of other headers, compiled with
// wider instructions, could be picked by the linker for processors that lack them.

#ifndef TDN_CP_MESSAGE_KERNELS_H
#define TDN_CP_MESSAGE_KERNELS_H

#include <cstdint>

namespace tdn {

// out[n,r,c] = sum over terms of sum_k (sum_l b[e,l,r] w[e,l,c]) x[source[e],r,c] over k in
// ptr[n]..ptr[n+1], where e = order[k], or e = k if order is null.
template <typename T> struct MessageTerm {
  const T *x, *b, *w;
};

constexpr int max_terms = 3;

template <typename T> struct MessageArguments {
  int64_t rank, channels, degrees;
  const int64_t *ptr, *order, *source;
  int num_terms;
  MessageTerm<T> terms[max_terms];
  T *out;
};

// Sums over terms, with p[r,c] = g[center[e],r,c] u[neighbor[e],r,c]:
// grad_b[e,l,r] = sum_c w[e,l,c] p[r,c] and grad_w[e,l,c] = sum_r b[e,l,r] p[r,c], and the sum
// grad_u[n,r,c] = sum_e (sum_l b[e,l,r] w[e,l,c]) g[center[e],r,c] over the edges of neighbor n.
// A term counts for what it names; outputs that no term counts for may be null.
template <typename T> struct AdjointTerm {
  const T *g, *u, *b, *w;
  bool for_u, for_b, for_w;
};

template <typename T> struct AdjointArguments {
  int64_t rank, channels, degrees;
  const int64_t *center, *neighbor;
  const int64_t *ptr, *order;    // edges by neighbor
  int num_terms;
  AdjointTerm<T> terms[max_terms];
  T *grad_u, *grad_b, *grad_w;
};

// Each works on the nodes [begin, end); `adjoint` on their edges as neighbors.
template <typename T> struct Kernels {
  void (*message)(const MessageArguments<T> &, int64_t begin, int64_t end);
  void (*adjoint)(const AdjointArguments<T> &, int64_t begin, int64_t end);
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
