#include "gate.h"

#include "common/autograd.h"

#include <ATen/ATen.h>

namespace tdn {
namespace {

std::tuple<Tensor, Tensor> call_adjoint(const Tensor &g, const Tensor &x, const Tensor &weight,
                                        double scale, bool need_weight)
{
  static const auto op = find_operator<decltype(gate_adjoint_cpu)>("tdn::gate_adjoint");
  return op.call(g, x, weight, scale, need_weight);
}

void save(AutogradContext *ctx, const Tensor &x, const Tensor &weight, double scale)
{
  ctx->save_for_backward({x, weight});
  ctx->saved_data["scale"] = scale;
  ctx->set_materialize_grads(false);
}

// Gradients of x, weight and scale from that of y.
variable_list input_gradients(AutogradContext *ctx, const Tensor &g)
{
  const variable_list s = ctx->get_saved_variables();
  const bool need_weight = ctx->needs_input_grad(1);
  const auto [x, weight] =
      call_adjoint(g, s[0], s[1], ctx->saved_data["scale"].toDouble(), need_weight);
  return {x, need_weight ? weight : Tensor(), Tensor()};
}

struct Gate : Function<Gate> {
  static Tensor forward(AutogradContext *ctx, const Tensor &x, const Tensor &weight, double scale)
  {
    at::AutoDispatchBelowADInplaceOrView guard;
    save(ctx, x, weight, scale);
    static const auto op = find_operator<decltype(gate_cpu)>("tdn::gate");
    return op.call(x, weight, scale);
  }

  static variable_list backward(AutogradContext *ctx, const variable_list &gradients)
  {
    return gradients[0].defined() ? input_gradients(ctx, gradients[0]) : variable_list(3);
  }
};

struct GateAdjoint : Function<GateAdjoint> {
  static variable_list forward(AutogradContext *ctx, const Tensor &g, const Tensor &x,
                               const Tensor &weight, double scale, bool need_weight)
  {
    at::AutoDispatchBelowADInplaceOrView guard;
    ctx->save_for_backward({g, x, weight});
    ctx->saved_data["scale"] = scale;
    ctx->set_materialize_grads(false);
    const auto [grad_x, grad_weight] = call_adjoint(g, x, weight, scale, need_weight);
    if (!need_weight) ctx->mark_non_differentiable({grad_weight});
    return {grad_x, grad_weight};
  }

  static variable_list backward(AutogradContext *ctx, const variable_list &gradients)
  {
    variable_list result(5);
    TORCH_CHECK(!gradients[1].defined(),
                "gate: the gradient of its weight cannot be differentiated again");
    if (!gradients[0].defined()) return result;
    TORCH_CHECK(!at::GradMode::is_enabled(), "gate has two derivatives only");
    const variable_list s = ctx->get_saved_variables();
    static const auto op = find_operator<decltype(gate_second_cpu)>("tdn::gate_second");
    const bool need_weight = ctx->needs_input_grad(2);
    const auto [g, x, weight] = op.call(gradients[0], s[0], s[1], s[2],
                                        ctx->saved_data["scale"].toDouble(), need_weight);
    result[0] = g;
    result[1] = x;
    if (need_weight) result[2] = weight;
    return result;
  }
};

// Gradient of features and of a copy of their scalars to one gradient: g + [g_scalars, 0, ..].
struct Joined : Function<Joined> {
  static Tensor forward(AutogradContext *ctx, const Tensor &g, const Tensor &g_scalars)
  {
    at::AutoDispatchBelowADInplaceOrView guard;
    ctx->set_materialize_grads(false);
    Tensor sum = g.clone(at::MemoryFormat::Contiguous);
    sum.select(1, 0).add_(g_scalars);
    return sum;
  }

  static variable_list backward(AutogradContext *ctx, const variable_list &gradients)
  {
    const Tensor &v = gradients[0];
    if (!v.defined()) return variable_list(2);
    return {v, ctx->needs_input_grad(1) ? v.select(1, 0) : Tensor()};
  }
};

struct GateWithScalars : Function<GateWithScalars> {
  static variable_list forward(AutogradContext *ctx, const Tensor &x, const Tensor &weight,
                               double scale)
  {
    at::AutoDispatchBelowADInplaceOrView guard;
    save(ctx, x, weight, scale);
    static const auto op =
        find_operator<decltype(gate_with_scalars)>("tdn::gate_with_scalars");
    const auto [y, scalars] = op.call(x, weight, scale);
    return {y, scalars};
  }

  static variable_list backward(AutogradContext *ctx, const variable_list &gradients)
  {
    const Tensor &g = gradients[0], &g_scalars = gradients[1];
    if (!g_scalars.defined()) return g.defined() ? input_gradients(ctx, g) : variable_list(3);
    if (g.defined()) return input_gradients(ctx, Joined::apply(g, g_scalars));
    const Tensor x = ctx->get_saved_variables()[0];
    if (x.sym_size(1) == 1)    // of tracing, sizes are symbols
      return input_gradients(ctx, g_scalars.unsqueeze(1));
    return input_gradients(ctx, Joined::apply(at::zeros_like(x), g_scalars));
  }
};

}    // namespace

std::tuple<Tensor, Tensor> gate_with_scalars(const Tensor &x, const Tensor &weight, double scale)
{
  static const auto op = find_operator<decltype(gate_cpu)>("tdn::gate");
  const Tensor y = op.call(x, weight, scale);
  return {y, y.select(1, 0).clone(at::MemoryFormat::Contiguous)};
}

std::tuple<Tensor, Tensor> gate_with_scalars_meta(const Tensor &x, const Tensor &weight,
                                                  double scale)
{
  return {gate_meta(x, weight, scale),
          at::empty_symint({x.sym_size(0), x.sym_size(2)}, x.options())};
}

std::tuple<Tensor, Tensor> gate_with_scalars_autograd(const Tensor &x, const Tensor &weight,
                                                      double scale)
{
  if (!has_kernels("tdn::gate", x)) {
    const Tensor y = gate_tensor(x, weight, scale);
    return {y, y.select(1, 0)};
  }
  const variable_list result = GateWithScalars::apply(x, weight, scale);
  return {result[0], result[1]};
}

Tensor gate_autograd(const Tensor &x, const Tensor &weight, double scale)
{
  if (!has_kernels("tdn::gate", x)) return gate_tensor(x, weight, scale);
  return Gate::apply(x, weight, scale);
}

std::tuple<Tensor, Tensor> gate_adjoint_autograd(const Tensor &g, const Tensor &x,
                                                 const Tensor &weight, double scale,
                                                 bool need_weight)
{
  const variable_list result = GateAdjoint::apply(g, x, weight, scale, need_weight);
  return {result[0], result[1]};
}

}    // namespace tdn
