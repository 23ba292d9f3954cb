// A constant matrix on the components of features: y[n, r, :] = sum_k matrix[r, k] x[n, k, :].

#ifndef TDN_COMPONENT_LINEAR_H
#define TDN_COMPONENT_LINEAR_H

#include <ATen/core/Tensor.h>

namespace tdn {

using at::Tensor;

// x [N, D, C], matrix [R, D] -> [N, R, C]. Derivatives of any order by x; those by the matrix, which
// only tests take, as operations on tensors.
Tensor component_linear_cpu(const Tensor &x, const Tensor &matrix);
Tensor component_linear_tensor(const Tensor &x, const Tensor &matrix);
Tensor component_linear_meta(const Tensor &x, const Tensor &matrix);
Tensor component_linear_autograd(const Tensor &x, const Tensor &matrix);

}    // namespace tdn

#endif
