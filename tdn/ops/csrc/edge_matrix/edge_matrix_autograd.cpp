#include "edge_matrix.h"

#include "common/autograd.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/add.h>
#include <ATen/ops/zeros_like.h>

#include <initializer_list>
#include <utility>

// The backward functions call the operators again, through the dispatcher, so that derivatives of
// derivatives are recorded as well.

namespace tdn {
namespace {

TwoTensors call_product(const Tensor &source, const Tensor &target, const Tensor &matrix,
                        const Tensor &w, TDN_EDGE_PARAMETERS)
{
  static const auto op = find_operator<decltype(edge_product_cpu)>("tdn::edge_product");
  return op.call(source, target, matrix, w, TDN_EDGE_ARGUMENTS);
}

FourTensors call_product_adjoint(const Tensor &g_scalars, const Tensor &g_rest,
                                 const Tensor &source, const Tensor &target, const Tensor &matrix,
                                 const Tensor &w, TDN_EDGE_PARAMETERS, bool need_nodes,
                                 bool need_matrix, bool need_w)
{
  static const auto op =
      find_operator<decltype(edge_product_adjoint_cpu)>("tdn::edge_product_adjoint");
  return op.call(g_scalars, g_rest, source, target, matrix, w, TDN_EDGE_ARGUMENTS, need_nodes,
                 need_matrix, need_w);
}

Tensor call_message(const Tensor &scalars, const Tensor &rest, const Tensor &matrix,
                    const Tensor &w, const Tensor &center, const Tensor &center_ptr)
{
  static const auto op = find_operator<decltype(edge_message_cpu)>("tdn::edge_message");
  return op.call(scalars, rest, matrix, w, center, center_ptr);
}

FourTensors call_message_adjoint(const Tensor &g, const Tensor &scalars, const Tensor &rest,
                                 const Tensor &matrix, const Tensor &w, const Tensor &center,
                                 const Tensor &center_ptr, bool need_features, bool need_matrix,
                                 bool need_w)
{
  static const auto op =
      find_operator<decltype(edge_message_adjoint_cpu)>("tdn::edge_message_adjoint");
  return op.call(g, scalars, rest, matrix, w, center, center_ptr, need_features, need_matrix,
                 need_w);
}

void add_to(Tensor &sum, const Tensor &term, bool needed)
{
  if (needed) sum = sum.defined() ? at::add(sum, term) : term;
}

// A missing gradient beside another that is there.
Tensor or_zeros(const Tensor &v, const Tensor &like)
{
  return v.defined() ? v : at::zeros_like(like);
}

// Gradients that nobody asked for are empty and have no derivatives.
void mark_unneeded(AutogradContext *ctx, std::initializer_list<std::pair<Tensor, bool>> gradients)
{
  variable_list unneeded;
  for (const auto &[gradient, needed] : gradients)
    if (!needed) unneeded.push_back(gradient);
  ctx->mark_non_differentiable(unneeded);
}

// Whether a gradient has a direction in which to differentiate.
bool given(const Tensor &v) { return v.defined() && v.dim() > 1; }

struct Product : Function<Product> {
  static variable_list forward(AutogradContext *ctx, const Tensor &source, const Tensor &target,
                               const Tensor &matrix, const Tensor &w, TDN_EDGE_PARAMETERS)
  {
    at::AutoDispatchBelowADInplaceOrView guard;
    ctx->save_for_backward({source, target, matrix, w, TDN_EDGE_ARGUMENTS});
    ctx->set_materialize_grads(false);
    const auto [scalars, rest] = call_product(source, target, matrix, w, TDN_EDGE_ARGUMENTS);
    return {scalars, rest};
  }

  static variable_list backward(AutogradContext *ctx, const variable_list &g)
  {
    variable_list result(9);
    if (!g[0].defined() && !g[1].defined()) return result;
    const variable_list s = ctx->get_saved_variables();
    const Tensor &w = s[3];
    const Tensor scalars = g[0].defined() ? g[0] : at::zeros_like(w);
    const Tensor rest = g[1].defined()
        ? g[1]
        : at::zeros_like(w).unsqueeze(1).expand_symint({-1, s[2].sym_size(1) - 1, -1});
    const bool need_nodes = ctx->needs_input_grad(0) || ctx->needs_input_grad(1);
    const auto [for_source, for_target, for_matrix, for_w] = call_product_adjoint(
        scalars, rest, s[0], s[1], s[2], w, s[4], s[5], s[6], s[7], s[8], need_nodes,
        ctx->needs_input_grad(2), ctx->needs_input_grad(3));
    const Tensor found[] = {for_source, for_target, for_matrix, for_w};
    for (int k = 0; k < 4; ++k)
      if (ctx->needs_input_grad(k)) result[k] = found[k];
    return result;
  }
};

// The derivative of the form along directions of its arguments but g is a sum of forms, with the
// nodes, the matrix or the weights replaced by their direction.
struct ProductAdjoint : Function<ProductAdjoint> {
  static variable_list forward(AutogradContext *ctx, const Tensor &g_scalars, const Tensor &g_rest,
                               const Tensor &source, const Tensor &target, const Tensor &matrix,
                               const Tensor &w, TDN_EDGE_PARAMETERS, bool need_nodes,
                               bool need_matrix, bool need_w)
  {
    at::AutoDispatchBelowADInplaceOrView guard;
    ctx->save_for_backward({g_scalars, g_rest, source, target, matrix, w, TDN_EDGE_ARGUMENTS});
    ctx->set_materialize_grads(false);
    const auto [a, b, c, d] =
        call_product_adjoint(g_scalars, g_rest, source, target, matrix, w, TDN_EDGE_ARGUMENTS,
                             need_nodes, need_matrix, need_w);
    mark_unneeded(ctx, {{a, need_nodes}, {b, need_nodes}, {c, need_matrix}, {d, need_w}});
    return {a, b, c, d};
  }

  static variable_list backward(AutogradContext *ctx, const variable_list &v)
  {
    variable_list result(14);
    const variable_list s = ctx->get_saved_variables();
    const Tensor &source = s[2], &target = s[3], &matrix = s[4], &w = s[5];
    const bool need_g = ctx->needs_input_grad(0) || ctx->needs_input_grad(1);
    const bool need_nodes = ctx->needs_input_grad(2) || ctx->needs_input_grad(3);
    const bool need_matrix = ctx->needs_input_grad(4), need_w = ctx->needs_input_grad(5);
    const auto term = [&](const Tensor &x, const Tensor &y, const Tensor &k, const Tensor &weight,
                          bool nodes, bool matrices, bool weights) {
      if (need_g) {
        const auto [scalars, rest] = call_product(x, y, k, weight, s[6], s[7], s[8], s[9], s[10]);
        add_to(result[0], scalars, ctx->needs_input_grad(0));
        add_to(result[1], rest, ctx->needs_input_grad(1));
      }
      if (!nodes && !matrices && !weights) return;
      const auto [for_source, for_target, for_matrix, for_w] = call_product_adjoint(
          s[0], s[1], x, y, k, weight, s[6], s[7], s[8], s[9], s[10], nodes, matrices, weights);
      add_to(result[2], for_source, nodes && ctx->needs_input_grad(2));
      add_to(result[3], for_target, nodes && ctx->needs_input_grad(3));
      add_to(result[4], for_matrix, matrices);
      add_to(result[5], for_w, weights);
    };
    if (given(v[0]) || given(v[1]))
      term(or_zeros(v[0], source), or_zeros(v[1], target), matrix, w, false, need_matrix, need_w);
    if (given(v[2])) term(source, target, v[2], w, need_nodes, false, need_w);
    if (given(v[3])) term(source, target, matrix, v[3], need_nodes, need_matrix, false);
    return result;
  }
};

struct Message : Function<Message> {
  static Tensor forward(AutogradContext *ctx, const Tensor &scalars, const Tensor &rest,
                        const Tensor &matrix, const Tensor &w, const Tensor &center,
                        const Tensor &center_ptr)
  {
    at::AutoDispatchBelowADInplaceOrView guard;
    ctx->save_for_backward({scalars, rest, matrix, w, center, center_ptr});
    ctx->set_materialize_grads(false);
    return call_message(scalars, rest, matrix, w, center, center_ptr);
  }

  static variable_list backward(AutogradContext *ctx, const variable_list &g)
  {
    variable_list result(6);
    if (!g[0].defined()) return result;
    const variable_list s = ctx->get_saved_variables();
    const bool need_features = ctx->needs_input_grad(0) || ctx->needs_input_grad(1);
    const auto [for_scalars, for_rest, for_matrix, for_w] =
        call_message_adjoint(g[0], s[0], s[1], s[2], s[3], s[4], s[5], need_features,
                             ctx->needs_input_grad(2), ctx->needs_input_grad(3));
    const Tensor found[] = {for_scalars, for_rest, for_matrix, for_w};
    for (int k = 0; k < 4; ++k)
      if (ctx->needs_input_grad(k)) result[k] = found[k];
    return result;
  }
};

struct MessageAdjoint : Function<MessageAdjoint> {
  static variable_list forward(AutogradContext *ctx, const Tensor &g, const Tensor &scalars,
                               const Tensor &rest, const Tensor &matrix, const Tensor &w,
                               const Tensor &center, const Tensor &center_ptr, bool need_features,
                               bool need_matrix, bool need_w)
  {
    at::AutoDispatchBelowADInplaceOrView guard;
    ctx->save_for_backward({g, scalars, rest, matrix, w, center, center_ptr});
    ctx->set_materialize_grads(false);
    const auto [a, b, c, d] = call_message_adjoint(g, scalars, rest, matrix, w, center, center_ptr,
                                                   need_features, need_matrix, need_w);
    mark_unneeded(ctx, {{a, need_features}, {b, need_features}, {c, need_matrix}, {d, need_w}});
    return {a, b, c, d};
  }

  static variable_list backward(AutogradContext *ctx, const variable_list &v)
  {
    variable_list result(10);
    const variable_list s = ctx->get_saved_variables();
    const Tensor &scalars = s[1], &rest = s[2], &matrix = s[3], &w = s[4];
    const bool need_g = ctx->needs_input_grad(0);
    const bool need_features = ctx->needs_input_grad(1) || ctx->needs_input_grad(2);
    const bool need_matrix = ctx->needs_input_grad(3), need_w = ctx->needs_input_grad(4);
    const auto term = [&](const Tensor &x, const Tensor &y, const Tensor &k, const Tensor &weight,
                          bool features, bool matrices, bool weights) {
      if (need_g) add_to(result[0], call_message(x, y, k, weight, s[5], s[6]), true);
      if (!features && !matrices && !weights) return;
      const auto [for_scalars, for_rest, for_matrix, for_w] = call_message_adjoint(
          s[0], x, y, k, weight, s[5], s[6], features, matrices, weights);
      add_to(result[1], for_scalars, features && ctx->needs_input_grad(1));
      add_to(result[2], for_rest, features && ctx->needs_input_grad(2));
      add_to(result[3], for_matrix, matrices);
      add_to(result[4], for_w, weights);
    };
    if (given(v[0]) || given(v[1]))
      term(or_zeros(v[0], scalars), or_zeros(v[1], rest), matrix, w, false, need_matrix, need_w);
    if (given(v[2])) term(scalars, rest, v[2], w, need_features, false, need_w);
    if (given(v[3])) term(scalars, rest, matrix, v[3], need_features, need_matrix, false);
    return result;
  }
};

}    // namespace

TwoTensors edge_product_autograd(const Tensor &source, const Tensor &target, const Tensor &matrix,
                                 const Tensor &w, TDN_EDGE_PARAMETERS)
{
  if (!has_kernels("tdn::edge_product", matrix))
    return edge_product_tensor(source, target, matrix, w, TDN_EDGE_ARGUMENTS);
  const variable_list found = Product::apply(source, target, matrix, w, TDN_EDGE_ARGUMENTS);
  return {found[0], found[1]};
}

FourTensors edge_product_adjoint_autograd(const Tensor &g_scalars, const Tensor &g_rest,
                                          const Tensor &source, const Tensor &target,
                                          const Tensor &matrix, const Tensor &w,
                                          TDN_EDGE_PARAMETERS, bool need_nodes, bool need_matrix,
                                          bool need_w)
{
  const variable_list found =
      ProductAdjoint::apply(g_scalars, g_rest, source, target, matrix, w, TDN_EDGE_ARGUMENTS,
                            need_nodes, need_matrix, need_w);
  return {found[0], found[1], found[2], found[3]};
}

Tensor edge_message_autograd(const Tensor &scalars, const Tensor &rest, const Tensor &matrix,
                             const Tensor &w, const Tensor &center, const Tensor &center_ptr)
{
  if (!has_kernels("tdn::edge_message", matrix))
    return edge_message_tensor(scalars, rest, matrix, w, center, center_ptr);
  return Message::apply(scalars, rest, matrix, w, center, center_ptr);
}

FourTensors edge_message_adjoint_autograd(const Tensor &g, const Tensor &scalars,
                                          const Tensor &rest, const Tensor &matrix,
                                          const Tensor &w, const Tensor &center,
                                          const Tensor &center_ptr, bool need_features,
                                          bool need_matrix, bool need_w)
{
  const variable_list found =
      MessageAdjoint::apply(g, scalars, rest, matrix, w, center, center_ptr, need_features,
                            need_matrix, need_w);
  return {found[0], found[1], found[2], found[3]};
}

}    // namespace tdn
