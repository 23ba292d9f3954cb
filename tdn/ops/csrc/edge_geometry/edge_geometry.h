// Lengths and spherical harmonics of edge vectors, with first and second derivatives.

#ifndef TDN_EDGE_GEOMETRY_H
#define TDN_EDGE_GEOMETRY_H

#include <ATen/core/Tensor.h>

#include <optional>
#include <tuple>

namespace tdn {

using at::Tensor;

// edge_vec float64 [E, 3] -> r [E] and harmonics [E, (l_max + 1)^2] of `dtype`, in the order and the
// "component" normalization of e3nn. A vector of no length counts as one without direction.
std::tuple<Tensor, Tensor> edge_geometry_cpu(const Tensor &edge_vec, int64_t l_max,
                                             at::ScalarType dtype);
std::tuple<Tensor, Tensor> edge_geometry_meta(const Tensor &edge_vec, int64_t l_max,
                                              at::ScalarType dtype);
std::tuple<Tensor, Tensor> edge_geometry_autograd(const Tensor &edge_vec, int64_t l_max,
                                                  at::ScalarType dtype);
// Any device, as operations on tensors that PyTorch differentiates.
std::tuple<Tensor, Tensor> edge_geometry_tensor(const Tensor &edge_vec, int64_t l_max,
                                                at::ScalarType dtype);

// Gradient of <g_r, r> + <g_y, harmonics>: float64 [E, 3].
Tensor edge_geometry_adjoint_cpu(const std::optional<Tensor> &g_r, const std::optional<Tensor> &g_y,
                                 const Tensor &edge_vec, int64_t l_max);
Tensor edge_geometry_adjoint_meta(const std::optional<Tensor> &g_r,
                                  const std::optional<Tensor> &g_y, const Tensor &edge_vec,
                                  int64_t l_max);
Tensor edge_geometry_adjoint_autograd(const std::optional<Tensor> &g_r,
                                      const std::optional<Tensor> &g_y, const Tensor &edge_vec,
                                      int64_t l_max);

// Derivatives of <v, adjoint> by g_r, g_y and edge_vec; the last empty [0] where not needed.
std::tuple<Tensor, Tensor, Tensor> edge_geometry_second_cpu(const Tensor &v,
                                                            const std::optional<Tensor> &g_r,
                                                            const std::optional<Tensor> &g_y,
                                                            const Tensor &edge_vec, int64_t l_max,
                                                            at::ScalarType dtype, bool need_vec);
std::tuple<Tensor, Tensor, Tensor> edge_geometry_second_meta(const Tensor &v,
                                                             const std::optional<Tensor> &g_r,
                                                             const std::optional<Tensor> &g_y,
                                                             const Tensor &edge_vec, int64_t l_max,
                                                             at::ScalarType dtype, bool need_vec);

}    // namespace tdn

#endif
