// Kernels of the radial network: plain pointers, compiled once per instruction set.
// Nothing but <cstdint> may be included here (see cp_message_kernels.h).

#ifndef TDN_RADIAL_KERNELS_H
#define TDN_RADIAL_KERNELS_H

#include <cstdint>

namespace tdn {

// Matrices have 2 E rows: row e holds values of edge e, row E + e their derivatives by r. Each kernel
// works on the edges [begin, end).
template <typename T> struct RadialKernels {
  // basis[2 E, B]: b_n(r) = sqrt(2) sin(n pi r / r_max) r_max / (2 r) times the envelope
  // 1 - x^p ((p + 1)(p + 2) / 2 - x (p (p + 2) - x p (p + 1) / 2)), x = r / r_max; zero from r_max.
  void (*basis)(const T *r, int64_t num_edges, int64_t num_radial, double r_max, int64_t power,
                int64_t begin, int64_t end, T *basis);
  // a[2 E, columns] = silu(s), s = z scale[pair]; `scale` null: s = z.
  void (*activate)(const T *z, const T *scale, const int64_t *pair, int64_t num_edges,
                   int64_t columns, int64_t begin, int64_t end, T *a);
  // From the gradient of a that of z, in place. With `scale`, grad_scale[E, columns] is what each
  // edge adds to the gradient of its row of scale.
  void (*deactivate)(const T *z, const T *scale, const int64_t *pair, int64_t num_edges,
                     int64_t columns, int64_t begin, int64_t end, T *g, T *grad_scale);
  // out[e] = sum_k x[e, k] y[e, k], and from its gradient those of x and y, either of them null.
  void (*row_dot)(const T *x, const T *y, int64_t columns, int64_t begin, int64_t end, T *out);
  void (*row_dot_adjoint)(const T *g, const T *x, const T *y, int64_t columns, int64_t begin,
                          int64_t end, T *grad_x, T *grad_y);
};

struct RadialKernelTable {
  RadialKernels<float> float32;
  RadialKernels<double> float64;
};

// The table for this processor.
const RadialKernelTable &radial_table();

}    // namespace tdn

#endif
