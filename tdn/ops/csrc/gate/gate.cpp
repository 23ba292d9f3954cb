#include "gate.h"

#include "gate_kernels.h"
#include "degree_linear/degree_linear.h"
#include "common/parallel.h"

#include <ATen/ATen.h>
#include <ATen/Dispatch.h>

#include <vector>

namespace tdn {
namespace {

// Number of degrees L.
int64_t check(const Tensor &x, const Tensor &weight)
{
  int64_t degrees = 0;
  while (x.dim() == 3 && x.sym_size(1) > degrees * degrees) ++degrees;
  TORCH_CHECK_VALUE(x.dim() == 3 && weight.dim() == 2 && degrees > 0 &&
                        x.sym_size(1) == degrees * degrees && weight.sym_size(0) == x.sym_size(2) &&
                        weight.sym_size(1) == x.sym_size(2) * (degrees - 1) &&
                        weight.scalar_type() == x.scalar_type() && weight.device() == x.device(),
                    "gate: expected x [N, L^2, C] and weight [C, (L - 1) C] of one type, found ",
                    x.sym_sizes(), " of ", x.scalar_type(), " and ", weight.sym_sizes(), " of ",
                    weight.scalar_type());
  return degrees;
}

void check_like(const char *name, const Tensor &g, const Tensor &x)
{
  TORCH_CHECK_VALUE(g.sym_sizes() == x.sym_sizes() && g.scalar_type() == x.scalar_type(),
                    "gate: ", name, " must be ", x.sym_sizes(), " of ", x.scalar_type(),
                    ", found ", g.sym_sizes(), " of ", g.scalar_type());
}

template <typename T> const GateKernels<T> &kernels();
template <> const GateKernels<float> &kernels<float>() { return gate_table().float32; }
template <> const GateKernels<double> &kernels<double>() { return gate_table().float64; }

// Matrix products and sigmoids of PyTorch depend in the last place on how threads share them; those
// here do not. x [N, C], weight [C, C'], y [N, C'].
Tensor mix(const Tensor &x, const Tensor &weight)
{
  return degree_linear_cpu(x.unsqueeze(1), weight.unsqueeze(0)).squeeze(1);
}

Tensor mix_weight(const Tensor &x, const Tensor &y)
{
  return degree_linear_weight_cpu(x.unsqueeze(1), y.unsqueeze(1)).squeeze(0);
}

// In place.
Tensor sigmoid_of(const Tensor &x)
{
  AT_DISPATCH_FLOATING_TYPES(x.scalar_type(), "gate", [&] {
    scalar_t *const p = x.mutable_data_ptr<scalar_t>();
    at::parallel_for(0, x.numel(), grain(16), [&](int64_t begin, int64_t end) {
      kernels<scalar_t>().sigmoid(p, begin, end);
    });
  });
  return x;
}

// Contiguous arguments and both sigmoids.
struct Problem {
  int64_t degrees, components, channels, num_nodes;
  Tensor x, scalars, sigmoid, gates;    // gates: sigmoid of z [N, (L - 1) C]

  Problem(const Tensor &x_, const Tensor &weight) :
      degrees(check(x_, weight)), components(x_.size(1)), channels(x_.size(2)),
      num_nodes(x_.size(0)), x(x_.contiguous()),
      scalars(x.select(1, 0).clone(at::MemoryFormat::Contiguous)),
      sigmoid(sigmoid_of(scalars.clone())), gates(sigmoid_of(mix(scalars, weight)))
  {
  }

  // Call function(n) for all nodes.
  template <typename F> void each_node(const F &function) const
  {
    at::parallel_for(0, num_nodes, grain(4 * components * channels),
                     [&](int64_t begin, int64_t end) {
                       for (int64_t n = begin; n < end; ++n) function(n);
                     });
  }
};

}    // namespace

Tensor gate_cpu(const Tensor &x, const Tensor &weight, double scale)
{
  const Problem p(x, weight);
  Tensor out = at::empty(p.x.sizes(), p.x.options());
  AT_DISPATCH_FLOATING_TYPES(x.scalar_type(), "gate", [&] {
    using T = scalar_t;
    const T *const from = p.x.const_data_ptr<T>(), *const sigmoid = p.sigmoid.const_data_ptr<T>();
    const T *const gates = p.gates.const_data_ptr<T>();
    T *const to = out.mutable_data_ptr<T>();
    const int64_t C = p.channels;
    p.each_node([&](int64_t n) {
      const T *const in = from + n * p.components * C, *const s = sigmoid + n * C;
      T *const y = to + n * p.components * C;
      for (int64_t c = 0; c < C; ++c) y[c] = static_cast<T>(scale) * in[c] * s[c];
      for (int64_t l = 1; l < p.degrees; ++l) {
        const T *const gate = gates + (n * (p.degrees - 1) + l - 1) * C;
        for (int64_t k = l * l; k < (l + 1) * (l + 1); ++k)
          for (int64_t c = 0; c < C; ++c) y[k * C + c] = 2 * gate[c] * in[k * C + c];
      }
    });
  });
  return out;
}

std::tuple<Tensor, Tensor> gate_adjoint_cpu(const Tensor &g, const Tensor &x, const Tensor &weight,
                                            double scale, bool need_weight)
{
  const Problem p(x, weight);
  check_like("the gradient", g, x);
  const Tensor gradient = g.contiguous();
  Tensor grad_x = at::empty(p.x.sizes(), p.x.options());
  Tensor grad_z = at::empty(p.gates.sizes(), p.x.options());
  AT_DISPATCH_FLOATING_TYPES(x.scalar_type(), "gate_adjoint", [&] {
    using T = scalar_t;
    const T *const from = p.x.const_data_ptr<T>(), *const sigmoid = p.sigmoid.const_data_ptr<T>();
    const T *const gates = p.gates.const_data_ptr<T>(), *const out = gradient.const_data_ptr<T>();
    T *const to = grad_x.mutable_data_ptr<T>(), *const to_z = grad_z.mutable_data_ptr<T>();
    const int64_t C = p.channels;
    p.each_node([&](int64_t n) {
      const T *const in = from + n * p.components * C, *const s = sigmoid + n * C;
      const T *const dy = out + n * p.components * C;
      T *const dx = to + n * p.components * C;
      for (int64_t c = 0; c < C; ++c)
        dx[c] = static_cast<T>(scale) * dy[c] * s[c] * (1 + in[c] * (1 - s[c]));
      for (int64_t l = 1; l < p.degrees; ++l) {
        const T *const gate = gates + (n * (p.degrees - 1) + l - 1) * C;
        T *const dz = to_z + (n * (p.degrees - 1) + l - 1) * C;
        for (int64_t c = 0; c < C; ++c) dz[c] = 0;
        for (int64_t k = l * l; k < (l + 1) * (l + 1); ++k)
          for (int64_t c = 0; c < C; ++c) {
            dx[k * C + c] = 2 * gate[c] * dy[k * C + c];
            dz[c] += in[k * C + c] * dy[k * C + c];
          }
        for (int64_t c = 0; c < C; ++c) dz[c] *= 2 * gate[c] * (1 - gate[c]);
      }
    });
  });
  if (p.degrees > 1) grad_x.select(1, 0).add_(mix(grad_z, weight.t()));
  return {grad_x, need_weight ? mix_weight(p.scalars, grad_z) : at::empty({0}, x.options())};
}

// With h = v[:, 0] weight, the derivative of z along v:
// H = sum v0 g0 scale silu'(x0) + sum v_lm g_lm 2 s_l + sum h_l 2 s'_l S_l, S_l = sum_m g_lm x_lm.
std::tuple<Tensor, Tensor, Tensor> gate_second_cpu(const Tensor &v, const Tensor &g,
                                                   const Tensor &x, const Tensor &weight,
                                                   double scale, bool need_weight)
{
  const Problem p(x, weight);
  check_like("the gradient", g, x);
  check_like("the direction", v, x);
  const Tensor gradient = g.contiguous(), direction = v.contiguous();
  const Tensor v_scalars = direction.select(1, 0), along = mix(v_scalars, weight);
  Tensor grad_g = at::empty(p.x.sizes(), p.x.options());
  Tensor grad_x = at::empty(p.x.sizes(), p.x.options());
  Tensor grad_z = at::empty(p.gates.sizes(), p.x.options());    // of z and of h
  Tensor grad_h = at::empty(p.gates.sizes(), p.x.options());
  AT_DISPATCH_FLOATING_TYPES(x.scalar_type(), "gate_second", [&] {
    using T = scalar_t;
    const T *const from = p.x.const_data_ptr<T>(), *const sigmoid = p.sigmoid.const_data_ptr<T>();
    const T *const gates = p.gates.const_data_ptr<T>(), *const out = gradient.const_data_ptr<T>();
    const T *const directions = direction.const_data_ptr<T>(), *const h_ = along.const_data_ptr<T>();
    T *const to_g = grad_g.mutable_data_ptr<T>(), *const to_x = grad_x.mutable_data_ptr<T>();
    T *const to_z = grad_z.mutable_data_ptr<T>(), *const to_h = grad_h.mutable_data_ptr<T>();
    const int64_t C = p.channels;
    p.each_node([&](int64_t n) {
      const int64_t at = n * p.components * C;
      const T *const in = from + at, *const s = sigmoid + n * C, *const dy = out + at;
      const T *const to_v = directions + at;
      T *const dg = to_g + at, *const dx = to_x + at;
      for (int64_t c = 0; c < C; ++c) {
        const T slope = s[c] * (1 - s[c]);
        dg[c] = static_cast<T>(scale) * to_v[c] * (s[c] + in[c] * slope);
        dx[c] = static_cast<T>(scale) * to_v[c] * dy[c] * slope * (2 + in[c] * (1 - 2 * s[c]));
      }
      for (int64_t l = 1; l < p.degrees; ++l) {
        const int64_t row = (n * (p.degrees - 1) + l - 1) * C;
        const T *const gate = gates + row, *const h = h_ + row;
        T *const dz = to_z + row, *const dh = to_h + row;
        for (int64_t c = 0; c < C; ++c) dz[c] = dh[c] = 0;
        for (int64_t k = l * l; k < (l + 1) * (l + 1); ++k)
          for (int64_t c = 0; c < C; ++c) {
            const T slope = 2 * gate[c] * (1 - gate[c]);
            const int64_t i = k * C + c;
            dg[i] = 2 * gate[c] * to_v[i] + h[c] * slope * in[i];
            dx[i] = h[c] * slope * dy[i];
            dz[c] += to_v[i] * dy[i];
            dh[c] += in[i] * dy[i];
          }
        for (int64_t c = 0; c < C; ++c) {
          const T slope = 2 * gate[c] * (1 - gate[c]);
          dz[c] = slope * (dz[c] + h[c] * (1 - 2 * gate[c]) * dh[c]);
          dh[c] *= slope;
        }
      }
    });
  });
  if (p.degrees > 1) grad_x.select(1, 0).add_(mix(grad_z, weight.t()));
  Tensor grad_weight = at::empty({0}, x.options());
  if (need_weight)
    grad_weight = mix_weight(p.scalars, grad_z).add_(mix_weight(v_scalars, grad_h));
  return {grad_g, grad_x, grad_weight};
}

Tensor gate_tensor(const Tensor &x, const Tensor &weight, double scale)
{
  const int64_t degrees = check(x, weight);
  const Tensor scalars = x.select(1, 0);
  std::vector<Tensor> parts{(scale * at::silu(scalars)).unsqueeze(1)};
  if (degrees > 1) {
    const Tensor gates = 2 * at::sigmoid(at::matmul(scalars, weight))
                                 .unflatten(1, {degrees - 1, -1});
    for (int64_t l = 1; l < degrees; ++l)
      parts.push_back(x.slice(1, l * l, (l + 1) * (l + 1)) * gates.slice(1, l - 1, l));
  }
  return at::cat(parts, 1);
}

Tensor gate_meta(const Tensor &x, const Tensor &weight, double scale)
{
  check(x, weight);
  return at::empty_symint(x.sym_sizes(), x.options());
}

std::tuple<Tensor, Tensor> gate_adjoint_meta(const Tensor &g, const Tensor &x,
                                             const Tensor &weight, double scale, bool need_weight)
{
  check(x, weight);
  return {at::empty_symint(x.sym_sizes(), x.options()),
          need_weight ? at::empty_symint(weight.sym_sizes(), x.options())
                      : at::empty({0}, x.options())};
}

std::tuple<Tensor, Tensor, Tensor> gate_second_meta(const Tensor &v, const Tensor &g,
                                                    const Tensor &x, const Tensor &weight,
                                                    double scale, bool need_weight)
{
  return std::tuple_cat(std::make_tuple(at::empty_symint(x.sym_sizes(), x.options())),
                        gate_adjoint_meta(g, x, weight, scale, need_weight));
}

}    // namespace tdn
