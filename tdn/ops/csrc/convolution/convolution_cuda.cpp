#include "convolution.h"

#include "convolution_cuda_kernels.h"
#include "common/current_queue.h"

#include <ATen/Dispatch.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/eye.h>
#include <ATen/ops/matmul.h>

#include <cmath>

// Shapes, types and devices are checked as on the CPU; values of indices by the kernels, since
// looking at them here would wait for the GPU.

namespace tdn {
namespace {

using c10::cuda::CUDAGuard;

// One launch: contiguous inputs, and what the kernel writes.
struct Launch {
  Tensor vec, species, table, center, neighbor, center_ptr, by_neighbor, neighbor_ptr;
  Tensor harmonics, u, g, out, grad_vec;    // undefined: not there
  double r_max, stretch;

  Launch(const Tensor &edge_vec, const Tensor &species_, const Tensor &table_, double r_max_,
         double stretch_, TDN_EDGE_PARAMETERS) :
      vec(edge_vec.contiguous()),
      species(species_.contiguous()), table(table_.contiguous()), center(center.contiguous()),
      neighbor(neighbor.contiguous()), center_ptr(center_ptr.contiguous()),
      by_neighbor(by_neighbor.contiguous()), neighbor_ptr(neighbor_ptr.contiguous()), r_max(r_max_),
      stretch(stretch_)
  {
  }

  // Rank and channels are those of `features`, a tensor [nodes, rank, channels].
  void run(const Tensor &features, bool adjoint) const
  {
    AT_DISPATCH_FLOATING_TYPES(table.scalar_type(), "convolution", [&] {
      const auto read = [](const Tensor &x) {
        return x.defined() ? x.const_data_ptr<scalar_t>() : nullptr;
      };
      cuda::EdgeConvolution<scalar_t> a{};
      a.l_max = std::lround(std::sqrt(harmonics.size(0))) - 1;
      a.rank = features.size(1);
      a.channels = features.size(2);
      a.num_centers = center_ptr.numel() - 1;
      a.num_nodes = neighbor_ptr.numel() - 1;
      a.num_edges = center.numel();
      a.edges = {vec.const_data_ptr<double>(),
                 species.const_data_ptr<int64_t>(),
                 center.const_data_ptr<int64_t>(),
                 neighbor.const_data_ptr<int64_t>(),
                 (adjoint ? neighbor_ptr : center_ptr).const_data_ptr<int64_t>(),
                 adjoint ? by_neighbor.const_data_ptr<int64_t>() : nullptr,
                 {table.const_data_ptr<scalar_t>(), table.size(0), table.size(2), table.size(4),
                  table.size(5) - 1, r_max, stretch}};
      a.harmonics = read(harmonics);
      a.u = read(u);
      a.g = read(g);
      if (out.defined()) a.out = out.mutable_data_ptr<scalar_t>();
      if (adjoint) a.grad_vec = grad_vec.mutable_data_ptr<double>();
      if (adjoint && features.numel() == 0) grad_vec.zero_();    // no kernel runs
      const cuda::Queue queue = cuda::current_queue(table);
      cuda::check_launch(adjoint ? cuda::launch_convolution_adjoint(a, queue)
                                 : cuda::launch_convolution(a, queue));
    });
  }
};

// matrix [k, r], x [n, k, channels] -> [n, r, channels]
Tensor project(const Tensor &matrix, const Tensor &x)
{
  return at::matmul(matrix.t(), x).contiguous();
}

void check_gradient(const char *name, const Tensor &g, int64_t rows, int64_t channels,
                    const Tensor &table, const Tensor &center_ptr)
{
  TORCH_CHECK_VALUE(g.dim() == 3 && g.size(0) == center_ptr.numel() - 1 && g.size(1) == rows &&
                        g.size(2) == channels && g.scalar_type() == table.scalar_type() &&
                        g.device() == table.device(),
                    name, ": the gradient must be [", center_ptr.numel() - 1, ", ", rows, ", ",
                    channels, "] of ", table.scalar_type(), " on ", table.device(), ", found ",
                    g.sizes(), " of ", g.scalar_type(), " on ", g.device());
}

}    // namespace

Tensor convolution_cuda(TDN_CONVOLUTION_PARAMETERS)
{
  check_convolution(TDN_CONVOLUTION_ARGUMENTS);
  const CUDAGuard guard(x.device());
  Launch launch(edge_vec, species, table, r_max, stretch, TDN_EDGE_ARGUMENTS);
  launch.harmonics = input2.contiguous();
  launch.u = project(input1, x);
  launch.out = at::empty({center_ptr.numel() - 1, input1.size(1), x.size(2)}, x.options());
  launch.run(launch.out, false);
  return project(output.t(), launch.out);
}

std::tuple<Tensor, Tensor> convolution_adjoint_cuda(const Tensor &g, TDN_CONVOLUTION_PARAMETERS,
                                                    bool need_x)
{
  check_convolution(TDN_CONVOLUTION_ARGUMENTS);
  check_gradient("convolution_adjoint", g, output.size(0), x.size(2), table, center_ptr);
  const CUDAGuard guard(x.device());
  Launch launch(edge_vec, species, table, r_max, stretch, TDN_EDGE_ARGUMENTS);
  launch.harmonics = input2.contiguous();
  launch.u = project(input1, x);
  launch.g = project(output, g);
  if (need_x) launch.out = at::empty(launch.u.sizes(), x.options());
  launch.grad_vec = at::empty(edge_vec.sizes(), edge_vec.options());
  launch.run(launch.u, true);
  return {need_x ? project(input1.t(), launch.out) : at::empty({0}, x.options()),
          launch.grad_vec};
}

Tensor density_cuda(TDN_DENSITY_PARAMETERS)
{
  check_density(TDN_DENSITY_ARGUMENTS);
  const CUDAGuard guard(table.device());
  const int64_t components = table.size(4) * table.size(4);
  Launch launch(edge_vec, species, table, r_max, stretch, TDN_EDGE_ARGUMENTS);
  launch.harmonics = at::eye(components, table.options());
  launch.out = at::empty({center_ptr.numel() - 1, components, num_channels}, table.options());
  launch.run(launch.out, false);
  return launch.out;
}

Tensor density_adjoint_cuda(const Tensor &g, TDN_DENSITY_PARAMETERS)
{
  check_density(TDN_DENSITY_ARGUMENTS);
  const int64_t components = table.size(4) * table.size(4);
  check_gradient("density_adjoint", g, components, num_channels, table, center_ptr);
  const CUDAGuard guard(table.device());
  Launch launch(edge_vec, species, table, r_max, stretch, TDN_EDGE_ARGUMENTS);
  launch.harmonics = at::eye(components, table.options());
  launch.g = g.contiguous();
  launch.grad_vec = at::empty(edge_vec.sizes(), edge_vec.options());
  launch.run(launch.g, true);
  return launch.grad_vec;
}

}    // namespace tdn
