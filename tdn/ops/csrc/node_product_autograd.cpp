#include "node_product.h"

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/csrc/autograd/custom_function.h>

namespace tdn {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

template <typename Signature> auto find_operator(const char *name)
{
  return c10::Dispatcher::singleton().findSchemaOrThrow(name, "").typed<Signature>();
}

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
    TORCH_CHECK(!at::GradMode::is_enabled(),
                "node_product has first derivatives only: it is for inference");
    const variable_list s = ctx->get_saved_variables();
    static const auto op =
        find_operator<decltype(node_product_adjoint_cpu)>("tdn::node_product_adjoint");
    result[0] = op.call(gradients[0], s[0], s[1], s[2], s[3], s[4], s[5], s[6], s[7], s[8]);
    return result;
  }
};

struct DegreeLinear : Function<DegreeLinear> {
  static Tensor forward(AutogradContext *ctx, const Tensor &x, const Tensor &weight)
  {
    at::AutoDispatchBelowADInplaceOrView guard;
    ctx->save_for_backward({weight});
    ctx->set_materialize_grads(false);
    static const auto op = find_operator<decltype(degree_linear)>("tdn::degree_linear");
    return op.call(x, weight);
  }

  static variable_list backward(AutogradContext *ctx, const variable_list &gradients)
  {
    if (!gradients[0].defined()) return {Tensor(), Tensor()};
    static const auto op = find_operator<decltype(degree_linear)>("tdn::degree_linear");
    return {op.call(gradients[0], ctx->get_saved_variables()[0].transpose(1, 2)), Tensor()};
  }
};

}    // namespace

Tensor node_product_autograd(TDN_NODE_PRODUCT_PARAMETERS)
{
  for (const Tensor &constant : {linear, left, right, weight, input1, input2, output})
    TORCH_CHECK(!constant.requires_grad(),
                "node_product has derivatives for m only: it is for inference");
  const bool has_kernels = m.is_cpu() || m.is_meta() ||
      c10::Dispatcher::singleton()
          .findSchemaOrThrow("tdn::node_product", "")
          .hasKernelForDispatchKey(c10::DispatchKey::CUDA);
  if (!has_kernels) return node_product_tensor(TDN_NODE_PRODUCT_ARGUMENTS);
  return NodeProduct::apply(TDN_NODE_PRODUCT_ARGUMENTS);
}

Tensor degree_linear_autograd(const Tensor &x, const Tensor &weight)
{
  TORCH_CHECK(!weight.requires_grad(),
              "degree_linear has derivatives for x only: it is for inference");
  return DegreeLinear::apply(x, weight);
}

}    // namespace tdn
