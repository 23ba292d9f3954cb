#include "node_product.h"

#include "common/current_queue.h"
#include "node_product_cuda_kernels.h"

#include <ATen/Dispatch.h>
#include <ATen/ops/empty.h>

#include <tuple>

// Species are checked by the kernels, since looking at them here would wait for the GPU. All else
// is checked by the implementation of shapes alone, which also allocates the results.

namespace tdn {
namespace {

using c10::cuda::CUDAGuard;
using cuda::NodePass;

void check_nodes(const char *name, const Tensor &x, const Tensor &m, int64_t rows)
{
  TORCH_CHECK_VALUE(x.dim() == 3 && x.size(0) == m.size(0) && x.size(1) == rows &&
                        x.size(2) == m.size(2) && x.scalar_type() == m.scalar_type() &&
                        x.device() == m.device(),
                    "node_product: ", name, " must be [", m.size(0), ", ", rows, ", ", m.size(2),
                    "] of ", m.scalar_type(), " on ", m.device(), ", found ", x.sizes(), " of ",
                    x.scalar_type(), " on ", x.device());
}

// One launch: contiguous inputs, and what the kernels write.
struct Launch {
  Tensor m, species, linear, left, right, weight, input1, input2, output;
  Tensor g, v, out, along;    // undefined: not there
  // linear, left, right, weight; undefined where not needed
  Tensor grad_linear, grad_left, grad_right, grad_weight;

  explicit Launch(TDN_NODE_PRODUCT_PARAMETERS) :
      m(m.contiguous()), species(species.contiguous()), linear(linear.contiguous()),
      left(left.contiguous()), right(right.contiguous()), weight(weight.contiguous()),
      input1(input1.contiguous()), input2(input2.contiguous()), output(output.contiguous())
  {
  }

  void run(NodePass pass) const
  {
    AT_DISPATCH_FLOATING_TYPES(m.scalar_type(), "node_product", [&] { run_as<scalar_t>(pass); });
  }

  template <typename T> void run_as(NodePass pass) const
  {
    const auto read = [](const Tensor &x) {
      return x.defined() ? x.const_data_ptr<T>() : nullptr;
    };
    const auto written = [](const Tensor &x) {
      return x.defined() ? x.mutable_data_ptr<T>() : nullptr;
    };
    cuda::NodeProduct<T> a{};
    a.num_nodes = m.size(0);
    a.degrees = left.size(2);
    a.degrees_out = linear.size(1);
    a.rank = input1.size(1);
    a.orders = left.size(0);
    a.num_species = linear.size(0);
    a.channels = m.size(2);
    a.num_weights = cuda::node_weights(a.degrees, a.degrees_out, a.orders);
    a.m = read(m);
    a.species = species.const_data_ptr<int64_t>();
    a.linear = read(linear);
    a.left = read(left);
    a.right = read(right);
    a.weight = read(weight);
    a.input1 = read(input1);
    a.input2 = read(input2);
    a.output = read(output);
    a.g = read(g);
    a.v = read(v);
    a.out = written(out);
    a.along = written(along);
    Tensor scratch, terms;
    if (const int64_t rows = cuda::node_product_scratch(a, pass); rows > 0)
      scratch = at::empty({a.num_nodes, rows, a.channels}, m.options());
    if (grad_linear.defined())
      terms = at::empty({a.num_nodes, a.num_weights, a.channels}, m.options());
    a.scratch = written(scratch);
    a.terms = written(terms);
    const cuda::Queue queue = cuda::current_queue(m);
    cuda::check_launch(cuda::launch_node_product(a, pass, queue));
    if (!terms.defined()) return;
    const Tensor partial =
        at::empty({cuda::node_chunks(a.num_nodes), a.num_species, a.num_weights, a.channels},
                  m.options());
    const cuda::NodeWeights<T> weights{a.num_nodes,
                                       a.degrees,
                                       a.degrees_out,
                                       a.orders,
                                       a.num_species,
                                       a.channels,
                                       a.num_weights,
                                       a.species,
                                       a.terms,
                                       written(partial),
                                       written(grad_linear),
                                       written(grad_left),
                                       written(grad_right),
                                       written(grad_weight)};
    cuda::check_launch(cuda::launch_node_weights(weights, queue));
  }
};

}    // namespace

Tensor node_product_cuda(TDN_NODE_PRODUCT_PARAMETERS)
{
  const Tensor out = node_product_meta(TDN_NODE_PRODUCT_ARGUMENTS);
  const CUDAGuard guard(out.device());
  Launch launch(TDN_NODE_PRODUCT_ARGUMENTS);
  launch.out = out;
  launch.run(NodePass::forward);
  return out;
}

NodeGradients node_product_adjoint_cuda(const Tensor &g, TDN_NODE_PRODUCT_PARAMETERS,
                                        bool need_weights)
{
  const NodeGradients result =
      node_product_adjoint_meta(g, TDN_NODE_PRODUCT_ARGUMENTS, need_weights);
  check_nodes("the gradient", g, m, linear.size(1) * linear.size(1));
  const CUDAGuard guard(m.device());
  Launch launch(TDN_NODE_PRODUCT_ARGUMENTS);
  launch.g = g.contiguous();
  launch.out = std::get<0>(result);
  if (need_weights)
    std::tie(std::ignore, launch.grad_linear, launch.grad_left, launch.grad_right,
             launch.grad_weight) = result;
  launch.run(NodePass::adjoint);
  return result;
}

NodeSecond node_product_second_cuda(const Tensor &v, const Tensor &g, TDN_NODE_PRODUCT_PARAMETERS,
                                    bool need_weights)
{
  check_nodes("the direction", v, m, m.size(1));
  check_nodes("the gradient", g, m, linear.size(1) * linear.size(1));
  const NodeSecond result =
      node_product_second_meta(v, g, TDN_NODE_PRODUCT_ARGUMENTS, need_weights);
  const CUDAGuard guard(m.device());
  Launch launch(TDN_NODE_PRODUCT_ARGUMENTS);
  launch.v = v.contiguous();
  launch.g = g.contiguous();
  launch.along = std::get<0>(result);
  launch.out = std::get<1>(result);
  if (need_weights)
    std::tie(std::ignore, std::ignore, launch.grad_linear, launch.grad_left, launch.grad_right,
             launch.grad_weight) = result;
  launch.run(NodePass::second);
  return result;
}

}    // namespace tdn
