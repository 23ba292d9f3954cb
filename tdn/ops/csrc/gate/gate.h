// The gate: silu on scalars, every higher degree scaled by a sigmoid of mixed scalars.
//
//   y[n, 0, c]      = scale silu(x[n, 0, c])
//   y[n, (l, m), c] = 2 sigmoid(z[n, l, c]) x[n, (l, m), c],   z = x[:, 0] weight
//
// x [N, L^2, C], weight [C, (L - 1) C]. Two derivatives with respect to x and weight.

#ifndef TDN_GATE_H
#define TDN_GATE_H

#include <ATen/core/Tensor.h>

#include <tuple>

namespace tdn {

using at::Tensor;

Tensor gate_cpu(const Tensor &x, const Tensor &weight, double scale);
// Gradients of <g, y>: (x, weight or empty [0] where not needed).
std::tuple<Tensor, Tensor> gate_adjoint_cpu(const Tensor &g, const Tensor &x, const Tensor &weight,
                                            double scale, bool need_weight);
// Gradients of <g, dy/dx v>: (g, x, weight or empty [0] where not needed).
std::tuple<Tensor, Tensor, Tensor> gate_second_cpu(const Tensor &v, const Tensor &g,
                                                   const Tensor &x, const Tensor &weight,
                                                   double scale, bool need_weight);
// Tensor operations, differentiable: what devices without a kernel of their own use.
Tensor gate_tensor(const Tensor &x, const Tensor &weight, double scale);
Tensor gate_meta(const Tensor &x, const Tensor &weight, double scale);
std::tuple<Tensor, Tensor> gate_adjoint_meta(const Tensor &g, const Tensor &x,
                                             const Tensor &weight, double scale, bool need_weight);
std::tuple<Tensor, Tensor, Tensor> gate_second_meta(const Tensor &v, const Tensor &g,
                                                    const Tensor &x, const Tensor &weight,
                                                    double scale, bool need_weight);
// The same with a copy of the scalars y[:, 0] [N, C] beside it: whoever needs them alone would send
// back a gradient that is zero elsewhere, and to fill and add that costs more than the gate.
std::tuple<Tensor, Tensor> gate_with_scalars(const Tensor &x, const Tensor &weight, double scale);
std::tuple<Tensor, Tensor> gate_with_scalars_meta(const Tensor &x, const Tensor &weight,
                                                  double scale);
std::tuple<Tensor, Tensor> gate_with_scalars_autograd(const Tensor &x, const Tensor &weight,
                                                      double scale);
Tensor gate_autograd(const Tensor &x, const Tensor &weight, double scale);
std::tuple<Tensor, Tensor> gate_adjoint_autograd(const Tensor &g, const Tensor &x,
                                                 const Tensor &weight, double scale,
                                                 bool need_weight);

// On a GPU, in libraries that are built with CUDA.
Tensor gate_cuda(const Tensor &x, const Tensor &weight, double scale);
std::tuple<Tensor, Tensor> gate_adjoint_cuda(const Tensor &g, const Tensor &x,
                                             const Tensor &weight, double scale, bool need_weight);
std::tuple<Tensor, Tensor, Tensor> gate_second_cuda(const Tensor &v, const Tensor &g,
                                                    const Tensor &x, const Tensor &weight,
                                                    double scale, bool need_weight);

}    // namespace tdn

#endif
