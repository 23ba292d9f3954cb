#include "cp_message.h"

#include "common/autograd.h"
#include "scalar_message/scalar_message_kernels.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/add.h>

// The backward functions call the operators again, through the dispatcher, so that derivatives of
// derivatives are recorded as well.

namespace tdn {
namespace {

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

std::tuple<Tensor, Tensor, Tensor> call_adjoint(const Tensor &g, const Tensor &u, const Tensor &b,
                                                const Tensor &w, TDN_EDGE_PARAMETERS, bool need_b,
                                                bool need_w)
{
  static const auto op =
      find_operator<decltype(cp_message_adjoint_cpu)>("tdn::cp_message_adjoint");
  return op.call(g, u, b, w, TDN_EDGE_ARGUMENTS, need_b, need_w);
}

Tensor plus(const Tensor &x, const Tensor &y)
{
  if (!x.defined() || !y.defined()) return x.defined() ? x : y;
  return at::add(x, y);
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
    const bool need_b = ctx->needs_input_grad(1), need_w = ctx->needs_input_grad(2);
    if (ctx->needs_input_grad(0) && (need_b || need_w)) {
      const auto [for_u, for_b, for_w] =
          call_adjoint(g, s[0], s[1], s[2], s[3], s[4], s[5], s[6], s[7], need_b, need_w);
      result[0] = for_u;
      if (need_b) result[1] = for_b;
      if (need_w) result[2] = for_w;
      return result;
    }
    if (ctx->needs_input_grad(0))
      result[0] = call_transposed(g, s[1], s[2], s[3], s[4], s[5], s[6], s[7]);
    edge_gradients(g, s[0], s[1], s[2], s[3], s[4], s[5], s[6], s[7], need_b, need_w, result[1],
                   result[2]);
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

// Gradients by g, u, b and w of the derivative along (v_u, v_b, v_w) in one pass, which cannot be
// differentiated again; `s` holds g, u, b, w and the edges.
void second_derivatives(AutogradContext *ctx, const Tensor &v_u, const Tensor &v_b,
                        const Tensor &v_w, const variable_list &s, variable_list &result)
{
  static const auto op = find_operator<decltype(cp_message_second_cpu)>("tdn::cp_message_second");
  const auto [for_g, for_u, for_b, for_w] =
      op.call(maybe(v_u), maybe(v_b), maybe(v_w), s[0], s[1], s[2], s[3], s[4], s[5], s[6], s[7],
              s[8], ctx->needs_input_grad(0), ctx->needs_input_grad(1), ctx->needs_input_grad(2),
              ctx->needs_input_grad(3));
  const Tensor found[] = {for_g, for_u, for_b, for_w};
  for (int k = 0; k < 4; ++k)
    if (ctx->needs_input_grad(k)) result[k] = found[k];
}

// The same, put together from operators that can be differentiated again: the derivative is the sum
// of F(g, v_u, b, w), F(g, u, v_b, w) and F(g, u, b, v_w).
void derivatives_apart(AutogradContext *ctx, const Tensor &v_u, const Tensor &v_b,
                       const Tensor &v_w, const variable_list &s, variable_list &result)
{
  const Tensor &g = s[0];
  const bool need_b = ctx->needs_input_grad(2), need_w = ctx->needs_input_grad(3);
  // one of these terms; what is a direction in it has no gradient
  const auto add = [&](const Tensor &u, const Tensor &b, const Tensor &w, bool by_u, bool by_b,
                       bool by_w) {
    if (ctx->needs_input_grad(0))
      result[0] = plus(result[0], call_message(u, b, w, s[4], s[5], s[6], s[7], s[8]));
    if (by_u && ctx->needs_input_grad(1))
      result[1] = plus(result[1], call_transposed(g, b, w, s[4], s[5], s[6], s[7], s[8]));
    Tensor for_b, for_w;
    edge_gradients(g, u, b, w, s[4], s[5], s[6], s[7], s[8], by_b && need_b, by_w && need_w,
                   for_b, for_w);
    result[2] = plus(result[2], for_b);
    result[3] = plus(result[3], for_w);
  };
  if (v_u.defined()) add(v_u, s[2], s[3], false, true, true);
  if (v_b.defined()) add(s[1], v_b, s[3], true, false, true);
  if (v_w.defined()) add(s[1], s[2], v_w, true, true, false);
}

// What both functions below have in common: they give gradients of F(g, u, b, w), those of b and w
// where they are needed, and so their derivatives are second derivatives of F.
struct Gradients {
  static void save(AutogradContext *ctx, const Tensor &g, const Tensor &u, const Tensor &b,
                   const Tensor &w, TDN_EDGE_PARAMETERS, bool need_b, bool need_w)
  {
    ctx->save_for_backward({g, u, b, w, TDN_EDGE_ARGUMENTS});
    ctx->saved_data["need_b"] = need_b;
    ctx->saved_data["need_w"] = need_w;
    ctx->set_materialize_grads(false);
  }

  static void mark_unneeded(AutogradContext *ctx, const Tensor &grad_b, const Tensor &grad_w)
  {
    variable_list unneeded;
    if (!ctx->saved_data["need_b"].toBool()) unneeded.push_back(grad_b);
    if (!ctx->saved_data["need_w"].toBool()) unneeded.push_back(grad_w);
    ctx->mark_non_differentiable(unneeded);
  }

  // Of those that nobody differentiates again, as in training, all take one pass.
  static variable_list derivatives(AutogradContext *ctx, const Tensor &v_u, const Tensor &for_b,
                                   const Tensor &for_w)
  {
    variable_list result(11);
    const Tensor v_b = ctx->saved_data["need_b"].toBool() ? for_b : Tensor();
    const Tensor v_w = ctx->saved_data["need_w"].toBool() ? for_w : Tensor();
    if (!v_u.defined() && !v_b.defined() && !v_w.defined()) return result;
    const variable_list s = ctx->get_saved_variables();
    if (at::GradMode::is_enabled() || !s[0].is_cpu())
      derivatives_apart(ctx, v_u, v_b, v_w, s, result);
    else
      second_derivatives(ctx, v_u, v_b, v_w, s, result);
    return result;
  }
};

// Gradients of b and w.
struct EdgeGradients : Function<EdgeGradients>, Gradients {
  static variable_list forward(AutogradContext *ctx, const Tensor &g, const Tensor &u,
                               const Tensor &b, const Tensor &w, TDN_EDGE_PARAMETERS, bool need_b,
                               bool need_w)
  {
    at::AutoDispatchBelowADInplaceOrView guard;
    save(ctx, g, u, b, w, TDN_EDGE_ARGUMENTS, need_b, need_w);
    const auto [grad_b, grad_w] = call_edges(g, u, b, w, TDN_EDGE_ARGUMENTS, need_b, need_w);
    mark_unneeded(ctx, grad_b, grad_w);
    return {grad_b, grad_w};
  }

  static variable_list backward(AutogradContext *ctx, const variable_list &gradients)
  {
    return derivatives(ctx, Tensor(), gradients[0], gradients[1]);
  }
};

// Gradients of u, b and w at once.
struct Adjoint : Function<Adjoint>, Gradients {
  static variable_list forward(AutogradContext *ctx, const Tensor &g, const Tensor &u,
                               const Tensor &b, const Tensor &w, TDN_EDGE_PARAMETERS, bool need_b,
                               bool need_w)
  {
    at::AutoDispatchBelowADInplaceOrView guard;
    save(ctx, g, u, b, w, TDN_EDGE_ARGUMENTS, need_b, need_w);
    const auto [grad_u, grad_b, grad_w] =
        call_adjoint(g, u, b, w, TDN_EDGE_ARGUMENTS, need_b, need_w);
    mark_unneeded(ctx, grad_b, grad_w);
    return {grad_u, grad_b, grad_w};
  }

  static variable_list backward(AutogradContext *ctx, const variable_list &gradients)
  {
    return derivatives(ctx, gradients[0], gradients[1], gradients[2]);
  }
};

}    // namespace

Tensor cp_message_autograd(const Tensor &u, const Tensor &b, const Tensor &w, TDN_EDGE_PARAMETERS)
{
  // harmonics have kernels on the CPU; elsewhere, and beyond their degrees, they are factors of
  // rank D like others (sym_size, since size would fix all sizes while a program is traced)
  if (b.dim() == 2 && w.dim() == 3 && u.dim() == 3 &&
      (!(b.is_cpu() || b.is_meta()) ||
       b.sym_size(1) > max_scalar_degrees * max_scalar_degrees)) {
    check_message(u, b, w, TDN_EDGE_ARGUMENTS);
    const int64_t degrees = w.sym_size(1).guard_int(__FILE__, __LINE__);
    return Message::apply(u.expand_symint({u.sym_size(0), b.sym_size(1), u.sym_size(2)}),
                          factors_of_harmonics(b, degrees), w, TDN_EDGE_ARGUMENTS);
  }
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

std::tuple<Tensor, Tensor, Tensor> cp_message_adjoint_autograd(const Tensor &g, const Tensor &u,
                                                               const Tensor &b, const Tensor &w,
                                                               TDN_EDGE_PARAMETERS, bool need_b,
                                                               bool need_w)
{
  const variable_list result = Adjoint::apply(g, u, b, w, TDN_EDGE_ARGUMENTS, need_b, need_w);
  return {result[0], result[1], result[2]};
}

}    // namespace tdn
