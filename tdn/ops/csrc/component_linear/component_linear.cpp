#include "component_linear.h"

#include "component_linear_kernels.h"
#include "common/autograd.h"
#include "common/parallel.h"

#include <ATen/ATen.h>
#include <ATen/Dispatch.h>

namespace tdn {
namespace {

void check(const Tensor &x, const Tensor &matrix)
{
  TORCH_CHECK_VALUE(x.dim() == 3 && matrix.dim() == 2 && x.sym_size(1) == matrix.sym_size(1) &&
                        x.scalar_type() == matrix.scalar_type() && x.device() == matrix.device(),
                    "component_linear: expected x [N, D, C] and matrix [R, D] of one type, found ",
                    x.sym_sizes(), " of ", x.scalar_type(), " and ", matrix.sym_sizes(), " of ",
                    matrix.scalar_type());
}

Tensor call(const Tensor &x, const Tensor &matrix)
{
  static const auto op = find_operator<decltype(component_linear_cpu)>("tdn::component_linear");
  return op.call(x, matrix);
}

struct ComponentLinear : Function<ComponentLinear> {
  static Tensor forward(AutogradContext *ctx, const Tensor &x, const Tensor &matrix)
  {
    at::AutoDispatchBelowADInplaceOrView guard;
    ctx->save_for_backward({matrix});
    ctx->set_materialize_grads(false);
    return call(x, matrix);
  }

  static variable_list backward(AutogradContext *ctx, const variable_list &gradients)
  {
    variable_list result(2);
    if (gradients[0].defined())
      result[0] = call(gradients[0], ctx->get_saved_variables()[0].t());
    return result;
  }
};

template <typename T, typename Kernel>
void run(const Kernel &kernel, const Tensor &x, const Tensor &matrix, Tensor &out)
{
  const ComponentLinearArguments<T> a{out.size(1),
                                      x.size(1),
                                      x.size(2),
                                      matrix.const_data_ptr<T>(),
                                      x.const_data_ptr<T>(),
                                      out.mutable_data_ptr<T>()};
  at::parallel_for(0, x.size(0), grain(a.rows * a.components * a.channels),
                   [&](int64_t begin, int64_t end) { kernel(a, begin, end); });
}

}    // namespace

Tensor component_linear_cpu(const Tensor &x, const Tensor &matrix)
{
  check(x, matrix);
  const Tensor features = x.contiguous(), factors = matrix.contiguous();
  Tensor out = at::empty({x.size(0), matrix.size(0), x.size(2)}, x.options());
  if (x.scalar_type() == at::kFloat)
    run<float>(component_linear_table().float32, features, factors, out);
  else if (x.scalar_type() == at::kDouble)
    run<double>(component_linear_table().float64, features, factors, out);
  else
    return component_linear_tensor(x, matrix);
  return out;
}

Tensor component_linear_tensor(const Tensor &x, const Tensor &matrix)
{
  check(x, matrix);
  return at::matmul(matrix, x);
}

Tensor component_linear_meta(const Tensor &x, const Tensor &matrix)
{
  check(x, matrix);
  return at::empty_symint({x.sym_size(0), matrix.sym_size(0), x.sym_size(2)}, x.options());
}

Tensor component_linear_autograd(const Tensor &x, const Tensor &matrix)
{
  if (matrix.requires_grad() || !has_kernels("tdn::component_linear", x))
    return component_linear_tensor(x, matrix);
  return ComponentLinear::apply(x, matrix);
}

}    // namespace tdn
