// What one thread of the node product has at hand. Included by node_product_kernels.cu alone.

#ifndef TDN_CUDA_NODE_THREAD_H
#define TDN_CUDA_NODE_THREAD_H

#include "common/launch.h"
#include "node_product_cuda_kernels.h"

namespace tdn::cuda {
namespace {

constexpr const char *bad_species = "node_product: species out of range";

template <typename T, int V>
TDN_DEVICE Pack<T, V> operator*(const Pack<T, V> &x, const Pack<T, V> &y)
{
  Pack<T, V> result;
  TDN_UNROLL
  for (int v = 0; v < V; ++v) result.value[v] = x.value[v] * y.value[v];
  return result;
}

template <typename T, int V>
TDN_DEVICE Pack<T, V> operator+(const Pack<T, V> &x, const Pack<T, V> &y)
{
  Pack<T, V> result;
  TDN_UNROLL
  for (int v = 0; v < V; ++v) result.value[v] = x.value[v] + y.value[v];
  return result;
}

template <typename T, int V>
TDN_DEVICE void add_product(T factor, const Pack<T, V> &x, Pack<T, V> &sum)
{
  TDN_UNROLL
  for (int v = 0; v < V; ++v) sum.value[v] += factor * x.value[v];
}

// Row of a factor in shared memory, a multiple of 16 bytes.
template <typename T, int D>
constexpr int padded = (D + widest<T> - 1) / widest<T> * widest<T>;

TDN_DEVICE constexpr int degree_of(int k)
{
  return k < 1 ? 0 : k < 4 ? 1 : k < 9 ? 2 : k < 16 ? 3 : 4;
}

// One row [D] of a factor.
template <typename T, int D> struct FactorRow {
  Pack<T, widest<T>> pack[padded<T, D> / widest<T>];
  TDN_DEVICE T operator[](int k) const { return pack[k / widest<T>].value[k % widest<T>]; }
};

template <typename T> struct FactorRow<T, 0> {
  const T *start;
  int64_t stride;
  TDN_DEVICE T operator[](int k) const { return start[k * stride]; }
};

template <typename T, int V, int D> struct NodeThread;

// V channels of D components: in registers, or in the node's scratch memory where D is 0.
template <typename T, int V, int D> struct Components {
  Pack<T, V> value[D];
  TDN_DEVICE explicit Components(NodeThread<T, V, D> &) {}
  TDN_DEVICE Pack<T, V> get(int k) const { return value[k]; }
  TDN_DEVICE void set(int k, const Pack<T, V> &x) { value[k] = x; }
};

template <typename T, int V> struct Components<T, V, 0> {
  T *start;
  int64_t stride;
  TDN_DEVICE explicit Components(NodeThread<T, V, 0> &node) :
      start(node.take(node.components())), stride(node.a.channels)
  {
  }
  TDN_DEVICE Pack<T, V> get(int k) const { return load<T, V>(start + k * stride); }
  TDN_DEVICE void set(int k, const Pack<T, V> &x) { store(start + k * stride, x); }
};

// V channels of one node: reads and writes them, applies factors.
template <typename T, int V, int D> struct NodeThread {
  using Numbers = Pack<T, V>;
  using Values = Components<T, V, D>;
  static constexpr int max_degrees = D > 0 ? degree_of(D - 1) + 1 : 1;

  const NodeProduct<T> &a;
  const T *factors;    // in shared memory
  int64_t node, c, species;
  T *scratch;          // what is left of it

  TDN_DEVICE NodeThread(const NodeProduct<T> &a_, const T *factors_, int64_t scratch_rows,
                        int64_t item) :
      a(a_), factors(factors_), node(item / (a.channels / V)), c(item % (a.channels / V) * V),
      species(a.species[node]),
      scratch(scratch_rows ? a.scratch + node * scratch_rows * a.channels + c : nullptr)
  {
    TDN_DEVICE_CHECK(species >= 0 && species < a.num_species, bad_species);
  }

  TDN_DEVICE T *take(int64_t rows)
  {
    T *const start = scratch;
    scratch += rows * a.channels;
    return start;
  }

  TDN_DEVICE int degrees() const { return D > 0 ? max_degrees : static_cast<int>(a.degrees); }
  TDN_DEVICE int components() const { return D > 0 ? D : degrees() * degrees(); }

  // function(l, k) for all components
  template <typename F> TDN_DEVICE void each(F function) const
  {
    if constexpr (D > 0) {
      TDN_UNROLL
      for (int k = 0; k < D; ++k) function(degree_of(k), k);
    } else {
      for (int l = 0; l < degrees(); ++l)
        for (int k = l * l; k < (l + 1) * (l + 1); ++k) function(l, k);
    }
  }

  // function(l, k) for those of the output
  template <typename F> TDN_DEVICE void each_output(F function) const
  {
    each([&](int l, int k) {
      if (l < a.degrees_out) function(l, k);
    });
  }

  // Component k of an array of nodes, [N, L^2, C].
  TDN_DEVICE Numbers of_node(const T *x, int64_t degrees, int k) const
  {
    return load<T, V>(x + (node * degrees * degrees + k) * a.channels + c);
  }
  TDN_DEVICE void to_node(T *x, int64_t degrees, int k, const Numbers &value) const
  {
    store(x + (node * degrees * degrees + k) * a.channels + c, value);
  }
  TDN_DEVICE Numbers m(int k) const { return of_node(a.m, a.degrees, k); }
  TDN_DEVICE Numbers v(int k) const { return of_node(a.v, a.degrees, k); }
  TDN_DEVICE Numbers g(int k) const { return of_node(a.g, a.degrees_out, k); }

  // Weights of the node's species.
  TDN_DEVICE Numbers of_species(const T *x, int64_t degrees, int o, int l) const
  {
    return load<T, V>(x + ((o * a.num_species + species) * degrees + l) * a.channels + c);
  }
  TDN_DEVICE Numbers linear(int l) const { return of_species(a.linear, a.degrees_out, 0, l); }
  TDN_DEVICE Numbers left(int o, int l) const { return of_species(a.left, a.degrees, o, l); }
  TDN_DEVICE Numbers right(int o, int l) const { return of_species(a.right, a.degrees, o, l); }
  TDN_DEVICE Numbers weight(int o, int l) const
  {
    return of_species(a.weight, a.degrees_out, o, l);
  }

  // Row r of factor 0 (input1), 1 (input2) or 2 (output).
  TDN_DEVICE FactorRow<T, D> row(int factor, int64_t r) const
  {
    if constexpr (D > 0) {
      FactorRow<T, D> result;
      constexpr int count = padded<T, D> / widest<T>;
      const T *const from = factors + (factor * a.rank + r) * padded<T, D>;
      TDN_UNROLL
      for (int k = 0; k < count; ++k) result.pack[k] = load<T, widest<T>>(from + k * widest<T>);
      return result;
    } else {
      return {(factor == 0 ? a.input1 : factor == 1 ? a.input2 : a.output) + r, a.rank};
    }
  }

  TDN_DEVICE Numbers dot(const FactorRow<T, D> &factor, const Values &x) const
  {
    Numbers total{};
    TDN_UNROLL
    for (int k = 0; k < components(); ++k) add_product(factor[k], x.get(k), total);
    return total;
  }

  TDN_DEVICE void add(const FactorRow<T, D> &factor, const Numbers &x, Values &sum) const
  {
    TDN_UNROLL
    for (int k = 0; k < components(); ++k) {
      Numbers total = sum.get(k);
      add_product(factor[k], x, total);
      sum.set(k, total);
    }
  }

  TDN_DEVICE void clear(Values &x) const
  {
    TDN_UNROLL
    for (int k = 0; k < components(); ++k) x.set(k, Numbers{});
  }

  // power = output ((input1^T x) (input2^T y)), or its scalar alone
  TDN_DEVICE void multiply(const Values &x, const Values &y, bool scalar, Values &power) const
  {
    clear(power);
    for (int64_t r = 0; r < a.rank; ++r) {
      const Numbers product = dot(row(0, r), x) * dot(row(1, r), y);
      if (scalar) {
        Numbers total = power.get(0);
        add_product(row(2, r)[0], product, total);
        power.set(0, total);
      } else {
        add(row(2, r), product, power);
      }
    }
  }

  // Terms of this node in the gradients of weights from number `first` on: for each degree the sum
  // of value(k) over its components.
  template <typename F> TDN_DEVICE void terms(int64_t first, int64_t count, F value) const
  {
    T *const to = a.terms + (node * a.num_weights + first) * a.channels + c;
    if constexpr (D > 0) {
      Numbers total[max_degrees] = {};
      each([&](int l, int k) {
        if (l < count) total[l] = total[l] + value(k);
      });
      TDN_UNROLL
      for (int l = 0; l < max_degrees; ++l)
        if (l < count) store(to + l * a.channels, total[l]);
    } else {
      for (int l = 0; l < count; ++l) {
        Numbers total{};
        for (int k = l * l; k < (l + 1) * (l + 1); ++k) total = total + value(k);
        store(to + l * a.channels, total);
      }
    }
  }
  TDN_DEVICE int64_t left_terms(int o) const
  {
    return a.degrees_out + o * (2 * a.degrees + a.degrees_out);
  }
  TDN_DEVICE int64_t right_terms(int o) const { return left_terms(o) + a.degrees; }
  TDN_DEVICE int64_t weight_terms(int o) const { return right_terms(o) + a.degrees; }

  // Powers of all orders but the last, in scratch memory; that of order 0 is `first`.
  TDN_DEVICE Numbers power_of(const T *first, const T *kept, int o, int k) const
  {
    return o == 0 ? of_node(first, a.degrees, k)
                  : load<T, V>(kept + ((o - 1) * components() + k) * a.channels);
  }
  TDN_DEVICE T *take_powers()
  {
    return a.orders > 1 ? take((a.orders - 1) * components()) : nullptr;
  }
  TDN_DEVICE void keep(T *kept, int o, const Values &power) const
  {
    TDN_UNROLL
    for (int k = 0; k < components(); ++k)
      store(kept + ((o - 1) * components() + k) * a.channels, power.get(k));
  }
};

}    // namespace
}    // namespace tdn::cuda

#endif
