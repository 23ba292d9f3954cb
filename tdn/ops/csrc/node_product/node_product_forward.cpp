#include "node_product_vector.h"

namespace tdn {
namespace {

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

}    // namespace

namespace TDN_KERNELS {

TDN_NODE_PRODUCT_PASS(float, node_product_forward)
{
  const auto kernel = choose(a.components, forward<float, 0>, forward<float, 4>, forward<float, 9>,
                             forward<float, 16>);
  kernel(a, scratch, begin, end);
}

TDN_NODE_PRODUCT_PASS(double, node_product_forward)
{
  const auto kernel = choose(a.components, forward<double, 0>, forward<double, 4>,
                             forward<double, 9>, forward<double, 16>);
  kernel(a, scratch, begin, end);
}

}    // namespace TDN_KERNELS
}    // namespace tdn
