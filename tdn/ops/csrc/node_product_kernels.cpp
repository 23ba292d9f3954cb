#include "node_product_kernels.h"
#include "vector.h"

// Compiled with TDN_KERNELS (name of the instruction set) and TDN_VECTOR_BYTES.
//
// Everything of one node and one vector of channels stays in registers or in the first-level
// cache. D is the number of components, known to the compiler up to l_max 3; 0 means any. K is the
// number of components of a product that are wanted: all, or the scalar alone.

namespace tdn {
namespace {

template <typename T> TDN_INLINE Vector<T, width<T>> load_part(const T *p, int64_t count)
{
  constexpr int V = width<T>;
  if (count >= V) return load<T, V>(p);
  T values[V] = {};
  for (int64_t c = 0; c < count; ++c) values[c] = p[c];
  return load<T, V>(values);
}

template <typename T> TDN_INLINE void store_part(T *p, Vector<T, width<T>> v, int64_t count)
{
  constexpr int V = width<T>;
  if (count >= V) {
    store<T, V>(p, v);
  } else {
    for (int64_t c = 0; c < count; ++c) p[c] = v[c];
  }
}

template <int D> TDN_INLINE int64_t degrees_of(int64_t components)
{
  if constexpr (D > 0) components = D;
  int64_t degrees = 0;
  while (degrees * degrees < components) ++degrees;
  return degrees;
}

// out[k] = weights[degree of k] in[k], or out[k] += ..., for the first `degrees`; [L, C] weights.
template <typename T, bool add>
TDN_INLINE void scale(const T *weights, int64_t channels, int64_t count, int64_t degrees,
                      const T *in, T *out)
{
  constexpr int V = width<T>;
  for (int64_t l = 0; l < degrees; ++l) {
    const Vector<T, V> weight = load_part(weights + l * channels, count);
    for (int64_t k = l * l; k < (l + 1) * (l + 1); ++k) {
      const Vector<T, V> value = weight * load<T, V>(in + k * V);
      store<T, V>(out + k * V, add ? load<T, V>(out + k * V) + value : value);
    }
  }
}

// p[r] = input1[r] . left, q[r] = input2[r] . right, and power = output (p q); `power` may be null.
template <typename T, int D, int K>
TDN_INLINE void multiply(const NodeProductArguments<T> &a, const T *left, const T *right, T *p,
                         T *q, T *power)
{
  constexpr int V = width<T>;
  constexpr int M = D ? D : 1;
  const int64_t components = D ? D : a.components;
  Vector<T, V> x[M], y[M], total[K ? K : 1] = {};
  const int64_t wanted = K ? K : components;
  if constexpr (D > 0) {
    for (int k = 0; k < D; ++k) x[k] = load<T, V>(left + k * V);
    for (int k = 0; k < D; ++k) y[k] = load<T, V>(right + k * V);
  } else if (power) {
    for (int64_t k = 0; k < wanted; ++k) store<T, V>(power + k * V, Vector<T, V>{});
  }
  for (int64_t r = 0; r < a.rank; ++r) {
    const T *const first = a.input1 + r * components, *const second = a.input2 + r * components;
    const T *const last = a.output + r * components;
    Vector<T, V> left_sum = {}, right_sum = {};
    for (int64_t k = 0; k < components; ++k) {
      left_sum += first[k] * (D ? x[D ? k : 0] : load<T, V>(left + k * V));
      right_sum += second[k] * (D ? y[D ? k : 0] : load<T, V>(right + k * V));
    }
    store<T, V>(p + r * V, left_sum);
    store<T, V>(q + r * V, right_sum);
    if (!power) continue;
    const Vector<T, V> product = left_sum * right_sum;
    for (int64_t k = 0; k < wanted; ++k) {
      if constexpr (D > 0)
        total[k] += last[k] * product;
      else
        store<T, V>(power + k * V, load<T, V>(power + k * V) + last[k] * product);
    }
  }
  if constexpr (D > 0) {
    if (power)
      for (int k = 0; k < K; ++k) store<T, V>(power + k * V, total[k]);
  }
}

// Gradients of `left` and `right` from that of `power`.
template <typename T, int D, int K>
TDN_INLINE void multiply_adjoint(const NodeProductArguments<T> &a, const T *grad_power, const T *p,
                                 const T *q, T *grad_left, T *grad_right)
{
  constexpr int V = width<T>;
  constexpr int M = D ? D : 1;
  const int64_t components = D ? D : a.components;
  Vector<T, V> g[K ? K : 1], x[M] = {}, y[M] = {};
  const int64_t wanted = K ? K : components;
  if constexpr (D > 0) {
    for (int k = 0; k < K; ++k) g[k] = load<T, V>(grad_power + k * V);
  } else {
    for (int64_t k = 0; k < components; ++k) {
      store<T, V>(grad_left + k * V, Vector<T, V>{});
      store<T, V>(grad_right + k * V, Vector<T, V>{});
    }
  }
  for (int64_t r = 0; r < a.rank; ++r) {
    const T *const first = a.input1 + r * components, *const second = a.input2 + r * components;
    const T *const last = a.output + r * components;
    Vector<T, V> product = {};
    for (int64_t k = 0; k < wanted; ++k)
      product += last[k] * (D ? g[D ? k : 0] : load<T, V>(grad_power + k * V));
    const Vector<T, V> left_sum = product * load<T, V>(q + r * V);
    const Vector<T, V> right_sum = product * load<T, V>(p + r * V);
    for (int64_t k = 0; k < components; ++k) {
      if constexpr (D > 0) {
        x[k] += first[k] * left_sum;
        y[k] += second[k] * right_sum;
      } else {
        store<T, V>(grad_left + k * V, load<T, V>(grad_left + k * V) + first[k] * left_sum);
        store<T, V>(grad_right + k * V, load<T, V>(grad_right + k * V) + second[k] * right_sum);
      }
    }
  }
  if constexpr (D > 0) {
    for (int k = 0; k < D; ++k) store<T, V>(grad_left + k * V, x[k]);
    for (int k = 0; k < D; ++k) store<T, V>(grad_right + k * V, y[k]);
  }
}

int64_t scratch_size(int64_t components, int64_t rank, int64_t orders)
{
  constexpr int V = width<float>;
  return (5 * components + 2 * rank * (orders > 0 ? orders : 1)) * V;
}

template <typename T> struct Scratch {
  T *m, *power, *left, *right, *y, *p, *q;
  Scratch(T *start, int64_t components, int64_t rank, int64_t orders)
  {
    constexpr int V = width<T>;
    T **const parts[] = {&m, &power, &left, &right, &y};
    for (T **part : parts) {
      *part = start;
      start += components * V;
    }
    p = start;
    q = p + rank * (orders > 0 ? orders : 1) * V;
  }
};

template <typename T, int D>
void forward(const NodeProductArguments<T> &a, T *memory, int64_t begin, int64_t end)
{
  constexpr int V = width<T>;
  const int64_t components = D ? D : a.components;
  const int64_t degrees = degrees_of<D>(components), degrees_out = degrees_of<0>(a.components_out);
  const Scratch<T> s(memory, components, a.rank, 1);
  for (int64_t n = begin; n < end; ++n)
    for (int64_t c = 0; c < a.channels; c += V) {
      const int64_t count = a.channels - c, species = a.species[n];
      const int64_t row = degrees * a.channels, row_out = degrees_out * a.channels;
      for (int64_t k = 0; k < components; ++k)
        store<T, V>(s.m + k * V, load_part(a.m + (n * components + k) * a.channels + c, count));
      scale<T, false>(a.linear + species * row_out + c, a.channels, count, degrees_out, s.m, s.y);
      const T *power = s.m;
      for (int64_t o = 0; o < a.orders; ++o) {
        const int64_t at = o * a.num_species + species;
        scale<T, false>(a.left + at * row + c, a.channels, count, degrees, power, s.left);
        scale<T, false>(a.right + at * row + c, a.channels, count, degrees, s.m, s.right);
        if (a.components_out == 1 && o + 1 == a.orders)
          multiply<T, D, 1>(a, s.left, s.right, s.p, s.q, s.power);
        else
          multiply<T, D, D>(a, s.left, s.right, s.p, s.q, s.power);
        power = s.power;
        scale<T, true>(a.weight + at * row_out + c, a.channels, count, degrees_out, power, s.y);
      }
      for (int64_t k = 0; k < a.components_out; ++k)
        store_part(a.out + (n * a.components_out + k) * a.channels + c, load<T, V>(s.y + k * V),
                   count);
    }
}

template <typename T, int D>
void adjoint(const NodeProductArguments<T> &a, T *memory, int64_t begin, int64_t end)
{
  constexpr int V = width<T>;
  const int64_t components = D ? D : a.components;
  const int64_t degrees = degrees_of<D>(components), degrees_out = degrees_of<0>(a.components_out);
  const Scratch<T> s(memory, components, a.rank, a.orders);
  for (int64_t n = begin; n < end; ++n)
    for (int64_t c = 0; c < a.channels; c += V) {
      const int64_t count = a.channels - c, species = a.species[n];
      const int64_t row = degrees * a.channels, row_out = degrees_out * a.channels;
      const auto at = [&](int64_t o) { return o * a.num_species + species; };
      for (int64_t k = 0; k < components; ++k)
        store<T, V>(s.m + k * V, load_part(a.m + (n * components + k) * a.channels + c, count));
      // forward again, for p and q of every order
      const T *power = s.m;
      for (int64_t o = 0; o < a.orders; ++o) {
        scale<T, false>(a.left + at(o) * row + c, a.channels, count, degrees, power, s.left);
        scale<T, false>(a.right + at(o) * row + c, a.channels, count, degrees, s.m, s.right);
        multiply<T, D, D>(a, s.left, s.right, s.p + o * a.rank * V, s.q + o * a.rank * V,
                          o + 1 < a.orders ? s.power : nullptr);
        power = s.power;
      }
      // s.m now collects the gradient of m, s.power that of the power
      for (int64_t k = 0; k < a.components_out; ++k)
        store<T, V>(s.y + k * V,
                    load_part(a.g + (n * a.components_out + k) * a.channels + c, count));
      for (int64_t k = 0; k < components; ++k) {
        store<T, V>(s.m + k * V, Vector<T, V>{});
        store<T, V>(s.power + k * V, Vector<T, V>{});
      }
      scale<T, false>(a.linear + species * row_out + c, a.channels, count, degrees_out, s.y, s.m);
      for (int64_t o = a.orders - 1; o >= 0; --o) {
        scale<T, true>(a.weight + at(o) * row_out + c, a.channels, count, degrees_out, s.y,
                       s.power);
        const T *const p = s.p + o * a.rank * V, *const q = s.q + o * a.rank * V;
        if (a.components_out == 1 && o + 1 == a.orders)
          multiply_adjoint<T, D, 1>(a, s.power, p, q, s.left, s.right);
        else
          multiply_adjoint<T, D, D>(a, s.power, p, q, s.left, s.right);
        scale<T, true>(a.right + at(o) * row + c, a.channels, count, degrees, s.right, s.m);
        scale<T, false>(a.left + at(o) * row + c, a.channels, count, degrees, s.left, s.power);
      }
      if (a.orders > 0)
        for (int64_t k = 0; k < components; ++k)
          store<T, V>(s.m + k * V, load<T, V>(s.m + k * V) + load<T, V>(s.power + k * V));
      for (int64_t k = 0; k < components; ++k)
        store_part(a.out + (n * components + k) * a.channels + c, load<T, V>(s.m + k * V), count);
    }
}

template <typename T> using Kernel = void (*)(const NodeProductArguments<T> &, T *, int64_t,
                                              int64_t);

template <typename T, bool is_adjoint>
void run(const NodeProductArguments<T> &a, T *scratch, int64_t begin, int64_t end)
{
  Kernel<T> kernel = is_adjoint ? adjoint<T, 0> : forward<T, 0>;
  if (a.components == 4) kernel = is_adjoint ? adjoint<T, 4> : forward<T, 4>;
  if (a.components == 9) kernel = is_adjoint ? adjoint<T, 9> : forward<T, 9>;
  if (a.components == 16) kernel = is_adjoint ? adjoint<T, 16> : forward<T, 16>;
  kernel(a, scratch, begin, end);
}

}    // namespace

#define TDN_TABLE_(x) node_product_##x
#define TDN_TABLE(x) TDN_TABLE_(x)

extern const NodeProductTable TDN_TABLE(TDN_KERNELS);
const NodeProductTable TDN_TABLE(TDN_KERNELS) = {
    {scratch_size, run<float, false>, run<float, true>},
    {scratch_size, run<double, false>, run<double, true>}};

}    // namespace tdn
