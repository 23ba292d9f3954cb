#include "node_product.h"

#include "node_product_kernels.h"
#include "common/parallel.h"

#include <ATen/ATen.h>
#include <ATen/Dispatch.h>

#include <algorithm>
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
          m.sym_size(1) == degrees * degrees && linear.size(1) <= degrees &&
          linear.sym_size(2) == m.sym_size(2) && left.sizes() == right.sizes() &&
          left.sym_size(1) == num_species && left.sym_size(3) == m.sym_size(2) &&
          weight.size(0) == left.size(0) && weight.sym_size(1) == num_species &&
          weight.size(2) == linear.size(1) && weight.sym_size(3) == m.sym_size(2) &&
          input1.size(0) == degrees * degrees && input2.sizes() == input1.sizes() &&
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

// Contiguous arguments, and the structure that points to them.
struct Problem {
  int64_t num_nodes, components, components_out, rank, orders, num_species, channels;
  Tensor species, values[8];

  explicit Problem(TDN_NODE_PRODUCT_PARAMETERS) :
      num_nodes(m.size(0)), components(m.size(1)), components_out(linear.size(1) * linear.size(1)),
      rank(input1.size(1)), orders(left.size(0)), num_species(linear.size(0)),
      channels(m.size(2)), species(species.contiguous()),
      values{m.contiguous(),          linear.contiguous(),    left.contiguous(),
             right.contiguous(),      weight.contiguous(),    input1.t().contiguous(),
             input2.t().contiguous(), output.t().contiguous()}
  {
    const int64_t *const kind = this->species.const_data_ptr<int64_t>();
    for (int64_t n = 0; n < num_nodes; ++n)
      TORCH_CHECK_VALUE(kind[n] >= 0 && kind[n] < num_species,
                        "node_product: species must lie in 0..", num_species - 1, ", found ",
                        kind[n]);
  }

  // A gradient of y or a direction of m.
  Tensor node_values(const char *name, const Tensor &x, int64_t rows) const
  {
    TORCH_CHECK_VALUE(x.dim() == 3 && x.size(0) == num_nodes && x.size(1) == rows &&
                          x.size(2) == channels && x.scalar_type() == values[0].scalar_type(),
                      "node_product: ", name, " must be [", num_nodes, ", ", rows, ", ", channels,
                      "] of ", values[0].scalar_type(), ", found ", x.sizes(), " of ",
                      x.scalar_type());
    return x.contiguous();
  }

  template <typename T> NodeProductArguments<T> arguments() const
  {
    NodeProductArguments<T> a{};
    a.components = components;
    a.components_out = components_out;
    a.rank = rank;
    a.orders = orders;
    a.num_species = num_species;
    a.channels = channels;
    a.species = species.const_data_ptr<int64_t>();
    const T **const pointers[] = {&a.m,      &a.linear, &a.left,   &a.right,
                                  &a.weight, &a.input1, &a.input2, &a.output};
    for (int k = 0; k < 8; ++k) *pointers[k] = values[k].const_data_ptr<T>();
    return a;
  }

  static constexpr int64_t max_chunks = 16;

  // Run a kernel on all nodes; each chunk of nodes has sums of gradients of its own.
  template <typename T, typename Kernel>
  void run(const Kernel &kernel, const NodeProductArguments<T> &arguments, bool need_weights,
           Tensor *grads) const
  {
    const int64_t work = 3 * std::max<int64_t>(orders, 1) * rank * components * channels;
    // as many for any number of threads, so that sums come out the same
    const int64_t chunks = std::clamp<int64_t>(num_nodes / grain(work), 1, max_chunks);
    const int64_t size = kernels<T>().scratch_size(components, rank, orders);
    Tensor sums[4];
    if (need_weights)
      for (int k = 0; k < 4; ++k) {
        std::vector<int64_t> shape = values[k + 1].sizes().vec();
        shape.insert(shape.begin(), chunks);
        sums[k] = at::zeros(shape, values[0].options());
      }
    at::parallel_for(0, chunks, 1, [&](int64_t first, int64_t last) {
      constexpr size_t alignment = 64;
      std::vector<T> scratch(size + alignment / sizeof(T));
      void *start = scratch.data();
      size_t space = scratch.size() * sizeof(T);
      T *const aligned = static_cast<T *>(std::align(alignment, 1, start, space));
      for (int64_t chunk = first; chunk < last; ++chunk) {
        NodeProductArguments<T> a = arguments;
        T **const pointers[] = {&a.grad_linear, &a.grad_left, &a.grad_right, &a.grad_weight};
        for (int k = 0; k < 4 && need_weights; ++k)
          *pointers[k] = sums[k].template mutable_data_ptr<T>() + chunk * values[k + 1].numel();
        kernel(a, aligned, num_nodes * chunk / chunks, num_nodes * (chunk + 1) / chunks);
      }
    });
    for (int k = 0; k < 4; ++k)
      grads[k] = need_weights ? (chunks == 1 ? sums[k].squeeze(0) : sums[k].sum(0))
                              : at::empty({0}, values[0].options());
  }
};

}    // namespace

Tensor node_product_cpu(TDN_NODE_PRODUCT_PARAMETERS)
{
  check(TDN_NODE_PRODUCT_ARGUMENTS);
  const Problem problem(TDN_NODE_PRODUCT_ARGUMENTS);
  Tensor out =
      at::empty({problem.num_nodes, problem.components_out, problem.channels}, m.options());
  AT_DISPATCH_FLOATING_TYPES(m.scalar_type(), "node_product", [&] {
    NodeProductArguments<scalar_t> a = problem.arguments<scalar_t>();
    a.out = out.mutable_data_ptr<scalar_t>();
    Tensor unused[4];
    problem.run(kernels<scalar_t>().forward, a, false, unused);
  });
  return out;
}

NodeGradients node_product_adjoint_cpu(const Tensor &g, TDN_NODE_PRODUCT_PARAMETERS,
                                       bool need_weights)
{
  check(TDN_NODE_PRODUCT_ARGUMENTS);
  const Problem problem(TDN_NODE_PRODUCT_ARGUMENTS);
  const Tensor gradient = problem.node_values("the gradient", g, problem.components_out);
  Tensor grad_m = at::empty(m.sizes(), m.options()), grads[4];
  AT_DISPATCH_FLOATING_TYPES(m.scalar_type(), "node_product_adjoint", [&] {
    NodeProductArguments<scalar_t> a = problem.arguments<scalar_t>();
    a.g = gradient.const_data_ptr<scalar_t>();
    a.out = grad_m.mutable_data_ptr<scalar_t>();
    problem.run(kernels<scalar_t>().adjoint, a, need_weights, grads);
  });
  return {grad_m, grads[0], grads[1], grads[2], grads[3]};
}

NodeSecond node_product_second_cpu(const Tensor &v, const Tensor &g, TDN_NODE_PRODUCT_PARAMETERS,
                                   bool need_weights)
{
  check(TDN_NODE_PRODUCT_ARGUMENTS);
  const Problem problem(TDN_NODE_PRODUCT_ARGUMENTS);
  const Tensor gradient = problem.node_values("the gradient", g, problem.components_out);
  const Tensor direction = problem.node_values("the direction", v, problem.components);
  Tensor along = at::empty(gradient.sizes(), m.options());
  Tensor grad_m = at::empty(m.sizes(), m.options()), grads[4];
  AT_DISPATCH_FLOATING_TYPES(m.scalar_type(), "node_product_second", [&] {
    NodeProductArguments<scalar_t> a = problem.arguments<scalar_t>();
    a.g = gradient.const_data_ptr<scalar_t>();
    a.v = direction.const_data_ptr<scalar_t>();
    a.along = along.mutable_data_ptr<scalar_t>();
    a.out = grad_m.mutable_data_ptr<scalar_t>();
    problem.run(kernels<scalar_t>().second, a, need_weights, grads);
  });
  return {along, grad_m, grads[0], grads[1], grads[2], grads[3]};
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

NodeGradients node_product_adjoint_meta(const Tensor &g, TDN_NODE_PRODUCT_PARAMETERS,
                                        bool need_weights)
{
  check(TDN_NODE_PRODUCT_ARGUMENTS);
  const auto like = [](const Tensor &x) { return at::empty_symint(x.sym_sizes(), x.options()); };
  const auto weight_like = [&](const Tensor &x) {
    return need_weights ? like(x) : at::empty({0}, x.options());
  };
  return {like(m), weight_like(linear), weight_like(left), weight_like(right),
          weight_like(weight)};
}

NodeSecond node_product_second_meta(const Tensor &v, const Tensor &g, TDN_NODE_PRODUCT_PARAMETERS,
                                    bool need_weights)
{
  return std::tuple_cat(
      std::make_tuple(at::empty_symint(g.sym_sizes(), g.options())),
      node_product_adjoint_meta(g, TDN_NODE_PRODUCT_ARGUMENTS, need_weights));
}

}    // namespace tdn
