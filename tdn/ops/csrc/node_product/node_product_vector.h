// What the kernels of the node product share. Included by files that are compiled once per
// instruction set, with TDN_KERNELS (its name) and TDN_VECTOR_BYTES; helpers are internal to them.
//
// Everything of one node and one vector of channels stays in registers or in the first-level
// cache. D is the number of components, known to the compiler up to l_max 3; 0 means any. K is the
// number of components of a product that are wanted: all, or the scalar alone.

#ifndef TDN_NODE_PRODUCT_VECTOR_H
#define TDN_NODE_PRODUCT_VECTOR_H

#include "node_product_kernels.h"
#include "common/vector.h"

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

// The one for this number of components of functions compiled for any, 4, 9 and 16.
template <typename F> F choose(int64_t components, F any, F for4, F for9, F for16)
{
  switch (components) {
    case 4: return for4;
    case 9: return for9;
    case 16: return for16;
    default: return any;
  }
}

}    // namespace

#define TDN_NODE_PRODUCT_PASS(T, name)                                                           \
  void name(const NodeProductArguments<T> &a, T *scratch, int64_t begin, int64_t end)

// The same kernels for every instruction set, each in a namespace of its own.
namespace TDN_KERNELS {
TDN_NODE_PRODUCT_PASS(float, node_product_forward);
TDN_NODE_PRODUCT_PASS(double, node_product_forward);
TDN_NODE_PRODUCT_PASS(float, node_product_adjoint);
TDN_NODE_PRODUCT_PASS(double, node_product_adjoint);
TDN_NODE_PRODUCT_PASS(float, node_product_second);
TDN_NODE_PRODUCT_PASS(double, node_product_second);
}    // namespace TDN_KERNELS

}    // namespace tdn

#endif
