#include "radial_kernels.h"
#include "common/exponential.h"
#include "common/vector.h"

// Compiled with TDN_KERNELS (name of the instruction set) and TDN_VECTOR_BYTES.

namespace tdn {
namespace {

template <typename T>
void basis(const T *r, int64_t num_edges, int64_t num_radial, double r_max, int64_t power,
           int64_t begin, int64_t end, T *out)
{
  const double pi = 3.14159265358979323846, p = static_cast<double>(power);
  const double a = (p + 1) * (p + 2) / 2, b = p * (p + 2), c = p * (p + 1) / 2;
  const double amplitude = __builtin_sqrt(2.0) * 0.5 * r_max;
  for (int64_t e = begin; e < end; ++e) {
    T *const value = out + e * num_radial, *const slope = out + (num_edges + e) * num_radial;
    const double length = r[e], x = length / r_max;
    if (x >= 1) {
      for (int64_t n = 0; n < num_radial; ++n) value[n] = slope[n] = 0;
      continue;
    }
    double x_power = 1;
    for (int64_t n = 1; n < power; ++n) x_power *= x;    // x^(p - 1)
    const double envelope = 1 - x_power * x * (a - x * (b - x * c));
    const double envelope_slope =
        -x_power * (p * a - x * ((p + 1) * b - x * (p + 2) * c)) / r_max;
    const double inverse = 1 / length, angle = pi * x;
    const double sine1 = __builtin_sin(angle), cosine1 = __builtin_cos(angle);
    double sine = sine1, cosine = cosine1;
    for (int64_t n = 0; n < num_radial; ++n) {
      const double frequency = pi / r_max * static_cast<double>(n + 1);
      const double bessel = amplitude * sine * inverse;
      const double bessel_slope = (amplitude * frequency * cosine - bessel) * inverse;
      value[n] = static_cast<T>(bessel * envelope);
      slope[n] = static_cast<T>(bessel_slope * envelope + bessel * envelope_slope);
      const double next = sine * cosine1 + cosine * sine1;
      cosine = cosine * cosine1 - sine * sine1;
      sine = next;
    }
  }
}

// V columns of an edge.
template <typename T, int V>
TDN_INLINE void activate_block(const T *z, const T *dz, const T *scale, T *a, T *da)
{
  const Vector<T, V> one = Vector<T, V>{} + T(1), by = scale ? load<T, V>(scale) : one;
  const Vector<T, V> s = load<T, V>(z) * by, ds = load<T, V>(dz) * by, y = sigmoid<T, V>(s);
  store<T, V>(a, s * y);
  store<T, V>(da, ds * y * (one + s * (one - y)));
}

template <typename T, int V>
TDN_INLINE void deactivate_block(const T *z, const T *dz, const T *scale, T *g, T *dg,
                                 T *grad_scale)
{
  const Vector<T, V> one = Vector<T, V>{} + T(1), by = scale ? load<T, V>(scale) : one;
  const Vector<T, V> z_ = load<T, V>(z), dz_ = load<T, V>(dz), s = z_ * by, ds = dz_ * by;
  const Vector<T, V> y = sigmoid<T, V>(s), first = y * (one + s * (one - y));
  const Vector<T, V> second = y * (one - y) * (T(2) * one + s * (one - T(2) * y));
  const Vector<T, V> g_ = load<T, V>(g), dg_ = load<T, V>(dg);
  const Vector<T, V> for_s = g_ * first + dg_ * ds * second, for_ds = dg_ * first;
  if (grad_scale) store<T, V>(grad_scale, for_s * z_ + for_ds * dz_);
  store<T, V>(g, for_s * by);
  store<T, V>(dg, for_ds * by);
}

template <typename T>
void activate(const T *z, const T *scale, const int64_t *pair, int64_t num_edges, int64_t columns,
              int64_t begin, int64_t end, T *a)
{
  constexpr int V = width<T>;
  const int64_t to_slope = num_edges * columns;
  for (int64_t e = begin; e < end; ++e) {
    const T *const by = scale ? scale + pair[e] * columns : nullptr;
    int64_t c = 0;
    for (int64_t at; c < columns; c += at) {
      const int64_t i = e * columns + c;
      at = c + V <= columns ? V : 1;
      if (at == V)
        activate_block<T, V>(z + i, z + to_slope + i, by ? by + c : by, a + i, a + to_slope + i);
      else
        activate_block<T, 1>(z + i, z + to_slope + i, by ? by + c : by, a + i, a + to_slope + i);
    }
  }
}

template <typename T>
void deactivate(const T *z, const T *scale, const int64_t *pair, int64_t num_edges,
                int64_t columns, int64_t begin, int64_t end, T *g, T *grad_scale)
{
  constexpr int V = width<T>;
  const int64_t to_slope = num_edges * columns;
  for (int64_t e = begin; e < end; ++e) {
    const T *const by = scale ? scale + pair[e] * columns : nullptr;
    int64_t c = 0;
    for (int64_t at; c < columns; c += at) {
      const int64_t i = e * columns + c, j = i + to_slope;
      T *const sum = grad_scale ? grad_scale + i : nullptr;
      at = c + V <= columns ? V : 1;
      if (at == V)
        deactivate_block<T, V>(z + i, z + j, by ? by + c : by, g + i, g + j, sum);
      else
        deactivate_block<T, 1>(z + i, z + j, by ? by + c : by, g + i, g + j, sum);
    }
  }
}

template <typename T>
void row_dot(const T *x, const T *y, int64_t columns, int64_t begin, int64_t end, T *out)
{
  constexpr int V = width<T>;
  for (int64_t e = begin; e < end; ++e) {
    const T *const left = x + e * columns, *const right = y + e * columns;
    Vector<T, V> total = {};
    int64_t c = 0;
    for (; c + V <= columns; c += V) total += load<T, V>(left + c) * load<T, V>(right + c);
    T value = sum<T, V>(total);
    for (; c < columns; ++c) value += left[c] * right[c];
    out[e] = value;
  }
}

template <typename T>
void row_dot_adjoint(const T *g, const T *x, const T *y, int64_t columns, int64_t begin,
                     int64_t end, T *grad_x, T *grad_y)
{
  for (int64_t e = begin; e < end; ++e) {
    if (grad_x)
      for (int64_t c = e * columns; c < (e + 1) * columns; ++c) grad_x[c] = g[e] * y[c];
    if (grad_y)
      for (int64_t c = e * columns; c < (e + 1) * columns; ++c) grad_y[c] = g[e] * x[c];
  }
}

}    // namespace

#define TDN_TABLE_(x) radial_##x
#define TDN_TABLE(x) TDN_TABLE_(x)

extern const RadialKernelTable TDN_TABLE(TDN_KERNELS);
const RadialKernelTable TDN_TABLE(TDN_KERNELS) = {
    {basis<float>, activate<float>, deactivate<float>, row_dot<float>,
     row_dot_adjoint<float>},
    {basis<double>, activate<double>, deactivate<double>, row_dot<double>,
     row_dot_adjoint<double>}};

}    // namespace tdn
