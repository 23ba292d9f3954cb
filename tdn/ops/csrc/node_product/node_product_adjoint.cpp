#include "node_product_vector.h"

namespace tdn {
namespace {

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

}    // namespace

namespace TDN_KERNELS {

TDN_NODE_PRODUCT_PASS(float, node_product_adjoint)
{
  const auto kernel = choose(a.components, adjoint<float, 0>, adjoint<float, 4>, adjoint<float, 9>,
                             adjoint<float, 16>);
  kernel(a, scratch, begin, end);
}

TDN_NODE_PRODUCT_PASS(double, node_product_adjoint)
{
  const auto kernel = choose(a.components, adjoint<double, 0>, adjoint<double, 4>,
                             adjoint<double, 9>, adjoint<double, 16>);
  kernel(a, scratch, begin, end);
}

}    // namespace TDN_KERNELS
}    // namespace tdn
