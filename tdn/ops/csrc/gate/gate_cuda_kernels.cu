#include "gate_cuda_kernels.h"

#include "common/launch.h"

#include <cmath>

// A thread takes V channels of one degree of a node. Every number is read and written once, so
// memory is the limit; sigmoids are computed where they are needed rather than kept.

namespace tdn::cuda {
namespace {

template <typename T> TDN_DEVICE T sigmoid(T x) { return 1 / (1 + std::exp(-x)); }

template <typename T, int V, GatePass pass> struct Gate {
  GateArguments<T> a;

  TDN_DEVICE void operator()(int64_t thread) const
  {
    const int64_t groups = a.channels / V, c = thread % groups * V;
    const int64_t l = thread / groups % a.degrees, node = thread / groups / a.degrees;
    const int64_t at = (node * a.degrees * a.degrees + l * l) * a.channels + c;
    if (l == 0)
      scalars(at);
    else
      degree(l, at, (node * (a.degrees - 1) + l - 1) * a.channels + c);
  }

  TDN_DEVICE void scalars(int64_t at) const
  {
    const T scale = static_cast<T>(a.scale);
    const Pack<T, V> x = load<T, V>(a.x + at);
    Pack<T, V> g{}, direction{}, out, grad_g;
    if constexpr (pass != GatePass::forward) g = load<T, V>(a.g + at);
    if constexpr (pass == GatePass::second) direction = load<T, V>(a.v + at);
    TDN_UNROLL
    for (int v = 0; v < V; ++v) {
      const T in = x.value[v], s = sigmoid(in), slope = s * (1 - s);
      if constexpr (pass == GatePass::forward) out.value[v] = scale * in * s;
      if constexpr (pass == GatePass::adjoint)
        out.value[v] = scale * g.value[v] * (s + in * slope);
      if constexpr (pass == GatePass::second) {
        const T along = scale * direction.value[v];
        grad_g.value[v] = along * (s + in * slope);
        out.value[v] = along * g.value[v] * slope * (2 + in * (1 - 2 * s));
      }
    }
    store(a.out + at, out);
    if constexpr (pass == GatePass::second) store(a.grad_g + at, grad_g);
  }

  // row: where its gates are
  TDN_DEVICE void degree(int64_t l, int64_t at, int64_t row) const
  {
    const Pack<T, V> z = load<T, V>(a.z + row);
    Pack<T, V> gate, slope, h{}, with_x{}, with_v{};    // the sums of g x and g v
    if constexpr (pass == GatePass::second) h = load<T, V>(a.h + row);
    TDN_UNROLL
    for (int v = 0; v < V; ++v) {
      const T s = sigmoid(z.value[v]);
      gate.value[v] = 2 * s;
      slope.value[v] = 2 * s * (1 - s);
    }
    for (int64_t k = 0; k < 2 * l + 1; ++k, at += a.channels) {
      const Pack<T, V> x = load<T, V>(a.x + at);
      Pack<T, V> g{}, direction{}, out, grad_g;
      if constexpr (pass != GatePass::forward) g = load<T, V>(a.g + at);
      if constexpr (pass == GatePass::second) direction = load<T, V>(a.v + at);
      TDN_UNROLL
      for (int v = 0; v < V; ++v) {
        if constexpr (pass == GatePass::forward) out.value[v] = gate.value[v] * x.value[v];
        if constexpr (pass == GatePass::adjoint) out.value[v] = gate.value[v] * g.value[v];
        if constexpr (pass == GatePass::second) {
          const T along = h.value[v] * slope.value[v];
          grad_g.value[v] = gate.value[v] * direction.value[v] + along * x.value[v];
          out.value[v] = along * g.value[v];
          with_v.value[v] += direction.value[v] * g.value[v];
        }
        if constexpr (pass != GatePass::forward) with_x.value[v] += x.value[v] * g.value[v];
      }
      store(a.out + at, out);
      if constexpr (pass == GatePass::second) store(a.grad_g + at, grad_g);
    }
    if constexpr (pass != GatePass::forward) {
      Pack<T, V> grad_z, grad_h;
      TDN_UNROLL
      for (int v = 0; v < V; ++v) {
        grad_z.value[v] = grad_h.value[v] = slope.value[v] * with_x.value[v];
        if constexpr (pass == GatePass::second)
          grad_z.value[v] = slope.value[v] *
              (with_v.value[v] + h.value[v] * (1 - gate.value[v]) * with_x.value[v]);
      }
      store(a.grad_z + row, grad_z);
      if constexpr (pass == GatePass::second) store(a.grad_h + row, grad_h);
    }
  }
};

template <typename T, int V>
int launch_packed(const GateArguments<T> &a, GatePass pass, const Queue &queue)
{
  const int64_t total = a.num_nodes * a.degrees * (a.channels / V);
  switch (pass) {
    case GatePass::forward: return launch_threads(Gate<T, V, GatePass::forward>{a}, total, queue);
    case GatePass::adjoint: return launch_threads(Gate<T, V, GatePass::adjoint>{a}, total, queue);
    default: return launch_threads(Gate<T, V, GatePass::second>{a}, total, queue);
  }
}

}    // namespace

template <typename T>
int launch_gate(const GateArguments<T> &a, GatePass pass, const Queue &queue)
{
  if (packs<T>(a.channels, a.x, a.z, a.g, a.v, a.h, a.out, a.grad_z, a.grad_g, a.grad_h))
    return launch_packed<T, widest<T>>(a, pass, queue);
  return launch_packed<T, 1>(a, pass, queue);
}

template int launch_gate(const GateArguments<float> &, GatePass, const Queue &);
template int launch_gate(const GateArguments<double> &, GatePass, const Queue &);

}    // namespace tdn::cuda
