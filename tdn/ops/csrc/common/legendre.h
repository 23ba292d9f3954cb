// Coefficients of the recursion of Legendre functions behind the spherical harmonics.
// Included by files that are compiled once per instruction set (and by kernels for GPUs, which take
// the coefficients from the host): everything is internal to them.

#ifndef TDN_LEGENDRE_H
#define TDN_LEGENDRE_H

#include <cstdint>

namespace tdn {

constexpr int64_t max_l_max = 11;

namespace {

// Normalized so that the squares of the 2 l + 1 harmonics of a degree add up to 2 l + 1
// ("component" normalization of e3nn):
// Q_m^m = first[m], Q_l^m = a[l][m] (z Q_{l-1}^m - b[l][m] Q_{l-2}^m).
template <typename T> struct LegendreCoefficients {
  T first[max_l_max + 1] = {};
  T a[max_l_max + 1][max_l_max + 1] = {}, b[max_l_max + 1][max_l_max + 1] = {};

  explicit LegendreCoefficients(int64_t l_max)
  {
    double value = 1.0;
    for (int64_t m = 0; m <= l_max; ++m) {
      if (m > 0) value *= __builtin_sqrt((2.0 * m + 1) / (2.0 * m) * (m == 1 ? 2.0 : 1.0));
      first[m] = static_cast<T>(value);
      for (int64_t l = m + 1; l <= l_max; ++l) {
        const double p = l - 1.0, ll = double(l) * l, mm = double(m) * m;
        a[l][m] = static_cast<T>(__builtin_sqrt((4 * ll - 1) / (ll - mm)));
        b[l][m] = l == m + 1 ? T(0) : static_cast<T>(__builtin_sqrt((p * p - mm) / (4 * p * p - 1)));
      }
    }
  }
};

}    // namespace
}    // namespace tdn

#endif
