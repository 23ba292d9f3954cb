// Kernels of cp_message for neighbors with scalar features: the product of a scalar with spherical
// harmonics needs no factors. Plain pointers, compiled once per instruction set.
// Nothing but <cstdint> may be included here (see cp_message_kernels.h).

#ifndef TDN_SCALAR_MESSAGE_KERNELS_H
#define TDN_SCALAR_MESSAGE_KERNELS_H

#include "cp_message/cp_message_kernels.h"

#include <cstdint>

namespace tdn {

// Arguments as of cp_message with these shapes: x, u [n, 1, C], b [E, D], g and out of `message`
// [n, D, C], where row (l, m) of b takes the weights w[e, l], or w[e, 0] if there is one degree:
// message: out[n,(l,m),c] = sum_e b[e,(l,m)] w[e,l,c] x[source[e],c]
// adjoint: with q[l,c] = sum_m b[e,(l,m)] g[center[e],(l,m),c]: grad_u[n,c] = sum_e,l w[e,l,c] q,
//   grad_w[e,l,c] = q u[c], grad_b[e,(l,m)] = sum_c g[..,(l,m),c] w[e,l,c] u[c]
template <typename T> struct ScalarMessageKernels {
  void (*message)(const MessageArguments<T> &, int64_t begin, int64_t end);
  void (*adjoint)(const AdjointArguments<T> &, int64_t begin, int64_t end);
};

struct ScalarMessageTable {
  ScalarMessageKernels<float> float32;
  ScalarMessageKernels<double> float64;
};

// Most degrees of the harmonics, l_max + 1, that these kernels take.
constexpr int64_t max_scalar_degrees = 7;

// The table for this processor.
const ScalarMessageTable &scalar_message_table();

}    // namespace tdn

#endif
