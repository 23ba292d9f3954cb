// Vectors of sigmoid(x), for kernels. Included by files that are compiled once per instruction set.

#ifndef TDN_EXPONENTIAL_H
#define TDN_EXPONENTIAL_H

#include "vector.h"

namespace tdn {
namespace {

template <typename T> struct Bits;
template <> struct Bits<float> {
  using Integer = int32_t;
  static constexpr int mantissa = 23, bias = 127, order = 7;
  // log 2 in two parts, the first with few enough digits for exact multiples
  static constexpr float high = 0.693359375f, low = -2.12194440e-4f, limit = 87.0f;
  static constexpr float magic = 12582912.0f;    // 1.5 * 2^23: adding it rounds to integers
};
template <> struct Bits<double> {
  using Integer = int64_t;
  static constexpr int mantissa = 52, bias = 1023, order = 13;
  static constexpr double high = 6.93147180369123816490e-01, low = 1.90821492927058770002e-10;
  static constexpr double limit = 708.0, magic = 6755399441055744.0;
};

// exp(x) for x between -limit and limit: 2^k times the Taylor polynomial of the rest, whose error
// at log(2) / 2 is below the rounding error.
template <typename T, int V> TDN_INLINE Vector<T, V> exponential(Vector<T, V> x)
{
  using Integer = typename Bits<T>::Integer;
  const Vector<T, V> limit = Vector<T, V>{} + Bits<T>::limit;
  x = x > limit ? limit : x;
  x = x < -limit ? -limit : x;
  const T per_log2 = T(1.44269504088896340736);
  const Vector<T, V> shifted = x * per_log2 + Bits<T>::magic, k = shifted - Bits<T>::magic;
  const Vector<T, V> rest = (x - k * Bits<T>::high) - k * Bits<T>::low;
  Vector<T, V> value = Vector<T, V>{} + T(1);
  for (int n = Bits<T>::order; n > 0; --n) value = value * rest * T(1.0 / n) + T(1);
  Vector<Integer, V> bits;
  __builtin_memcpy(&bits, &shifted, sizeof(bits));
  Vector<Integer, V> base;
  const Vector<T, V> magic = Vector<T, V>{} + Bits<T>::magic;
  __builtin_memcpy(&base, &magic, sizeof(base));
  const Vector<Integer, V> exponent = (bits - base + Bits<T>::bias) << Bits<T>::mantissa;
  Vector<T, V> power;
  __builtin_memcpy(&power, &exponent, sizeof(power));
  return value * power;
}

template <typename T, int V> TDN_INLINE Vector<T, V> sigmoid(Vector<T, V> x)
{
  return T(1) / (T(1) + exponential<T, V>(-x));
}

}    // namespace
}    // namespace tdn

#endif
