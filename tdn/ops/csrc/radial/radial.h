// The radial network (tdn.network.radial.RadialNetwork) from distances to weights, for training.

#ifndef TDN_RADIAL_H
#define TDN_RADIAL_H

#include <ATen/core/Tensor.h>

#include <optional>
#include <tuple>

// r [E] and int64 pair [E] of the edges; scale [P, H1] of the first hidden layer by pair; `weights`
// all matrices one after the other, with `widths` B, H1, .., K.
#define TDN_RADIAL_PARAMETERS                                                                    \
  const at::Tensor &r, const at::Tensor &pair, const at::Tensor &scale,                          \
      const at::Tensor &weights, at::IntArrayRef widths, double r_max, int64_t power,            \
      double silu_scale
#define TDN_RADIAL_ARGUMENTS r, pair, scale, weights, widths, r_max, power, silu_scale

namespace tdn {

using at::Tensor;

// Weights [E, K].
Tensor radial_autograd(TDN_RADIAL_PARAMETERS);
Tensor radial_tensor(TDN_RADIAL_PARAMETERS);

// Weights and their derivatives by r, both [E, K]. Training on forces differentiates both once more
// by scale and weights, and never the network itself twice.
std::tuple<Tensor, Tensor> radial_slope_cpu(TDN_RADIAL_PARAMETERS);
std::tuple<Tensor, Tensor> radial_slope_meta(TDN_RADIAL_PARAMETERS);

// Gradients by scale and weights of <g, values> + <g_slope, derivatives>.
std::tuple<Tensor, Tensor> radial_adjoint_cpu(const std::optional<Tensor> &g,
                                              const std::optional<Tensor> &g_slope,
                                              TDN_RADIAL_PARAMETERS);
std::tuple<Tensor, Tensor> radial_adjoint_meta(const std::optional<Tensor> &g,
                                               const std::optional<Tensor> &g_slope,
                                               TDN_RADIAL_PARAMETERS);

// sum_k x[e, k] y[e, k], [E], and from its gradient those of x and y, empty [0] where not needed.
Tensor row_dot_cpu(const Tensor &x, const Tensor &y);
Tensor row_dot_meta(const Tensor &x, const Tensor &y);
std::tuple<Tensor, Tensor> row_dot_adjoint_cpu(const Tensor &g, const Tensor &x, const Tensor &y,
                                               bool need_x, bool need_y);
std::tuple<Tensor, Tensor> row_dot_adjoint_meta(const Tensor &g, const Tensor &x, const Tensor &y,
                                                bool need_x, bool need_y);

}    // namespace tdn

#endif
