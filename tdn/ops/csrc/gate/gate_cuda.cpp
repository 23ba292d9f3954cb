#include "gate.h"

#include "common/current_queue.h"
#include "gate_cuda_kernels.h"

#include <ATen/Dispatch.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>

#include <tuple>

namespace tdn {
namespace {

using c10::cuda::CUDAGuard;
using cuda::GatePass;

void check_like(const char *name, const Tensor &g, const Tensor &x)
{
  TORCH_CHECK_VALUE(g.sizes() == x.sizes() && g.scalar_type() == x.scalar_type() &&
                        g.device() == x.device(),
                    "gate: ", name, " must be ", x.sizes(), " of ", x.scalar_type(), " on ",
                    x.device(), ", found ", g.sizes(), " of ", g.scalar_type(), " on ",
                    g.device());
}

// One launch: contiguous inputs, and what the kernel writes; undefined: not there.
struct Launch {
  Tensor x, z, g, v, h, out, grad_z, grad_g, grad_h;

  void run(double scale, GatePass pass) const
  {
    AT_DISPATCH_FLOATING_TYPES(x.scalar_type(), "gate", [&] {
      using T = scalar_t;
      const auto read = [](const Tensor &t) {
        return t.defined() ? t.const_data_ptr<T>() : nullptr;
      };
      const auto written = [](const Tensor &t) {
        return t.defined() ? t.mutable_data_ptr<T>() : nullptr;
      };
      cuda::GateArguments<T> a{};
      a.num_nodes = x.size(0);
      while (a.degrees * a.degrees < x.size(1)) ++a.degrees;
      a.channels = x.size(2);
      a.scale = scale;
      a.x = read(x);
      a.z = read(z);
      a.g = read(g);
      a.v = read(v);
      a.h = read(h);
      a.out = written(out);
      a.grad_z = written(grad_z);
      a.grad_g = written(grad_g);
      a.grad_h = written(grad_h);
      cuda::check_launch(cuda::launch_gate(a, pass, cuda::current_queue(x)));
    });
  }
};

// x[:, 0], not copied
Tensor scalars(const Tensor &x) { return x.select(1, 0); }

}    // namespace

Tensor gate_cuda(const Tensor &x, const Tensor &weight, double scale)
{
  Launch launch;
  launch.out = gate_meta(x, weight, scale);    // checks shapes
  const CUDAGuard guard(x.device());
  launch.x = x.contiguous();
  launch.z = at::mm(scalars(launch.x), weight);
  launch.run(scale, GatePass::forward);
  return launch.out;
}

std::tuple<Tensor, Tensor> gate_adjoint_cuda(const Tensor &g, const Tensor &x,
                                             const Tensor &weight, double scale, bool need_weight)
{
  Launch launch;
  launch.out = gate_meta(x, weight, scale);
  check_like("the gradient", g, x);
  const CUDAGuard guard(x.device());
  launch.x = x.contiguous();
  launch.z = at::mm(scalars(launch.x), weight);
  launch.g = g.contiguous();
  launch.grad_z = at::empty(launch.z.sizes(), x.options());
  launch.run(scale, GatePass::adjoint);
  scalars(launch.out).addmm_(launch.grad_z, weight.t());
  return {launch.out, need_weight ? at::mm(scalars(launch.x).t(), launch.grad_z)
                                  : at::empty({0}, x.options())};
}

std::tuple<Tensor, Tensor, Tensor> gate_second_cuda(const Tensor &v, const Tensor &g,
                                                    const Tensor &x, const Tensor &weight,
                                                    double scale, bool need_weight)
{
  Launch launch;
  launch.out = gate_meta(x, weight, scale);
  check_like("the direction", v, x);
  check_like("the gradient", g, x);
  const CUDAGuard guard(x.device());
  launch.x = x.contiguous();
  launch.z = at::mm(scalars(launch.x), weight);
  launch.g = g.contiguous();
  launch.v = v.contiguous();
  launch.h = at::mm(scalars(launch.v), weight);
  launch.grad_g = at::empty(launch.x.sizes(), x.options());
  launch.grad_z = at::empty(launch.z.sizes(), x.options());
  launch.grad_h = at::empty(launch.z.sizes(), x.options());
  launch.run(scale, GatePass::second);
  scalars(launch.out).addmm_(launch.grad_z, weight.t());
  Tensor grad_weight = at::empty({0}, x.options());
  if (need_weight)
    grad_weight = at::mm(scalars(launch.x).t(), launch.grad_z)
                      .addmm_(scalars(launch.v).t(), launch.grad_h);
  return {launch.grad_g, launch.out, grad_weight};
}

}    // namespace tdn
