// Mixing of channels with one matrix per degree.

#ifndef TDN_DEGREE_LINEAR_H
#define TDN_DEGREE_LINEAR_H

#include <ATen/core/Tensor.h>

namespace tdn {

using at::Tensor;

// linear: y[n, lm, :] = x[n, lm, :] weight[l]: [N, D, C], [L, C, C'] -> [N, D, C'].
// weight: w[l] = sum_n,m x[n, lm, :]^T g[n, lm, :]: [N, D, C], [N, D, C'] -> [L, C, C'].
// Each is the derivative of the other, so there are derivatives of any order.
Tensor degree_linear_cpu(const Tensor &x, const Tensor &weight);
Tensor degree_linear_tensor(const Tensor &x, const Tensor &weight);
Tensor degree_linear_meta(const Tensor &x, const Tensor &weight);
Tensor degree_linear_autograd(const Tensor &x, const Tensor &weight);
Tensor degree_linear_weight_cpu(const Tensor &x, const Tensor &g);
Tensor degree_linear_weight_tensor(const Tensor &x, const Tensor &g);
Tensor degree_linear_weight_meta(const Tensor &x, const Tensor &g);
Tensor degree_linear_weight_autograd(const Tensor &x, const Tensor &g);

}    // namespace tdn

#endif
