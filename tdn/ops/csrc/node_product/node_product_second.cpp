#include "node_product_vector.h"

namespace tdn {
namespace {

// out[r] = matrix[r] . x and dot[r] = matrix[r] . x_dot, over the first K components (0: all).
template <typename T, int D, int K>
TDN_INLINE void project(const T *matrix, int64_t rank, int64_t components, const T *x,
                        const T *x_dot, T *out, T *dot)
{
  constexpr int V = width<T>;
  const int64_t row = D ? D : components, count = K ? K : row;
  Vector<T, V> values[D ? D : 1], dots[D ? D : 1];
  if constexpr (D > 0)
    for (int k = 0; k < (K ? K : D); ++k) {
      values[k] = load<T, V>(x + k * V);
      dots[k] = load<T, V>(x_dot + k * V);
    }
  for (int64_t r = 0; r < rank; ++r) {
    Vector<T, V> total = {}, total_dot = {};
    for (int64_t k = 0; k < count; ++k) {
      const T factor = matrix[r * row + k];
      total += factor * (D ? values[D ? k : 0] : load<T, V>(x + k * V));
      total_dot += factor * (D ? dots[D ? k : 0] : load<T, V>(x_dot + k * V));
    }
    store<T, V>(out + r * V, total);
    store<T, V>(dot + r * V, total_dot);
  }
}

// out[k] = sum_r matrix[r, k] x[r] and dot[k] = sum_r matrix[r, k] x_dot[r].
template <typename T, int D>
TDN_INLINE void expand(const T *matrix, int64_t rank, int64_t components, const T *x,
                       const T *x_dot, T *out, T *dot)
{
  constexpr int V = width<T>;
  if constexpr (D > 0) {
    Vector<T, V> total[D] = {}, total_dot[D] = {};
    for (int64_t r = 0; r < rank; ++r) {
      const Vector<T, V> value = load<T, V>(x + r * V), value_dot = load<T, V>(x_dot + r * V);
      for (int k = 0; k < D; ++k) {
        const T factor = matrix[r * D + k];
        total[k] += factor * value;
        total_dot[k] += factor * value_dot;
      }
    }
    for (int k = 0; k < D; ++k) {
      store<T, V>(out + k * V, total[k]);
      store<T, V>(dot + k * V, total_dot[k]);
    }
  } else {
    for (int64_t k = 0; k < components; ++k) {
      Vector<T, V> total = {}, total_dot = {};
      for (int64_t r = 0; r < rank; ++r) {
        const T factor = matrix[r * components + k];
        total += factor * load<T, V>(x + r * V);
        total_dot += factor * load<T, V>(x_dot + r * V);
      }
      store<T, V>(out + k * V, total);
      store<T, V>(dot + k * V, total_dot);
    }
  }
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
        const T *const weight_left = a.left + at.at(o, c);
        const T *const weight_right = a.right + at.at(o, c);
        scale<T, false>(weight_left, a.channels, at.count, degrees, power, left);
        scale<T, false>(weight_left, a.channels, at.count, degrees, dot, left_dot);
        scale<T, false>(weight_right, a.channels, at.count, degrees, m, right);
        scale<T, false>(weight_right, a.channels, at.count, degrees, v, right_dot);
        project<T, D, 0>(a.input1, rank, components, left, left_dot, p, p_dot);
        project<T, D, 0>(a.input2, rank, components, right, right_dot, q, q_dot);
        for (int64_t k = 0; k < rank * V; ++k) {
          s[k] = p[k] * q[k];
          s_dot[k] = p_dot[k] * q[k] + p[k] * q_dot[k];
        }
        expand<T, D>(a.output, rank, components, s, s_dot, power + components * V,
                     dot + components * V);
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
        if (o == a.orders - 1 && a.components_out == 1)    // all but the scalar are zero
          project<T, D, 1>(a.output, rank, components, grad_power, grad_dot, s, s_dot);
        else
          project<T, D, 0>(a.output, rank, components, grad_power, grad_dot, s, s_dot);
        for (int64_t k = 0; k < rank * V; ++k) {    // s, t: gradients of p, q; dots likewise
          const T first = s[k], dotted = s_dot[k];
          s[k] = first * q[k] + dotted * q_dot[k];
          t[k] = first * p[k] + dotted * p_dot[k];
          s_dot[k] = dotted * q[k];
          t_dot[k] = dotted * p[k];
        }
        expand<T, D>(a.input1, rank, components, s, s_dot, left, left_dot);
        expand<T, D>(a.input2, rank, components, t, t_dot, right, right_dot);
        if (a.grad_linear) {
          T *const grad_left = a.grad_left + at.at(o, c);
          T *const grad_right = a.grad_right + at.at(o, c);
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

}    // namespace

namespace TDN_KERNELS {

TDN_NODE_PRODUCT_PASS(float, node_product_second)
{
  const auto kernel = choose(a.components, second<float, 0>, second<float, 4>, second<float, 9>,
                             second<float, 16>);
  kernel(a, scratch, begin, end);
}

TDN_NODE_PRODUCT_PASS(double, node_product_second)
{
  const auto kernel = choose(a.components, second<double, 0>, second<double, 4>,
                             second<double, 9>, second<double, 16>);
  kernel(a, scratch, begin, end);
}

}    // namespace TDN_KERNELS
}    // namespace tdn
