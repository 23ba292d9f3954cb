// Real spherical harmonics of a unit vector, in the order and normalization of e3nn.
//
// The polar axis is y: Y_l,+-m = Q_l^m(y) times real and imaginary part of (z + i x)^m. Away from the
// unit sphere these are other functions than the harmonics; projection onto the sphere's tangents
// makes their derivatives right.
//
// One recursion for numbers, for numbers with a derivative along a direction, and for tensors. The
// kernels of the convolutions have it in a form of their own, with the same coefficients: for a
// batch of edges in vectors (convolution/edge_batch.h), and for a GPU.

#ifndef TDN_HARMONICS_H
#define TDN_HARMONICS_H

#include "common/legendre.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/full_like.h>

namespace tdn {

using Legendre = LegendreCoefficients<double>;

inline double constant(double, double value) { return value; }
inline at::Tensor constant(const at::Tensor &like, double value)
{
  return at::full_like(like, value);
}

// out[l^2 + l + m] for l up to l_max.
template <typename S>
void harmonics(const S &x, const S &y, const S &z, int64_t l_max, const Legendre &legendre, S *out)
{
  S re = constant(x, 1), im = constant(x, 0);
  for (int64_t m = 0; m <= l_max; ++m) {
    S q = constant(x, legendre.first[m]), before = constant(x, 0);
    for (int64_t l = m; l <= l_max; ++l) {
      if (l > m) {
        const S next = legendre.a[l][m] * (y * q - legendre.b[l][m] * before);
        before = q;
        q = next;
      }
      out[l * l + l + m] = q * re;
      if (m > 0) out[l * l + l - m] = q * im;
    }
    const S next = re * z - im * x;
    im = re * x + im * z;
    re = next;
  }
}

}    // namespace tdn

#endif
