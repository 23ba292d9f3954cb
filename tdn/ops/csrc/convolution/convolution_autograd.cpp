#include "convolution.h"

#include "common/autograd.h"

namespace tdn {
namespace {

void check_once(const char *name)
{
  TORCH_CHECK(!at::GradMode::is_enabled(), name,
              " has first derivatives only: it is for inference; train with the radial network");
}

struct Convolution : Function<Convolution> {
  static Tensor forward(AutogradContext *ctx, TDN_CONVOLUTION_PARAMETERS)
  {
    at::AutoDispatchBelowADInplaceOrView guard;
    ctx->save_for_backward(
        {x, edge_vec, species, table, input1, input2, output, TDN_EDGE_ARGUMENTS});
    ctx->saved_data["r_max"] = r_max;
    ctx->saved_data["stretch"] = stretch;
    ctx->set_materialize_grads(false);
    static const auto op = find_operator<decltype(convolution_cpu)>("tdn::convolution");
    return op.call(TDN_CONVOLUTION_ARGUMENTS);
  }

  static variable_list backward(AutogradContext *ctx, const variable_list &gradients)
  {
    variable_list result(14);
    if (!gradients[0].defined()) return result;
    check_once("convolution");
    const variable_list s = ctx->get_saved_variables();
    static const auto op =
        find_operator<decltype(convolution_adjoint_cpu)>("tdn::convolution_adjoint");
    const bool need_x = ctx->needs_input_grad(0);
    const auto [grad_x, grad_vec] =
        op.call(gradients[0], s[0], s[1], s[2], s[3], ctx->saved_data["r_max"].toDouble(),
                ctx->saved_data["stretch"].toDouble(), s[4], s[5], s[6], s[7], s[8], s[9], s[10],
                s[11], need_x);
    if (need_x) result[0] = grad_x;
    result[1] = grad_vec;
    return result;
  }
};

struct Density : Function<Density> {
  static Tensor forward(AutogradContext *ctx, TDN_DENSITY_PARAMETERS)
  {
    at::AutoDispatchBelowADInplaceOrView guard;
    ctx->save_for_backward({edge_vec, species, table, TDN_EDGE_ARGUMENTS});
    ctx->saved_data["r_max"] = r_max;
    ctx->saved_data["stretch"] = stretch;
    ctx->saved_data["num_channels"] = num_channels;
    ctx->set_materialize_grads(false);
    static const auto op = find_operator<decltype(density_cpu)>("tdn::density");
    return op.call(TDN_DENSITY_ARGUMENTS);
  }

  static variable_list backward(AutogradContext *ctx, const variable_list &gradients)
  {
    variable_list result(11);
    if (!gradients[0].defined()) return result;
    check_once("density");
    const variable_list s = ctx->get_saved_variables();
    static const auto op = find_operator<decltype(density_adjoint_cpu)>("tdn::density_adjoint");
    result[0] = op.call(gradients[0], s[0], s[1], s[2], ctx->saved_data["r_max"].toDouble(),
                        ctx->saved_data["stretch"].toDouble(), ctx->saved_data["num_channels"].toInt(), s[3], s[4], s[5], s[6], s[7]);
    return result;
  }
};

}    // namespace

Tensor convolution_autograd(TDN_CONVOLUTION_PARAMETERS)
{
  if (!has_kernels("tdn::convolution", x)) return convolution_tensor(TDN_CONVOLUTION_ARGUMENTS);
  for (const Tensor &constant : {table, input1, input2, output})
    TORCH_CHECK(!constant.requires_grad(),
                "convolution has derivatives for x and edge_vec only: it is for inference");
  return Convolution::apply(TDN_CONVOLUTION_ARGUMENTS);
}

Tensor density_autograd(TDN_DENSITY_PARAMETERS)
{
  if (!has_kernels("tdn::density", table)) return density_tensor(TDN_DENSITY_ARGUMENTS);
  TORCH_CHECK(!table.requires_grad(),
              "density has derivatives for edge_vec only: it is for inference");
  return Density::apply(TDN_DENSITY_ARGUMENTS);
}

}    // namespace tdn
