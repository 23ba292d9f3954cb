// Node operations for inference: products of the features of a node, and channel mixing.

#ifndef TDN_NODE_PRODUCT_H
#define TDN_NODE_PRODUCT_H

#include <ATen/core/Tensor.h>

namespace tdn {

using at::Tensor;

// m [N, D, C], species [N], linear [S, L_out, C], left and right [O, S, L, C],
// weight [O, S, L_out, C], input1, input2, output [D, R] -> y [N, L_out^2, C]; see
// node_product_kernels.h.
#define TDN_NODE_PRODUCT_PARAMETERS                                                              \
  const Tensor &m, const Tensor &species, const Tensor &linear, const Tensor &left,              \
      const Tensor &right, const Tensor &weight, const Tensor &input1, const Tensor &input2,     \
      const Tensor &output
#define TDN_NODE_PRODUCT_ARGUMENTS                                                               \
  m, species, linear, left, right, weight, input1, input2, output

Tensor node_product_cpu(TDN_NODE_PRODUCT_PARAMETERS);
Tensor node_product_adjoint_cpu(const Tensor &g, TDN_NODE_PRODUCT_PARAMETERS);
// Tensor operations, differentiable: what devices without a kernel of their own use.
Tensor node_product_tensor(TDN_NODE_PRODUCT_PARAMETERS);
Tensor node_product_meta(TDN_NODE_PRODUCT_PARAMETERS);
Tensor node_product_adjoint_meta(const Tensor &g, TDN_NODE_PRODUCT_PARAMETERS);
// First derivatives with respect to m; the rest is constant.
Tensor node_product_autograd(TDN_NODE_PRODUCT_PARAMETERS);

// y[n, lm, :] = x[n, lm, :] weight[l]: [N, D, C], [L, C, C'] -> [N, D, C']. Differentiable in x to
// any order; the weight is constant.
Tensor degree_linear(const Tensor &x, const Tensor &weight);
Tensor degree_linear_meta(const Tensor &x, const Tensor &weight);
Tensor degree_linear_autograd(const Tensor &x, const Tensor &weight);

}    // namespace tdn

#endif
