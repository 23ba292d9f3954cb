#include "radial.h"

#include "common/autograd.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/autograd.h>

#include <cmath>
#include <vector>

namespace tdn {
namespace {

// Values and, if wanted, derivatives by r, as operations on tensors that PyTorch differentiates.
std::tuple<Tensor, Tensor> compose(TDN_RADIAL_PARAMETERS, bool need_slope)
{
  const double pi = 3.14159265358979323846, p = static_cast<double>(power);
  const double a = (p + 1) * (p + 2) / 2, b = p * (p + 2), c = p * (p + 1) / 2;
  const Tensor frequency =
      at::arange(1, widths[0] + 1, r.options()).mul(pi / r_max), length = r.unsqueeze(1);
  const Tensor x = length / r_max, inside = x < 1, before = x.pow(double(power - 1));
  const Tensor zero = at::zeros({}, r.options());
  const Tensor envelope = at::where(inside, 1 - before * x * (a - x * (b - x * c)), zero);
  const Tensor bessel = std::sqrt(2.0) * 0.5 * r_max * at::sin(length * frequency) / length;
  Tensor value = bessel * envelope, slope;
  if (need_slope) {
    const Tensor envelope_slope = at::where(
        inside, -before * (p * a - x * ((p + 1) * b - x * ((p + 2) * c))) / r_max, zero);
    const Tensor cosine = std::sqrt(2.0) * 0.5 * r_max * frequency * at::cos(length * frequency);
    slope = (cosine - bessel) / length * envelope + bessel * envelope_slope;
  }
  int64_t offset = 0;
  for (size_t i = 0; i + 1 < widths.size(); ++i) {
    const int64_t size = widths[i] * widths[i + 1];
    Tensor matrix = weights.slice(0, offset, offset + size).view({widths[i], widths[i + 1]});
    offset += size;
    if (i > 0) {
      if (i == 1) {
        const Tensor by = scale.index_select(0, pair);
        value = value * by;
        if (need_slope) slope = slope * by;
      }
      const Tensor y = at::sigmoid(value);
      if (need_slope) slope = slope * y * (1 + value * (1 - y));
      value = value * y;
      matrix = matrix * silu_scale;
    }
    value = at::matmul(value, matrix);
    if (need_slope) slope = at::matmul(slope, matrix);
  }
  return {value, slope};
}

// sum_k x[e, k] y[e, k]
struct RowDot : Function<RowDot> {
  static Tensor forward(AutogradContext *ctx, const Tensor &x, const Tensor &y)
  {
    at::AutoDispatchBelowADInplaceOrView guard;
    ctx->save_for_backward({x, y});
    static const auto op = find_operator<decltype(row_dot_cpu)>("tdn::row_dot");
    return op.call(x, y);
  }

  static variable_list backward(AutogradContext *ctx, const variable_list &gradients)
  {
    const variable_list s = ctx->get_saved_variables();
    const bool need_x = ctx->needs_input_grad(0), need_y = ctx->needs_input_grad(1);
    variable_list result(2);
    if (at::GradMode::is_enabled()) {
      const Tensor g = gradients[0].unsqueeze(1);
      if (need_x) result[0] = g * s[1];
      if (need_y) result[1] = g * s[0];
      return result;
    }
    static const auto op = find_operator<decltype(row_dot_adjoint_cpu)>("tdn::row_dot_adjoint");
    const auto [for_x, for_y] = op.call(gradients[0], s[0], s[1], need_x, need_y);
    if (need_x) result[0] = for_x;
    if (need_y) result[1] = for_y;
    return result;
  }
};

// The derivative by r is a second result, which the gradient by r uses: to differentiate that
// gradient is to differentiate this function once.
struct Radial : Function<Radial> {
  static variable_list forward(AutogradContext *ctx, const Tensor &r, const Tensor &pair,
                               const Tensor &scale, const Tensor &weights,
                               std::vector<int64_t> widths, double r_max, int64_t power,
                               double silu_scale)
  {
    at::AutoDispatchBelowADInplaceOrView guard;
    ctx->set_materialize_grads(false);
    ctx->saved_data["widths"] = widths;
    ctx->saved_data["r_max"] = r_max;
    ctx->saved_data["power"] = power;
    ctx->saved_data["silu_scale"] = silu_scale;
    static const auto op = find_operator<decltype(radial_slope_cpu)>("tdn::radial_slope");
    const auto [value, slope] = op.call(TDN_RADIAL_ARGUMENTS);
    ctx->save_for_backward({r, pair, scale, weights, slope});
    return {value, slope};
  }

  static variable_list backward(AutogradContext *ctx, const variable_list &gradients)
  {
    variable_list result(8);
    const Tensor &g = gradients[0], &g_slope = gradients[1];
    if (!g.defined() && !g_slope.defined()) return result;
    const variable_list s = ctx->get_saved_variables();
    const bool need_r = ctx->needs_input_grad(0);
    const bool need_weights = ctx->needs_input_grad(2) || ctx->needs_input_grad(3);
    if ((need_r && g_slope.defined()) || (need_weights && at::GradMode::is_enabled()))
      return composed(ctx, g, g_slope, s);
    if (need_r) result[0] = RowDot::apply(g, s[4]);
    if (need_weights) {
      static const auto op = find_operator<decltype(radial_adjoint_cpu)>("tdn::radial_adjoint");
      const std::vector<int64_t> widths = ctx->saved_data["widths"].toIntVector();
      const auto [scale, weights] =
          op.call(maybe(g), maybe(g_slope), s[0], s[1], s[2], s[3], widths,
                  ctx->saved_data["r_max"].toDouble(), ctx->saved_data["power"].toInt(),
                  ctx->saved_data["silu_scale"].toDouble());
      if (ctx->needs_input_grad(2)) result[2] = scale;
      if (ctx->needs_input_grad(3)) result[3] = weights;
    }
    return result;
  }

 private:
  // Derivatives that training does not need, such as second ones by positions.
  static variable_list composed(AutogradContext *ctx, const Tensor &g, const Tensor &g_slope,
                                const variable_list &s)
  {
    const bool again = at::GradMode::is_enabled();
    at::AutoGradMode enable(true);
    const std::vector<int64_t> widths = ctx->saved_data["widths"].toIntVector();
    const auto [value, slope] =
        compose(s[0], s[1], s[2], s[3], widths, ctx->saved_data["r_max"].toDouble(),
                ctx->saved_data["power"].toInt(), ctx->saved_data["silu_scale"].toDouble(),
                g_slope.defined());
    variable_list outputs, cotangents, inputs;
    if (g.defined()) {
      outputs.push_back(value);
      cotangents.push_back(g);
    }
    if (g_slope.defined()) {
      outputs.push_back(slope);
      cotangents.push_back(g_slope);
    }
    const int positions[] = {0, 2, 3};
    for (const int k : positions)
      if (ctx->needs_input_grad(k)) inputs.push_back(s[k]);
    const variable_list found =
        torch::autograd::grad(outputs, inputs, cotangents, true, again, true);
    variable_list result(8);
    size_t next = 0;
    for (const int k : positions)
      if (ctx->needs_input_grad(k)) result[k] = found[next++];
    return result;
  }
};

}    // namespace

Tensor radial_tensor(TDN_RADIAL_PARAMETERS)
{
  return std::get<0>(compose(TDN_RADIAL_ARGUMENTS, false));
}

Tensor radial_autograd(TDN_RADIAL_PARAMETERS)
{
  if (!has_kernels("tdn::radial_slope", r)) return radial_tensor(TDN_RADIAL_ARGUMENTS);
  return Radial::apply(r, pair, scale, weights, widths.vec(), r_max, power, silu_scale)[0];
}

}    // namespace tdn
