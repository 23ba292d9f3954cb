#include "degree_linear.h"

#include "common/autograd.h"

namespace tdn {
namespace {

Tensor call_linear(const Tensor &x, const Tensor &weight)
{
  static const auto op = find_operator<decltype(degree_linear_cpu)>("tdn::degree_linear");
  return op.call(x, weight);
}

Tensor call_linear_weight(const Tensor &x, const Tensor &g)
{
  static const auto op =
      find_operator<decltype(degree_linear_weight_cpu)>("tdn::degree_linear_weight");
  return op.call(x, g);
}

struct DegreeLinear : Function<DegreeLinear> {
  static Tensor forward(AutogradContext *ctx, const Tensor &x, const Tensor &weight)
  {
    at::AutoDispatchBelowADInplaceOrView guard;
    // features are large: constant weights need none
    ctx->save_for_backward({weight.requires_grad() ? x : Tensor(), weight});
    ctx->set_materialize_grads(false);
    return call_linear(x, weight);
  }

  static variable_list backward(AutogradContext *ctx, const variable_list &gradients)
  {
    const Tensor &g = gradients[0];
    variable_list result(2);
    if (!g.defined()) return result;
    const variable_list s = ctx->get_saved_variables();
    if (ctx->needs_input_grad(0)) result[0] = call_linear(g, s[1].transpose(1, 2));
    if (ctx->needs_input_grad(1)) result[1] = call_linear_weight(s[0], g);
    return result;
  }
};

struct DegreeLinearWeight : Function<DegreeLinearWeight> {
  static Tensor forward(AutogradContext *ctx, const Tensor &x, const Tensor &g)
  {
    at::AutoDispatchBelowADInplaceOrView guard;
    ctx->save_for_backward({x, g});
    ctx->set_materialize_grads(false);
    return call_linear_weight(x, g);
  }

  static variable_list backward(AutogradContext *ctx, const variable_list &gradients)
  {
    const Tensor &h = gradients[0];
    variable_list result(2);
    if (!h.defined()) return result;
    const variable_list s = ctx->get_saved_variables();
    if (ctx->needs_input_grad(0)) result[0] = call_linear(s[1], h.transpose(1, 2));
    if (ctx->needs_input_grad(1)) result[1] = call_linear(s[0], h);
    return result;
  }
};

}    // namespace

Tensor degree_linear_autograd(const Tensor &x, const Tensor &weight)
{
  return DegreeLinear::apply(x, weight);
}

Tensor degree_linear_weight_autograd(const Tensor &x, const Tensor &g)
{
  return DegreeLinearWeight::apply(x, g);
}

}    // namespace tdn
