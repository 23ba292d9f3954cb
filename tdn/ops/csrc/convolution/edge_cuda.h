// What kernels for a GPU need of one edge: its place in the radial table, its spherical harmonics.
// The same mathematics as convolution/edge_batch.h has for a batch in vectors. For .cu files.

#ifndef TDN_EDGE_CUDA_H
#define TDN_EDGE_CUDA_H

#include "convolution_kernels.h"
#include "common/launch.h"

#include <cmath>

namespace tdn::cuda {
namespace {

// Where a distance is in the table.
template <typename T> struct Interval {
  int64_t number;
  T s, slope;    // position in the interval, -1..1; ds/dr
};

// Not a number leads to the first interval, and from there into the result.
template <typename T> TDN_DEVICE Interval<T> find_interval(const RadialTable<T> &table, double r)
{
  const double scale = (1 + table.stretch) * static_cast<double>(table.intervals);
  const double offset = table.stretch * table.r_max, inverse_sum = 1 / (r + offset);
  const double x = scale * r * inverse_sum;
  int64_t number = x > 0 ? static_cast<int64_t>(x) : 0;
  if (number >= table.intervals) number = table.intervals - 1;
  return {number, static_cast<T>(2 * (x - static_cast<double>(number)) - 1),
          static_cast<T>(2 * scale * offset * inverse_sum * inverse_sum)};
}

// Two unit vectors perpendicular to n and to each other (Duff et al., JCGT 6 (2017) 1).
template <typename T> TDN_DEVICE void find_tangents(const T (&n)[3], T (&t)[2][3])
{
  const T sign = n[2] < 0 ? T(-1) : T(1);
  const T p = -1 / (sign + n[2]), q = n[0] * n[1] * p;
  t[0][0] = 1 + sign * n[0] * n[0] * p;
  t[0][1] = sign * q;
  t[0][2] = -sign * n[0];
  t[1][0] = q;
  t[1][1] = sign + n[1] * n[1] * p;
  t[1][2] = -n[1];
}

// Y_l,+-m = Q_l^m(y) times real and imaginary part of (z + i x)^m at y[(l^2 + l +- m) stride], and
// with derivatives their slopes along both tangents, `kind` numbers further on each.
template <typename T, bool derivatives>
TDN_DEVICE void edge_harmonics(const T (&n)[3], const T (&t)[2][3], int l_max,
                               const LegendreCoefficients<T> &legendre, int stride, int kind, T *y)
{
  T re = 1, im = 0, re_before = 0, im_before = 0;
  for (int m = 0; m <= l_max; ++m) {
    T q = legendre.first[m], q_before = 0, dq = 0, dq_before = 0;
    for (int l = m; l <= l_max; ++l) {
      if (l > m) {
        const T factor = legendre.a[l][m], back = legendre.b[l][m];
        const T next = factor * (n[1] * q - back * q_before);
        const T slope = factor * (q + n[1] * dq - back * dq_before);
        dq_before = dq;
        dq = slope;
        q_before = q;
        q = next;
      }
      const int even = l * l + l + m, odd = l * l + l - m;
      y[even * stride] = q * re;
      if (m > 0) y[odd * stride] = q * im;
      if constexpr (derivatives) {
        for (int j = 0; j < 2; ++j) {
          T *const dy = y + (j + 1) * kind;
          const T slope = dq * t[j][1], power = m * q;
          dy[even * stride] = slope * re + power * (re_before * t[j][2] - im_before * t[j][0]);
          if (m > 0)
            dy[odd * stride] = slope * im + power * (im_before * t[j][2] + re_before * t[j][0]);
        }
      }
    }
    const T next = re * n[2] - im * n[0];
    re_before = re;
    im_before = im;
    im = re * n[0] + im * n[2];
    re = next;
  }
}

}    // namespace
}    // namespace tdn::cuda

#endif
