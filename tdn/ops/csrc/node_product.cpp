#include "node_product.h"

#include "node_product_kernels.h"
#include "parallel.h"

#include <ATen/ATen.h>
#include <ATen/Dispatch.h>

#include <memory>
#include <vector>

namespace tdn {
namespace {

template <typename T> const NodeProductKernels<T> &kernels();
template <> const NodeProductKernels<float> &kernels<float>()
{
  return node_product_table().float32;
}
template <> const NodeProductKernels<double> &kernels<double>()
{
  return node_product_table().float64;
}

void check(TDN_NODE_PRODUCT_PARAMETERS)
{
  TORCH_CHECK_VALUE(m.dim() == 3 && linear.dim() == 3 && left.dim() == 4 && right.dim() == 4 &&
                        weight.dim() == 4 && species.dim() == 1 && input1.dim() == 2,
                    "node_product: expected m [N, D, C], species [N], linear [S, L_out, C], left ",
                    "and right [O, S, L, C], weight [O, S, L_out, C], factors [D, R]");
  const int64_t degrees = left.size(2);
  const auto num_species = linear.sym_size(0);
  TORCH_CHECK_VALUE(
      species.sym_size(0) == m.sym_size(0) && species.scalar_type() == at::kLong &&
          m.size(1) == degrees * degrees && linear.size(1) <= degrees &&
          linear.sym_size(2) == m.sym_size(2) && left.sizes() == right.sizes() &&
          left.sym_size(1) == num_species && left.sym_size(3) == m.sym_size(2) &&
          weight.size(0) == left.size(0) && weight.sym_size(1) == num_species &&
          weight.size(2) == linear.size(1) && weight.sym_size(3) == m.sym_size(2) &&
          input1.size(0) == m.size(1) && input2.sizes() == input1.sizes() &&
          output.sizes() == input1.sizes(),
      "node_product: shapes do not fit together: m ", m.sym_sizes(), ", species ",
      species.sym_sizes(), ", linear ", linear.sym_sizes(), ", left ", left.sym_sizes(),
      ", right ", right.sym_sizes(), ", weight ", weight.sym_sizes(), ", factors ",
      input1.sizes(), ", ", input2.sizes(), ", ", output.sizes());
  for (const Tensor &t : {linear, left, right, weight, input1, input2, output})
    TORCH_CHECK_VALUE(t.scalar_type() == m.scalar_type() && t.device() == m.device() &&
                          species.device() == m.device(),
                      "node_product: all tensors must have one type and one device, found ",
                      t.scalar_type(), " on ", t.device(), " and ", m.scalar_type(), " on ",
                      m.device());
}

// `g` is null in the forward direction.
Tensor run(const Tensor *g, TDN_NODE_PRODUCT_PARAMETERS)
{
  check(TDN_NODE_PRODUCT_ARGUMENTS);
  const int64_t num_nodes = m.size(0), components = m.size(1), channels = m.size(2);
  const int64_t components_out = linear.size(1) * linear.size(1), orders = left.size(0);
  const int64_t rank = input1.size(1), num_species = linear.size(0);
  const Tensor kinds = species.contiguous();
  const int64_t *const kind = kinds.const_data_ptr<int64_t>();
  for (int64_t n = 0; n < num_nodes; ++n)
    TORCH_CHECK_VALUE(kind[n] >= 0 && kind[n] < num_species,
                      "node_product: species must lie in 0..", num_species - 1, ", found ",
                      kind[n]);
  const Tensor out = at::empty({num_nodes, g ? components : components_out, channels}, m.options());
  const Tensor values[] = {m.contiguous(),          linear.contiguous(),    left.contiguous(),
                           right.contiguous(),      weight.contiguous(),    input1.t().contiguous(),
                           input2.t().contiguous(), output.t().contiguous()};
  const Tensor gradient = g ? g->contiguous() : Tensor();
  if (g)
    TORCH_CHECK_VALUE(gradient.dim() == 3 && gradient.size(0) == num_nodes &&
                          gradient.size(1) == components_out && gradient.size(2) == channels &&
                          gradient.scalar_type() == m.scalar_type(),
                      "node_product_adjoint: the gradient must be [", num_nodes, ", ",
                      components_out, ", ", channels, "], found ", gradient.sizes());
  AT_DISPATCH_FLOATING_TYPES(m.scalar_type(), "node_product", [&] {
    const auto pointer = [&](int k) { return values[k].const_data_ptr<scalar_t>(); };
    const NodeProductArguments<scalar_t> a{components,
                                           components_out,
                                           rank,
                                           orders,
                                           num_species,
                                           channels,
                                           pointer(0),
                                           kind,
                                           pointer(1),
                                           pointer(2),
                                           pointer(3),
                                           pointer(4),
                                           pointer(5),
                                           pointer(6),
                                           pointer(7),
                                           g ? gradient.const_data_ptr<scalar_t>() : nullptr,
                                           out.mutable_data_ptr<scalar_t>()};
    const auto &kernel = g ? kernels<scalar_t>().adjoint : kernels<scalar_t>().forward;
    const int64_t size = kernels<scalar_t>().scratch_size(components, rank, orders);
    at::parallel_for(0, num_nodes, grain(3 * orders * rank * components * channels),
                     [&](int64_t begin, int64_t end) {
                       constexpr size_t alignment = 64;
                       std::vector<scalar_t> scratch(size + alignment / sizeof(scalar_t));
                       void *start = scratch.data();
                       size_t space = scratch.size() * sizeof(scalar_t);
                       kernel(a, static_cast<scalar_t *>(std::align(alignment, 1, start, space)),
                              begin, end);
                     });
  });
  return out;
}

}    // namespace

Tensor node_product_cpu(TDN_NODE_PRODUCT_PARAMETERS)
{
  return run(nullptr, TDN_NODE_PRODUCT_ARGUMENTS);
}

Tensor node_product_adjoint_cpu(const Tensor &g, TDN_NODE_PRODUCT_PARAMETERS)
{
  return run(&g, TDN_NODE_PRODUCT_ARGUMENTS);
}

Tensor node_product_tensor(TDN_NODE_PRODUCT_PARAMETERS)
{
  check(TDN_NODE_PRODUCT_ARGUMENTS);
  const int64_t degrees = left.size(2), degrees_out = linear.size(1);
  std::vector<int64_t> degree;
  for (int64_t l = 0; l < degrees; ++l) degree.insert(degree.end(), 2 * l + 1, l);
  const Tensor of_component = at::tensor(degree, species.options());
  const Tensor of_output = of_component.slice(0, 0, degrees_out * degrees_out);
  const auto scale = [&](const Tensor &x, const Tensor &weights, const Tensor &components) {
    return x * weights.index_select(1, components).index_select(0, species);
  };
  Tensor y = scale(m.slice(1, 0, degrees_out * degrees_out), linear, of_output), power = m;
  for (int64_t o = 0; o < left.size(0); ++o) {
    const Tensor p = at::matmul(input1.t(), scale(power, left.select(0, o), of_component));
    const Tensor q = at::matmul(input2.t(), scale(m, right.select(0, o), of_component));
    power = at::matmul(output, p * q);
    y = y + scale(power.slice(1, 0, degrees_out * degrees_out), weight.select(0, o), of_output);
  }
  return y;
}

Tensor node_product_meta(TDN_NODE_PRODUCT_PARAMETERS)
{
  check(TDN_NODE_PRODUCT_ARGUMENTS);
  return at::empty_symint(
      {m.sym_size(0), c10::SymInt(linear.size(1) * linear.size(1)), m.sym_size(2)}, m.options());
}

Tensor node_product_adjoint_meta(const Tensor &g, TDN_NODE_PRODUCT_PARAMETERS)
{
  check(TDN_NODE_PRODUCT_ARGUMENTS);
  return at::empty_symint(m.sym_sizes(), m.options());
}

Tensor degree_linear(const Tensor &x, const Tensor &weight)
{
  TORCH_CHECK_VALUE(x.dim() == 3 && weight.dim() == 3 &&
                        x.size(1) == weight.size(0) * weight.size(0) &&
                        x.size(2) == weight.size(1) && x.scalar_type() == weight.scalar_type(),
                    "degree_linear: expected x [N, L^2, C] and weight [L, C, C'] of one type, ",
                    "found ", x.sizes(), " and ", weight.sizes());
  Tensor out = at::empty({x.size(0), x.size(1), weight.size(2)}, x.options());
  for (int64_t l = 0; l < weight.size(0); ++l)
    for (int64_t k = l * l; k < (l + 1) * (l + 1); ++k) {
      // rows of one component lie x.stride(0) apart, which matrix products take as they are
      Tensor part = out.select(1, k);
      at::mm_out(part, x.select(1, k), weight.select(0, l));
    }
  return out;
}

Tensor degree_linear_meta(const Tensor &x, const Tensor &weight)
{
  return at::empty_symint({x.sym_size(0), x.sym_size(1), weight.sym_size(2)}, x.options());
}

}    // namespace tdn
