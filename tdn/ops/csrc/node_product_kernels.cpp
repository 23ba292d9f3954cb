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

// out[r] = matrix[r] . x
template <typename T, int D>
TDN_INLINE void project(const T *matrix, int64_t rank, int64_t components, const T *x, T *out)
{
  constexpr int V = width<T>;
  const int64_t count = D ? D : components;
  Vector<T, V> values[D ? D : 1];
  if constexpr (D > 0)
    for (int k = 0; k < D; ++k) values[k] = load<T, V>(x + k * V);
  for (int64_t r = 0; r < rank; ++r) {
    Vector<T, V> total = {};
    for (int64_t k = 0; k < count; ++k)
      total += matrix[r * count + k] * (D ? values[D ? k : 0] : load<T, V>(x + k * V));
    store<T, V>(out + r * V, total);
  }
}

// out[k] = sum_r matrix[r, k] x[r]
template <typename T, int D>
TDN_INLINE void expand(const T *matrix, int64_t rank, int64_t components, const T *x, T *out)
{
  constexpr int V = width<T>;
  if constexpr (D > 0) {
    Vector<T, V> total[D] = {};
    for (int64_t r = 0; r < rank; ++r)
      for (int k = 0; k < D; ++k) total[k] += matrix[r * D + k] * load<T, V>(x + r * V);
    for (int k = 0; k < D; ++k) store<T, V>(out + k * V, total[k]);
  } else {
    for (int64_t k = 0; k < components; ++k) {
      Vector<T, V> total = {};
      for (int64_t r = 0; r < rank; ++r)
        total += matrix[r * components + k] * load<T, V>(x + r * V);
      store<T, V>(out + k * V, total);
    }
  }
}

// weights[l] += sum of a[k] b[k] over the components of degree l, for the first `degrees`.
template <typename T>
TDN_INLINE void add_products(const T *a, const T *b, int64_t degrees, int64_t channels,
                             int64_t count, T *weights)
{
  constexpr int V = width<T>;
  for (int64_t l = 0; l < degrees; ++l) {
    Vector<T, V> total = load_part(weights + l * channels, count);
    for (int64_t k = l * l; k < (l + 1) * (l + 1); ++k)
      total += load<T, V>(a + k * V) * load<T, V>(b + k * V);
    store_part(weights + l * channels, total, count);
  }
}

template <typename T> TDN_INLINE void add(const T *x, int64_t components, T *out)
{
  constexpr int V = width<T>;
  for (int64_t k = 0; k < components * V; k += V)
    store<T, V>(out + k, load<T, V>(out + k) + load<T, V>(x + k));
}

template <typename T> TDN_INLINE void clear(int64_t components, T *out)
{
  for (int64_t k = 0; k < components * width<T>; ++k) out[k] = 0;
}

// One block of channels of a node, into or out of scratch memory.
template <typename T>
TDN_INLINE void read(const T *from, int64_t components, int64_t channels, int64_t count, T *to)
{
  constexpr int V = width<T>;
  for (int64_t k = 0; k < components; ++k)
    store<T, V>(to + k * V, load_part(from + k * channels, count));
}

template <typename T>
TDN_INLINE void write(const T *from, int64_t components, int64_t channels, int64_t count, T *to)
{
  constexpr int V = width<T>;
  for (int64_t k = 0; k < components; ++k)
    store_part(to + k * channels, load<T, V>(from + k * V), count);
}

int64_t scratch_size(int64_t components, int64_t rank, int64_t orders)
{
  constexpr int V = width<float>;
  const int64_t count = orders > 0 ? orders : 1;
  return ((12 + 2 * count) * components + (4 * count + 4) * rank) * V;
}

// Hands out parts of the scratch memory.
template <typename T> struct Scratch {
  T *next;
  T *take(int64_t rows)
  {
    T *const start = next;
    next += rows * width<T>;
    return start;
  }
};

// What all kernels know of a node and a block of channels.
template <typename T> struct Place {
  int64_t count, linear;      // channels; offset of the weights `linear`
  int64_t row, row_out, species, num_species;
  // offsets of order o in `left` and `right`, and in `weight`
  int64_t at(int64_t o, int64_t c) const { return (o * num_species + species) * row + c; }
  int64_t out(int64_t o, int64_t c) const { return (o * num_species + species) * row_out + c; }
  Place(const NodeProductArguments<T> &a, int64_t n, int64_t c, int64_t degrees,
        int64_t degrees_out) :
      count(a.channels - c), row(degrees * a.channels), row_out(degrees_out * a.channels),
      species(a.species[n]), num_species(a.num_species)
  {
    linear = species * row_out + c;
  }
};

template <typename T, int D>
void forward(const NodeProductArguments<T> &a, T *memory, int64_t begin, int64_t end)
{
  constexpr int V = width<T>;
  const int64_t components = D ? D : a.components;
  const int64_t degrees = degrees_of<D>(components), degrees_out = degrees_of<0>(a.components_out);
  Scratch<T> scratch{memory};
  T *const m = scratch.take(components), *const next = scratch.take(components);
  T *const left = scratch.take(components), *const right = scratch.take(components);
  T *const y = scratch.take(components);
  T *const p = scratch.take(a.rank), *const q = scratch.take(a.rank);
  for (int64_t n = begin; n < end; ++n)
    for (int64_t c = 0; c < a.channels; c += V) {
      const Place<T> at(a, n, c, degrees, degrees_out);
      read(a.m + n * components * a.channels + c, components, a.channels, at.count, m);
      scale<T, false>(a.linear + at.linear, a.channels, at.count, degrees_out, m, y);
      const T *power = m;
      for (int64_t o = 0; o < a.orders; ++o) {
        scale<T, false>(a.left + at.at(o, c), a.channels, at.count, degrees, power, left);
        scale<T, false>(a.right + at.at(o, c), a.channels, at.count, degrees, m, right);
        if (a.components_out == 1 && o + 1 == a.orders)
          multiply<T, D, 1>(a, left, right, p, q, next);
        else
          multiply<T, D, D>(a, left, right, p, q, next);
        power = next;
        scale<T, true>(a.weight + at.out(o, c), a.channels, at.count, degrees_out, power, y);
      }
      write(y, a.components_out, a.channels, at.count,
            a.out + n * a.components_out * a.channels + c);
    }
}

template <typename T, int D, bool weights>
void adjoint_of(const NodeProductArguments<T> &a, T *memory, int64_t begin, int64_t end)
{
  constexpr int V = width<T>;
  const int64_t components = D ? D : a.components;
  const int64_t degrees = degrees_of<D>(components), degrees_out = degrees_of<0>(a.components_out);
  Scratch<T> scratch{memory};
  T *const left = scratch.take(components), *const right = scratch.take(components);
  T *const g = scratch.take(components), *const grad_m = scratch.take(components);
  T *const grad_power = scratch.take(components);
  T *const powers = scratch.take((a.orders + 1) * components);
  T *const ps = scratch.take(a.orders * a.rank), *const qs = scratch.take(a.orders * a.rank);
  for (int64_t n = begin; n < end; ++n)
    for (int64_t c = 0; c < a.channels; c += V) {
      const Place<T> at(a, n, c, degrees, degrees_out);
      const T *const m = powers;
      read(a.m + n * components * a.channels + c, components, a.channels, at.count, powers);
      read(a.g + n * a.components_out * a.channels + c, a.components_out, a.channels, at.count, g);
      // forward again, for p and q of every order; the last power matters to its weight alone
      for (int64_t o = 0; o < a.orders; ++o) {
        T *const power = powers + o * components * V;
        scale<T, false>(a.left + at.at(o, c), a.channels, at.count, degrees, power, left);
        scale<T, false>(a.right + at.at(o, c), a.channels, at.count, degrees, m, right);
        multiply<T, D, D>(a, left, right, ps + o * a.rank * V, qs + o * a.rank * V,
                          weights || o + 1 < a.orders ? power + components * V : nullptr);
      }
      clear(components, grad_m);
      clear(components, grad_power);
      scale<T, false>(a.linear + at.linear, a.channels, at.count, degrees_out, g, grad_m);
      if (weights)
        add_products(g, m, degrees_out, a.channels, at.count, a.grad_linear + at.linear);
      for (int64_t o = a.orders - 1; o >= 0; --o) {
        const T *const p = ps + o * a.rank * V, *const q = qs + o * a.rank * V;
        const T *const power = powers + o * components * V;
        scale<T, true>(a.weight + at.out(o, c), a.channels, at.count, degrees_out, g, grad_power);
        if (a.components_out == 1 && o + 1 == a.orders)
          multiply_adjoint<T, D, 1>(a, grad_power, p, q, left, right);
        else
          multiply_adjoint<T, D, D>(a, grad_power, p, q, left, right);
        if (weights) {
          add_products(g, power + components * V, degrees_out, a.channels, at.count,
                       a.grad_weight + at.out(o, c));
          add_products(left, power, degrees, a.channels, at.count, a.grad_left + at.at(o, c));
          add_products(right, m, degrees, a.channels, at.count, a.grad_right + at.at(o, c));
        }
        scale<T, true>(a.right + at.at(o, c), a.channels, at.count, degrees, right, grad_m);
        scale<T, false>(a.left + at.at(o, c), a.channels, at.count, degrees, left, grad_power);
      }
      if (a.orders > 0) add(grad_power, components, grad_m);
      write(grad_m, components, a.channels, at.count, a.out + n * components * a.channels + c);
    }
}

template <typename T, int D>
void adjoint(const NodeProductArguments<T> &a, T *scratch, int64_t begin, int64_t end)
{
  if (a.grad_linear)
    adjoint_of<T, D, true>(a, scratch, begin, end);
  else
    adjoint_of<T, D, false>(a, scratch, begin, end);
}

// A dotted quantity is the derivative along v: first all quantities and their dotted ones
// forward, then reverse differentiation of <g, dotted y>.
template <typename T, int D>
void second(const NodeProductArguments<T> &a, T *memory, int64_t begin, int64_t end)
{
  constexpr int V = width<T>;
  const int64_t components = D ? D : a.components, rank = a.rank;
  const int64_t degrees = degrees_of<D>(components), degrees_out = degrees_of<0>(a.components_out);
  Scratch<T> scratch{memory};
  T *const left = scratch.take(components), *const right = scratch.take(components);
  T *const left_dot = scratch.take(components), *const right_dot = scratch.take(components);
  T *const g = scratch.take(components), *const y_dot = scratch.take(components);
  T *const grad_m = scratch.take(components), *const grad_power = scratch.take(components);
  T *const grad_dot = scratch.take(components);
  T *const powers = scratch.take((a.orders + 1) * components);
  T *const powers_dot = scratch.take((a.orders + 1) * components);
  T *const ps = scratch.take(a.orders * rank), *const qs = scratch.take(a.orders * rank);
  T *const ps_dot = scratch.take(a.orders * rank), *const qs_dot = scratch.take(a.orders * rank);
  T *const s = scratch.take(rank), *const s_dot = scratch.take(rank);
  T *const t = scratch.take(rank), *const t_dot = scratch.take(rank);
  const auto projected = [&](const T *matrix, const T *x, T *out) {
    project<T, D>(matrix, rank, components, x, out);
  };
  const auto expanded = [&](const T *matrix, const T *x, T *out) {
    expand<T, D>(matrix, rank, components, x, out);
  };
  for (int64_t n = begin; n < end; ++n)
    for (int64_t c = 0; c < a.channels; c += V) {
      const Place<T> at(a, n, c, degrees, degrees_out);
      const T *const m = powers, *const v = powers_dot;
      read(a.m + n * components * a.channels + c, components, a.channels, at.count, powers);
      read(a.v + n * components * a.channels + c, components, a.channels, at.count, powers_dot);
      read(a.g + n * a.components_out * a.channels + c, a.components_out, a.channels, at.count, g);
      scale<T, false>(a.linear + at.linear, a.channels, at.count, degrees_out, v, y_dot);
      if (a.grad_linear)
        add_products(g, v, degrees_out, a.channels, at.count, a.grad_linear + at.linear);
      for (int64_t o = 0; o < a.orders; ++o) {
        T *const power = powers + o * components * V, *const dot = powers_dot + o * components * V;
        T *const p = ps + o * rank * V, *const q = qs + o * rank * V;
        T *const p_dot = ps_dot + o * rank * V, *const q_dot = qs_dot + o * rank * V;
        const T *const weight_left = a.left + at.at(o, c), *const weight_right = a.right + at.at(o, c);
        scale<T, false>(weight_left, a.channels, at.count, degrees, power, left);
        scale<T, false>(weight_left, a.channels, at.count, degrees, dot, left_dot);
        scale<T, false>(weight_right, a.channels, at.count, degrees, m, right);
        scale<T, false>(weight_right, a.channels, at.count, degrees, v, right_dot);
        projected(a.input1, left, p);
        projected(a.input1, left_dot, p_dot);
        projected(a.input2, right, q);
        projected(a.input2, right_dot, q_dot);
        for (int64_t k = 0; k < rank * V; ++k) {
          s[k] = p[k] * q[k];
          s_dot[k] = p_dot[k] * q[k] + p[k] * q_dot[k];
        }
        expanded(a.output, s, power + components * V);
        expanded(a.output, s_dot, dot + components * V);
        scale<T, true>(a.weight + at.out(o, c), a.channels, at.count, degrees_out,
                       dot + components * V, y_dot);
        if (a.grad_linear)
          add_products(g, dot + components * V, degrees_out, a.channels, at.count,
                       a.grad_weight + at.out(o, c));
      }
      clear(components, grad_m);
      clear(components, grad_power);
      clear(components, grad_dot);
      for (int64_t o = a.orders - 1; o >= 0; --o) {
        const T *const power = powers + o * components * V;
        const T *const dot = powers_dot + o * components * V;
        const T *const p = ps + o * rank * V, *const q = qs + o * rank * V;
        const T *const p_dot = ps_dot + o * rank * V, *const q_dot = qs_dot + o * rank * V;
        scale<T, true>(a.weight + at.out(o, c), a.channels, at.count, degrees_out, g, grad_dot);
        projected(a.output, grad_power, s);
        projected(a.output, grad_dot, s_dot);
        for (int64_t k = 0; k < rank * V; ++k) {    // s, t: gradients of p, q; dots likewise
          const T first = s[k], dotted = s_dot[k];
          s[k] = first * q[k] + dotted * q_dot[k];
          t[k] = first * p[k] + dotted * p_dot[k];
          s_dot[k] = dotted * q[k];
          t_dot[k] = dotted * p[k];
        }
        expanded(a.input1, s, left);
        expanded(a.input1, s_dot, left_dot);
        expanded(a.input2, t, right);
        if (a.grad_linear) {
          expanded(a.input2, t_dot, right_dot);
          T *const grad_left = a.grad_left + at.at(o, c), *const grad_right = a.grad_right + at.at(o, c);
          add_products(left, power, degrees, a.channels, at.count, grad_left);
          add_products(left_dot, dot, degrees, a.channels, at.count, grad_left);
          add_products(right, m, degrees, a.channels, at.count, grad_right);
          add_products(right_dot, v, degrees, a.channels, at.count, grad_right);
        }
        scale<T, true>(a.right + at.at(o, c), a.channels, at.count, degrees, right, grad_m);
        scale<T, false>(a.left + at.at(o, c), a.channels, at.count, degrees, left, grad_power);
        scale<T, false>(a.left + at.at(o, c), a.channels, at.count, degrees, left_dot, grad_dot);
      }
      if (a.orders > 0) add(grad_power, components, grad_m);
      write(grad_m, components, a.channels, at.count, a.out + n * components * a.channels + c);
      write(y_dot, a.components_out, a.channels, at.count,
            a.along + n * a.components_out * a.channels + c);
    }
}

template <typename T> using Kernel = void (*)(const NodeProductArguments<T> &, T *, int64_t,
                                              int64_t);

enum class Kind { forward, adjoint, second };

template <typename T, Kind kind, int D> constexpr Kernel<T> kernel_of()
{
  if constexpr (kind == Kind::forward) return forward<T, D>;
  if constexpr (kind == Kind::adjoint) return adjoint<T, D>;
  return second<T, D>;
}

template <typename T, Kind kind>
void run(const NodeProductArguments<T> &a, T *scratch, int64_t begin, int64_t end)
{
  Kernel<T> kernel = kernel_of<T, kind, 0>();
  if (a.components == 4) kernel = kernel_of<T, kind, 4>();
  if (a.components == 9) kernel = kernel_of<T, kind, 9>();
  if (a.components == 16) kernel = kernel_of<T, kind, 16>();
  kernel(a, scratch, begin, end);
}

}    // namespace

#define TDN_TABLE_(x) node_product_##x
#define TDN_TABLE(x) TDN_TABLE_(x)
#define TDN_KERNELS_OF(T)                                                                        \
  {                                                                                              \
    scratch_size, run<T, Kind::forward>, run<T, Kind::adjoint>, run<T, Kind::second>             \
  }

extern const NodeProductTable TDN_TABLE(TDN_KERNELS);
const NodeProductTable TDN_TABLE(TDN_KERNELS) = {TDN_KERNELS_OF(float), TDN_KERNELS_OF(double)};

}    // namespace tdn
