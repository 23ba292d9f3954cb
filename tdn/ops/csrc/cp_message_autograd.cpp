#include "cp_message.h"

#include "find_operator.h"

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/cat.h>
#include <torch/csrc/autograd/custom_function.h>

// The backward functions call the operators again, through the dispatcher, so that derivatives of
// derivatives are recorded as well.

namespace tdn {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

Tensor call_message(const Tensor &u, const Tensor &b, const Tensor &w, TDN_EDGE_PARAMETERS)
{
  static const auto op = find_operator<decltype(cp_message_cpu)>("tdn::cp_message");
  return op.call(u, b, w, TDN_EDGE_ARGUMENTS);
}

Tensor call_transposed(const Tensor &g, const Tensor &b, const Tensor &w, TDN_EDGE_PARAMETERS)
{
  static const auto op =
      find_operator<decltype(cp_message_transposed_cpu)>("tdn::cp_message_transposed");
  return op.call(g, b, w, TDN_EDGE_ARGUMENTS);
}

std::tuple<Tensor, Tensor> call_edges(const Tensor &g, const Tensor &u, const Tensor &b,
                                      const Tensor &w, TDN_EDGE_PARAMETERS, bool need_b,
                                      bool need_w)
{
  static const auto op = find_operator<decltype(cp_message_edges_cpu)>("tdn::cp_message_edges");
  return op.call(g, u, b, w, TDN_EDGE_ARGUMENTS, need_b, need_w);
}

// Gradients of b and w, undefined where nobody asks for them.
void edge_gradients(const Tensor &g, const Tensor &u, const Tensor &b, const Tensor &w,
                    TDN_EDGE_PARAMETERS, bool need_b, bool need_w, Tensor &grad_b, Tensor &grad_w)
{
  if (!need_b && !need_w) return;
  const auto [for_b, for_w] = call_edges(g, u, b, w, TDN_EDGE_ARGUMENTS, need_b, need_w);
  if (need_b) grad_b = for_b;
  if (need_w) grad_w = for_w;
}

struct Message : Function<Message> {
  static Tensor forward(AutogradContext *ctx, const Tensor &u, const Tensor &b, const Tensor &w,
                        TDN_EDGE_PARAMETERS)
  {
    at::AutoDispatchBelowADInplaceOrView guard;
    ctx->save_for_backward({u, b, w, TDN_EDGE_ARGUMENTS});
    ctx->set_materialize_grads(false);
    return call_message(u, b, w, TDN_EDGE_ARGUMENTS);
  }

  static variable_list backward(AutogradContext *ctx, const variable_list &gradients)
  {
    variable_list result(8);
    const Tensor &g = gradients[0];
    if (!g.defined()) return result;
    const variable_list s = ctx->get_saved_variables();
    if (ctx->needs_input_grad(0))
      result[0] = call_transposed(g, s[1], s[2], s[3], s[4], s[5], s[6], s[7]);
    edge_gradients(g, s[0], s[1], s[2], s[3], s[4], s[5], s[6], s[7], ctx->needs_input_grad(1),
                   ctx->needs_input_grad(2), result[1], result[2]);
    return result;
  }
};

struct Transposed : Function<Transposed> {
  static Tensor forward(AutogradContext *ctx, const Tensor &g, const Tensor &b, const Tensor &w,
                        TDN_EDGE_PARAMETERS)
  {
    at::AutoDispatchBelowADInplaceOrView guard;
    ctx->save_for_backward({g, b, w, TDN_EDGE_ARGUMENTS});
    ctx->set_materialize_grads(false);
    return call_transposed(g, b, w, TDN_EDGE_ARGUMENTS);
  }

  static variable_list backward(AutogradContext *ctx, const variable_list &gradients)
  {
    variable_list result(8);
    const Tensor &v = gradients[0];
    if (!v.defined()) return result;
    const variable_list s = ctx->get_saved_variables();
    if (ctx->needs_input_grad(0))
      result[0] = call_message(v, s[1], s[2], s[3], s[4], s[5], s[6], s[7]);
    edge_gradients(s[0], v, s[1], s[2], s[3], s[4], s[5], s[6], s[7], ctx->needs_input_grad(1),
                   ctx->needs_input_grad(2), result[1], result[2]);
    return result;
  }
};

// With cotangents h_b, h_w the scalar is F(g,u,h_b,w) + F(g,u,b,h_w): a form with twice the
// degrees, [h_b b] and [w h_w], for g and u; for b and w one sweep with (h_b, h_w) gives both.
struct EdgeGradients : Function<EdgeGradients> {
  static variable_list forward(AutogradContext *ctx, const Tensor &g, const Tensor &u,
                               const Tensor &b, const Tensor &w, TDN_EDGE_PARAMETERS, bool need_b,
                               bool need_w)
  {
    at::AutoDispatchBelowADInplaceOrView guard;
    ctx->save_for_backward({g, u, b, w, TDN_EDGE_ARGUMENTS});
    ctx->saved_data["need_b"] = need_b;
    ctx->saved_data["need_w"] = need_w;
    ctx->set_materialize_grads(false);
    const auto [grad_b, grad_w] = call_edges(g, u, b, w, TDN_EDGE_ARGUMENTS, need_b, need_w);
    variable_list unused;
    if (!need_b) unused.push_back(grad_b);
    if (!need_w) unused.push_back(grad_w);
    ctx->mark_non_differentiable(unused);
    return {grad_b, grad_w};
  }

  static variable_list backward(AutogradContext *ctx, const variable_list &gradients)
  {
    variable_list result(11);
    const Tensor h_b = ctx->saved_data["need_b"].toBool() ? gradients[0] : Tensor();
    const Tensor h_w = ctx->saved_data["need_w"].toBool() ? gradients[1] : Tensor();
    if (!h_b.defined() && !h_w.defined()) return result;
    const variable_list s = ctx->get_saved_variables();
    const Tensor &g = s[0], &u = s[1], &b = s[2], &w = s[3];
    if (ctx->needs_input_grad(0) || ctx->needs_input_grad(1)) {
      Tensor left = h_b, right = w;
      if (!h_b.defined()) {
        left = b;
        right = h_w;
      } else if (h_w.defined()) {
        left = at::cat({h_b, b}, 1);
        right = at::cat({w, h_w}, 1);
      }
      if (ctx->needs_input_grad(0))
        result[0] = call_message(u, left, right, s[4], s[5], s[6], s[7], s[8]);
      if (ctx->needs_input_grad(1))
        result[1] = call_transposed(g, left, right, s[4], s[5], s[6], s[7], s[8]);
    }
    edge_gradients(g, u, h_b.defined() ? h_b : b, h_w.defined() ? h_w : w, s[4], s[5], s[6], s[7],
                   s[8], h_w.defined() && ctx->needs_input_grad(2),
                   h_b.defined() && ctx->needs_input_grad(3), result[2], result[3]);
    return result;
  }
};

}    // namespace

Tensor cp_message_autograd(const Tensor &u, const Tensor &b, const Tensor &w, TDN_EDGE_PARAMETERS)
{
  return Message::apply(u, b, w, TDN_EDGE_ARGUMENTS);
}

Tensor cp_message_transposed_autograd(const Tensor &g, const Tensor &b, const Tensor &w,
                                      TDN_EDGE_PARAMETERS)
{
  return Transposed::apply(g, b, w, TDN_EDGE_ARGUMENTS);
}

std::tuple<Tensor, Tensor> cp_message_edges_autograd(const Tensor &g, const Tensor &u,
                                                     const Tensor &b, const Tensor &w,
                                                     TDN_EDGE_PARAMETERS, bool need_b, bool need_w)
{
  const variable_list result = EdgeGradients::apply(g, u, b, w, TDN_EDGE_ARGUMENTS, need_b, need_w);
  return {result[0], result[1]};
}

}    // namespace tdn
