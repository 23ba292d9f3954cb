#include "node_product.h"

#include "common/autograd.h"

namespace tdn {
namespace {

NodeGradients call_adjoint(const Tensor &g, TDN_NODE_PRODUCT_PARAMETERS, bool need_weights)
{
  static const auto op =
      find_operator<decltype(node_product_adjoint_cpu)>("tdn::node_product_adjoint");
  return op.call(g, TDN_NODE_PRODUCT_ARGUMENTS, need_weights);
}

// Positions of the weights among the arguments of node_product.
constexpr int first_weight = 2, num_weights = 4;

struct NodeProduct : Function<NodeProduct> {
  static Tensor forward(AutogradContext *ctx, TDN_NODE_PRODUCT_PARAMETERS)
  {
    at::AutoDispatchBelowADInplaceOrView guard;
    ctx->save_for_backward({TDN_NODE_PRODUCT_ARGUMENTS});
    ctx->set_materialize_grads(false);
    static const auto op = find_operator<decltype(node_product_cpu)>("tdn::node_product");
    return op.call(TDN_NODE_PRODUCT_ARGUMENTS);
  }

  static variable_list backward(AutogradContext *ctx, const variable_list &gradients)
  {
    variable_list result(9);
    if (!gradients[0].defined()) return result;
    const variable_list s = ctx->get_saved_variables();
    bool need_weights = false;
    for (int k = 0; k < num_weights; ++k) need_weights |= ctx->needs_input_grad(first_weight + k);
    const auto [m, linear, left, right, weight] = call_adjoint(
        gradients[0], s[0], s[1], s[2], s[3], s[4], s[5], s[6], s[7], s[8], need_weights);
    result[0] = m;
    if (need_weights) {
      result[first_weight] = linear;
      result[first_weight + 1] = left;
      result[first_weight + 2] = right;
      result[first_weight + 3] = weight;
    }
    return result;
  }
};

struct NodeProductAdjoint : Function<NodeProductAdjoint> {
  static variable_list forward(AutogradContext *ctx, const Tensor &g, TDN_NODE_PRODUCT_PARAMETERS,
                               bool need_weights)
  {
    at::AutoDispatchBelowADInplaceOrView guard;
    ctx->save_for_backward({g, TDN_NODE_PRODUCT_ARGUMENTS});
    ctx->set_materialize_grads(false);
    const auto [grad_m, linear_, left_, right_, weight_] =
        call_adjoint(g, TDN_NODE_PRODUCT_ARGUMENTS, need_weights);
    const variable_list gradients{linear_, left_, right_, weight_};
    if (!need_weights) ctx->mark_non_differentiable(gradients);
    return {grad_m, linear_, left_, right_, weight_};
  }

  static variable_list backward(AutogradContext *ctx, const variable_list &gradients)
  {
    variable_list result(11);
    for (size_t k = 1; k < gradients.size(); ++k)
      TORCH_CHECK(!gradients[k].defined(),
                  "node_product: gradients of its weights cannot be differentiated again");
    if (!gradients[0].defined()) return result;
    TORCH_CHECK(!at::GradMode::is_enabled(), "node_product has two derivatives only");
    const variable_list s = ctx->get_saved_variables();
    bool need_weights = false;
    for (int k = 0; k < num_weights; ++k)
      need_weights |= ctx->needs_input_grad(1 + first_weight + k);
    static const auto op =
        find_operator<decltype(node_product_second_cpu)>("tdn::node_product_second");
    const auto [along, m, linear, left, right, weight] =
        op.call(gradients[0], s[0], s[1], s[2], s[3], s[4], s[5], s[6], s[7], s[8], s[9],
                need_weights);
    result[0] = along;
    result[1] = m;
    if (need_weights) {
      result[1 + first_weight] = linear;
      result[2 + first_weight] = left;
      result[3 + first_weight] = right;
      result[4 + first_weight] = weight;
    }
    return result;
  }
};

}    // namespace

Tensor node_product_autograd(TDN_NODE_PRODUCT_PARAMETERS)
{
  for (const Tensor &constant : {input1, input2, output})
    TORCH_CHECK(!constant.requires_grad(), "node_product: factors have no derivatives");
  if (!has_kernels("tdn::node_product", m)) return node_product_tensor(TDN_NODE_PRODUCT_ARGUMENTS);
  return NodeProduct::apply(TDN_NODE_PRODUCT_ARGUMENTS);
}

NodeGradients node_product_adjoint_autograd(const Tensor &g, TDN_NODE_PRODUCT_PARAMETERS,
                                            bool need_weights)
{
  const variable_list result =
      NodeProductAdjoint::apply(g, TDN_NODE_PRODUCT_ARGUMENTS, need_weights);
  return {result[0], result[1], result[2], result[3], result[4]};
}

}    // namespace tdn
