#include "node_product_cuda_kernels.h"

#include "common/launch.h"
#include "node_product_cuda_thread.h"

// A thread takes V channels of a node, through all orders. Its features stay in registers; a block
// of threads has the factors in shared memory, transposed to rows [D] of one rank, which all its
// threads read at the same time. D is the number of components, known to the compiler up to
// l_max 4; 0 means any, and features that no longer fit in registers then lie in scratch memory.
//
// Flops and bytes. With R ranks, D components and O orders a channel costs 6 O D R flops forward,
// (16 O - 6) D R in the adjoint and 32 O D R in the second derivative. The adjoints compute what is
// in rank space again rather than keep it: R numbers per order would need more memory than there is
// near a thread. Powers of order one and up are kept, in scratch memory. In float32 at the default
// size (R = 17, D = 9, O = 2) that is 1.8, 4.0 and 9.8 kflop for 72, 180 and 468 bytes: more than
// 20 flops per byte, beyond what a GPU does per byte of its memory. What limits are then the
// multiply-adds and the reads of factors: 16 bytes of shared memory feed 4 V multiply-adds.

namespace tdn::cuda {
namespace {

template <typename T, int V, int D> TDN_DEVICE void forward(NodeThread<T, V, D> &t)
{
  using Values = Components<T, V, D>;
  Values x(t), y(t), power(t), sum(t);
  t.each([&](int, int k) { power.set(k, t.m(k)); });
  t.each_output([&](int l, int k) { sum.set(k, t.linear(l) * t.m(k)); });
  for (int o = 0; o < t.a.orders; ++o) {
    t.each([&](int l, int k) {
      x.set(k, t.left(o, l) * power.get(k));
      y.set(k, t.right(o, l) * t.m(k));
    });
    t.multiply(x, y, t.a.degrees_out == 1 && o + 1 == t.a.orders, power);
    t.each_output([&](int l, int k) { sum.set(k, sum.get(k) + t.weight(o, l) * power.get(k)); });
  }
  t.each_output([&](int, int k) { t.to_node(t.a.out, t.a.degrees_out, k, sum.get(k)); });
}

template <typename T, int V, int D> TDN_DEVICE void adjoint(NodeThread<T, V, D> &t)
{
  using Values = Components<T, V, D>;
  T *const kept = t.take_powers();
  Values x(t), y(t), power(t);
  t.each([&](int, int k) { power.set(k, t.m(k)); });
  for (int o = 0; o < (t.a.terms ? t.a.orders : t.a.orders - 1); ++o) {
    t.each([&](int l, int k) {
      x.set(k, t.left(o, l) * power.get(k));
      y.set(k, t.right(o, l) * t.m(k));
    });
    t.multiply(x, y, false, power);
    if (t.a.terms)
      t.terms(t.weight_terms(o), t.a.degrees_out, [&](int k) { return t.g(k) * power.get(k); });
    if (o + 1 < t.a.orders) t.keep(kept, o + 1, power);
  }
  if (t.a.terms) t.terms(0, t.a.degrees_out, [&](int k) { return t.g(k) * t.m(k); });

  Values grad_x(t), grad_y(t), grad_power(t), grad_m(t);
  t.clear(grad_power);
  t.clear(grad_m);
  t.each_output([&](int l, int k) { grad_m.set(k, t.linear(l) * t.g(k)); });
  for (int o = static_cast<int>(t.a.orders) - 1; o >= 0; --o) {
    t.each_output([&](int l, int k) {
      grad_power.set(k, grad_power.get(k) + t.weight(o, l) * t.g(k));
    });
    t.each([&](int l, int k) {
      x.set(k, t.left(o, l) * t.power_of(t.a.m, kept, o, k));
      y.set(k, t.right(o, l) * t.m(k));
    });
    t.clear(grad_x);
    t.clear(grad_y);
    for (int64_t r = 0; r < t.a.rank; ++r) {
      const FactorRow<T, D> first = t.row(0, r), second = t.row(1, r);
      const Pack<T, V> product = t.dot(t.row(2, r), grad_power);
      t.add(first, product * t.dot(second, y), grad_x);
      t.add(second, product * t.dot(first, x), grad_y);
    }
    if (t.a.terms) {
      t.terms(t.left_terms(o), t.a.degrees,
              [&](int k) { return grad_x.get(k) * t.power_of(t.a.m, kept, o, k); });
      t.terms(t.right_terms(o), t.a.degrees, [&](int k) { return grad_y.get(k) * t.m(k); });
    }
    t.each([&](int l, int k) {
      grad_m.set(k, grad_m.get(k) + t.right(o, l) * grad_y.get(k));
      grad_power.set(k, t.left(o, l) * grad_x.get(k));
    });
  }
  t.each([&](int, int k) {
    t.to_node(t.a.out, t.a.degrees, k, grad_m.get(k) + grad_power.get(k));
  });
}

// A dotted quantity is the derivative along v: first all quantities and their dotted ones
// forward, then reverse differentiation of <g, dotted y>.
template <typename T, int V, int D> TDN_DEVICE void second(NodeThread<T, V, D> &t)
{
  using Values = Components<T, V, D>;
  T *const kept = t.take_powers(), *const kept_dot = t.take_powers();
  Values x(t), y(t), x_dot(t), y_dot(t), power(t), power_dot(t), along(t);
  const auto prepare = [&](int o, const auto &power_at, const auto &power_dotat) {
    t.each([&](int l, int k) {
      x.set(k, t.left(o, l) * power_at(k));
      x_dot.set(k, t.left(o, l) * power_dotat(k));
      y.set(k, t.right(o, l) * t.m(k));
      y_dot.set(k, t.right(o, l) * t.v(k));
    });
  };
  t.each([&](int, int k) {
    power.set(k, t.m(k));
    power_dot.set(k, t.v(k));
  });
  t.each_output([&](int l, int k) { along.set(k, t.linear(l) * t.v(k)); });
  if (t.a.terms) t.terms(0, t.a.degrees_out, [&](int k) { return t.g(k) * t.v(k); });
  for (int o = 0; o < t.a.orders; ++o) {
    prepare(o, [&](int k) { return power.get(k); }, [&](int k) { return power_dot.get(k); });
    t.clear(power);
    t.clear(power_dot);
    for (int64_t r = 0; r < t.a.rank; ++r) {
      const FactorRow<T, D> first = t.row(0, r), second = t.row(1, r), last = t.row(2, r);
      const Pack<T, V> p = t.dot(first, x), q = t.dot(second, y);
      t.add(last, p * q, power);
      t.add(last, t.dot(first, x_dot) * q + p * t.dot(second, y_dot), power_dot);
    }
    t.each_output([&](int l, int k) {
      along.set(k, along.get(k) + t.weight(o, l) * power_dot.get(k));
    });
    if (t.a.terms)
      t.terms(t.weight_terms(o), t.a.degrees_out, [&](int k) { return t.g(k) * power_dot.get(k); });
    if (o + 1 < t.a.orders) {
      t.keep(kept, o + 1, power);
      t.keep(kept_dot, o + 1, power_dot);
    }
  }
  t.each_output([&](int, int k) { t.to_node(t.a.along, t.a.degrees_out, k, along.get(k)); });

  Values grad_x(t), grad_y(t), grad_x_dot(t), grad_y_dot(t);
  Values grad_power(t), grad_dot(t);
  t.clear(grad_power);
  t.clear(grad_dot);
  // the gradient by m is summed in memory: there are no registers left for it at l_max 3
  const auto add_to_out = [&](int k, const auto &value) {
    t.to_node(t.a.out, t.a.degrees, k, t.of_node(t.a.out, t.a.degrees, k) + value);
  };
  t.each([&](int, int k) { t.to_node(t.a.out, t.a.degrees, k, {}); });
  for (int o = static_cast<int>(t.a.orders) - 1; o >= 0; --o) {
    t.each_output(
        [&](int l, int k) { grad_dot.set(k, grad_dot.get(k) + t.weight(o, l) * t.g(k)); });
    prepare(o, [&](int k) { return t.power_of(t.a.m, kept, o, k); },
            [&](int k) { return t.power_of(t.a.v, kept_dot, o, k); });
    t.clear(grad_x);
    t.clear(grad_y);
    t.clear(grad_x_dot);
    t.clear(grad_y_dot);
    for (int64_t r = 0; r < t.a.rank; ++r) {
      const FactorRow<T, D> first = t.row(0, r), second = t.row(1, r), last = t.row(2, r);
      const Pack<T, V> p = t.dot(first, x), p_dot = t.dot(first, x_dot);
      const Pack<T, V> q = t.dot(second, y), q_dot = t.dot(second, y_dot);
      const Pack<T, V> s = t.dot(last, grad_power), s_dot = t.dot(last, grad_dot);
      t.add(first, s * q + s_dot * q_dot, grad_x);
      t.add(second, s * p + s_dot * p_dot, grad_y);
      t.add(first, s_dot * q, grad_x_dot);
      t.add(second, s_dot * p, grad_y_dot);
    }
    if (t.a.terms) {
      t.terms(t.left_terms(o), t.a.degrees, [&](int k) {
        return grad_x.get(k) * t.power_of(t.a.m, kept, o, k) +
            grad_x_dot.get(k) * t.power_of(t.a.v, kept_dot, o, k);
      });
      t.terms(t.right_terms(o), t.a.degrees,
              [&](int k) { return grad_y.get(k) * t.m(k) + grad_y_dot.get(k) * t.v(k); });
    }
    t.each([&](int l, int k) {
      add_to_out(k, t.right(o, l) * grad_y.get(k));
      grad_power.set(k, t.left(o, l) * grad_x.get(k));
      grad_dot.set(k, t.left(o, l) * grad_x_dot.get(k));
    });
  }
  t.each([&](int, int k) { add_to_out(k, grad_power.get(k)); });
}

template <typename T, int V, int D, NodePass pass> struct NodeKernel {
  NodeProduct<T> a;
  int64_t scratch_rows, total;    // total: threads

  TDN_DEVICE void operator()(int64_t tile, const Block &block) const
  {
    T *const factors = reinterpret_cast<T *>(block.shared);
    if constexpr (D > 0) {
      block.sync();    // the last tile has used them
      block.each([&](int thread) { load_factors(factors, thread, block.threads); });
      block.sync();
    }
    block.each([&](int thread) {
      const int64_t item = tile * block.threads + thread;
      if (item >= total) return;
      NodeThread<T, V, D> node(a, factors, scratch_rows, item);
      if constexpr (pass == NodePass::forward) forward(node);
      if constexpr (pass == NodePass::adjoint) adjoint(node);
      if constexpr (pass == NodePass::second) second(node);
    });
  }

  TDN_DEVICE void load_factors(T *to, int thread, int threads) const
  {
    constexpr int width = padded<T, D ? D : 1>;
    const int rank = static_cast<int>(a.rank);
    for (int item = thread; item < 3 * rank * width; item += threads) {
      const int factor = item / (rank * width), r = item / width % rank, k = item % width;
      const T *const from = factor == 0 ? a.input1 : factor == 1 ? a.input2 : a.output;
      to[item] = k < D ? from[k * rank + r] : T(0);
    }
  }
};

template <typename T, int V, int D, NodePass pass>
int launch(const NodeProduct<T> &a, const Queue &queue)
{
  const int64_t total = a.num_nodes * (a.channels / V);
  const NodeKernel<T, V, D, pass> kernel{a, node_product_scratch(a, pass), total};
  const int shared = D > 0 ? static_cast<int>(3 * a.rank * padded<T, D ? D : 1> * sizeof(T)) : 0;
  return launch_blocks(kernel, (total + block_threads - 1) / block_threads, block_threads, shared,
                       queue);
}

// Two channels per thread where registers last.
template <typename T, int D, NodePass pass>
int launch_packed(const NodeProduct<T> &a, const Queue &queue)
{
  if constexpr (sizeof(T) == 4 && D <= 9 && pass != NodePass::second) {
    if (packs<T, 2>(a.channels, a.m, a.linear, a.left, a.right, a.weight, a.g, a.out, a.terms))
      return launch<T, 2, D, pass>(a, queue);
  }
  return launch<T, 1, D, pass>(a, queue);
}

// Components with kernels of their own; 0 for the kernel that takes any.
template <typename T> int64_t compiled_components(const NodeProduct<T> &a)
{
  const int64_t D = a.degrees * a.degrees, width = (D + widest<T> - 1) / widest<T> * widest<T>;
  return a.degrees <= 5 && 3 * a.rank * width * int64_t(sizeof(T)) <= Block::max_shared ? D : 0;
}

template <typename T, NodePass pass>
int launch_pass(const NodeProduct<T> &a, const Queue &queue)
{
  switch (compiled_components(a)) {
    case 1: return launch_packed<T, 1, pass>(a, queue);
    case 4: return launch_packed<T, 4, pass>(a, queue);
    case 9: return launch_packed<T, 9, pass>(a, queue);
    case 16: return launch_packed<T, 16, pass>(a, queue);
    case 25: return launch_packed<T, 25, pass>(a, queue);
    default: return launch<T, 1, 0, pass>(a, queue);
  }
}

}    // namespace

template <typename T> int64_t node_product_scratch(const NodeProduct<T> &a, NodePass pass)
{
  // as many as the passes name: powers, then Components where they are not in registers
  const int64_t kept = a.orders > 1 ? a.orders - 1 : 0, in_memory = compiled_components(a) == 0;
  int64_t count = 4 * in_memory;
  if (pass == NodePass::adjoint) count = kept + 7 * in_memory;
  if (pass == NodePass::second) count = 2 * kept + 13 * in_memory;
  return count * a.degrees * a.degrees;
}

template <typename T>
int launch_node_product(const NodeProduct<T> &a, NodePass pass, const Queue &queue)
{
  switch (pass) {
    case NodePass::forward: return launch_pass<T, NodePass::forward>(a, queue);
    case NodePass::adjoint: return launch_pass<T, NodePass::adjoint>(a, queue);
    default: return launch_pass<T, NodePass::second>(a, queue);
  }
}

template int64_t node_product_scratch(const NodeProduct<float> &, NodePass);
template int64_t node_product_scratch(const NodeProduct<double> &, NodePass);
template int launch_node_product(const NodeProduct<float> &, NodePass, const Queue &);
template int launch_node_product(const NodeProduct<double> &, NodePass, const Queue &);

}    // namespace tdn::cuda
