// Kernels of channel mixing: plain pointers, compiled once per instruction set.
// Nothing but <cstdint> may be included here (see cp_message_kernels.h).

#ifndef TDN_DEGREE_LINEAR_KERNELS_H
#define TDN_DEGREE_LINEAR_KERNELS_H

#include <cstdint>

namespace tdn {

// forward, nodes [begin, end): y[n, (l, m), :] = x[n, (l, m), :] w[l]
// weight, rows [begin, end) of all L C rows of w: w[l, c, :] = sum_n,m x[n, (l, m), c] y[n, (l, m), :]
template <typename T> struct DegreeLinearArguments {
  int64_t degrees, channels_in, channels_out, num_nodes;
  int64_t stride;      // between rows of w; forward: padded to vectors
  const T *x;          // [N, L^2, C]
  const T *w, *y;      // inputs, each of one kernel: [L, C, stride], [N, L^2, C']
  T *out;              // forward: [N, L^2, C']; weight: [L, C, stride]
  bool add;            // weight: add to `out` instead of overwriting it
};

template <typename T> struct DegreeLinearKernels {
  int64_t width;
  void (*forward)(const DegreeLinearArguments<T> &, int64_t begin, int64_t end);
  void (*weight)(const DegreeLinearArguments<T> &, int64_t begin, int64_t end);
};

struct DegreeLinearTable {
  DegreeLinearKernels<float> float32;
  DegreeLinearKernels<double> float64;
};

// The table for this processor.
const DegreeLinearTable &degree_linear_table();

}    // namespace tdn

#endif
