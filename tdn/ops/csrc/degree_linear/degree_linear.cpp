#include "degree_linear.h"

#include "degree_linear_kernels.h"
#include "common/parallel.h"

#include <ATen/ATen.h>
#include <ATen/Dispatch.h>

#include <vector>

namespace tdn {
namespace {

template <typename T> const DegreeLinearKernels<T> &kernels();
template <> const DegreeLinearKernels<float> &kernels<float>()
{
  return degree_linear_table().float32;
}
template <> const DegreeLinearKernels<double> &kernels<double>()
{
  return degree_linear_table().float64;
}

void check(const Tensor &x, const Tensor &weight)
{
  TORCH_CHECK_VALUE(x.dim() == 3 && weight.dim() == 3 &&
                        x.sym_size(1) == weight.size(0) * weight.size(0) &&
                        x.sym_size(2) == weight.sym_size(1) &&
                        x.scalar_type() == weight.scalar_type(),
                    "degree_linear: expected x [N, L^2, C] and weight [L, C, C'] of one type, ",
                    "found ", x.sym_sizes(), " and ", weight.sym_sizes());
}

// Number of degrees L.
int64_t check_weight(const Tensor &x, const Tensor &g)
{
  int64_t degrees = 0;
  while (x.dim() == 3 && x.sym_size(1) > degrees * degrees) ++degrees;
  TORCH_CHECK_VALUE(x.dim() == 3 && g.dim() == 3 && x.sym_size(1) == degrees * degrees &&
                        g.sym_size(1) == x.sym_size(1) && g.sym_size(0) == x.sym_size(0) &&
                        g.scalar_type() == x.scalar_type(),
                    "degree_linear_weight: expected [N, L^2, C] and [N, L^2, C'] of one type, ",
                    "found ", x.sym_sizes(), " and ", g.sym_sizes());
  return degrees;
}

// The components of degree l as a batch of matrices [2 l + 1, N, C]; strides, no copy.
Tensor of_degree(const Tensor &x, int64_t l)
{
  return x.slice(1, l * l, (l + 1) * (l + 1)).transpose(0, 1);
}

}    // namespace

Tensor degree_linear_cpu(const Tensor &x, const Tensor &weight)
{
  check(x, weight);
  Tensor out = at::empty({x.size(0), x.size(1), weight.size(2)}, x.options());
  const Tensor input = x.contiguous();
  AT_DISPATCH_FLOATING_TYPES(x.scalar_type(), "degree_linear", [&] {
    const auto &kernel = kernels<scalar_t>();
    const int64_t columns = weight.size(2);
    const int64_t stride = (columns + kernel.width - 1) / kernel.width * kernel.width;
    const Tensor padded = stride == columns
        ? weight.contiguous()
        : at::constant_pad_nd(weight, {0, stride - columns}).contiguous();
    DegreeLinearArguments<scalar_t> a{};
    a.degrees = weight.size(0);
    a.channels_in = x.size(2);
    a.channels_out = columns;
    a.num_nodes = x.size(0);
    a.stride = stride;
    a.x = input.const_data_ptr<scalar_t>();
    a.w = padded.const_data_ptr<scalar_t>();
    a.out = out.mutable_data_ptr<scalar_t>();
    at::parallel_for(0, a.num_nodes, grain(x.size(1) * x.size(2) * columns),
                     [&](int64_t begin, int64_t end) { kernel.forward(a, begin, end); });
  });
  return out;
}

Tensor degree_linear_weight_cpu(const Tensor &x, const Tensor &g)
{
  const int64_t degrees = check_weight(x, g);
  Tensor out = at::empty({degrees, x.size(2), g.size(2)}, x.options());
  const Tensor input = x.contiguous(), gradient = g.contiguous();
  AT_DISPATCH_FLOATING_TYPES(x.scalar_type(), "degree_linear_weight", [&] {
    DegreeLinearArguments<scalar_t> a{};
    a.degrees = degrees;
    a.channels_in = x.size(2);
    a.channels_out = g.size(2);
    a.num_nodes = x.size(0);
    a.stride = g.size(2);
    a.x = input.const_data_ptr<scalar_t>();
    a.y = gradient.const_data_ptr<scalar_t>();
    a.out = out.mutable_data_ptr<scalar_t>();
    const auto &kernel = kernels<scalar_t>();
    at::parallel_for(0, degrees * a.channels_in, grain(a.num_nodes * degrees * a.channels_out),
                     [&](int64_t begin, int64_t end) { kernel.weight(a, begin, end); });
  });
  return out;
}

// One batched matrix product per degree, read and written in place.
Tensor degree_linear_tensor(const Tensor &x, const Tensor &weight)
{
  check(x, weight);
  const Tensor out = at::empty({x.size(0), x.size(1), weight.size(2)}, x.options());
  for (int64_t l = 0; l < weight.size(0); ++l) {
    Tensor part = of_degree(out, l);
    at::bmm_out(part, of_degree(x, l), weight.slice(0, l, l + 1).expand({2 * l + 1, -1, -1}));
  }
  return out;
}

// One batched matrix product for all components, whose results are then summed in each degree.
Tensor degree_linear_weight_tensor(const Tensor &x, const Tensor &g)
{
  const int64_t degrees = check_weight(x, g);
  const Tensor products = at::bmm(x.permute({1, 2, 0}), g.transpose(0, 1));    // [L^2, C, C']
  const Tensor out = at::empty({degrees, x.size(2), g.size(2)}, x.options());
  for (int64_t l = 0; l < degrees; ++l) {
    Tensor part = out.select(0, l);
    at::sum_out(part, products.slice(0, l * l, (l + 1) * (l + 1)), 0);
  }
  return out;
}

Tensor degree_linear_meta(const Tensor &x, const Tensor &weight)
{
  check(x, weight);
  return at::empty_symint({x.sym_size(0), x.sym_size(1), weight.sym_size(2)}, x.options());
}

Tensor degree_linear_weight_meta(const Tensor &x, const Tensor &g)
{
  const int64_t degrees = check_weight(x, g);
  return at::empty_symint({c10::SymInt(degrees), x.sym_size(2), g.sym_size(2)}, x.options());
}

}    // namespace tdn
