// Node operations: products of the features of a node with themselves, and channel mixing.

#ifndef TDN_NODE_PRODUCT_H
#define TDN_NODE_PRODUCT_H

#include <ATen/core/Tensor.h>

#include <tuple>

namespace tdn {

using at::Tensor;

// m [N, D, C], species [N], linear [S, L_out, C], left and right [O, S, L, C],
// weight [O, S, L_out, C], input1, input2, output [D, R] -> y [N, L_out^2, C]; see
// node_product_kernels.h. Factors are constant; two derivatives with respect to the rest.
#define TDN_NODE_PRODUCT_PARAMETERS                                                              \
  const Tensor &m, const Tensor &species, const Tensor &linear, const Tensor &left,              \
      const Tensor &right, const Tensor &weight, const Tensor &input1, const Tensor &input2,     \
      const Tensor &output
#define TDN_NODE_PRODUCT_ARGUMENTS                                                               \
  m, species, linear, left, right, weight, input1, input2, output

// Gradients of m, linear, left, right and weight; those of weights empty [0] where not needed.
using NodeGradients = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor>;
// The derivative of y along v, then gradients as above.
using NodeSecond = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;

Tensor node_product_cpu(TDN_NODE_PRODUCT_PARAMETERS);
// of <g, y>
NodeGradients node_product_adjoint_cpu(const Tensor &g, TDN_NODE_PRODUCT_PARAMETERS,
                                       bool need_weights);
// of <g, dy/dm v>
NodeSecond node_product_second_cpu(const Tensor &v, const Tensor &g, TDN_NODE_PRODUCT_PARAMETERS,
                                   bool need_weights);
// Tensor operations, differentiable: what devices without a kernel of their own use.
Tensor node_product_tensor(TDN_NODE_PRODUCT_PARAMETERS);
Tensor node_product_meta(TDN_NODE_PRODUCT_PARAMETERS);
NodeGradients node_product_adjoint_meta(const Tensor &g, TDN_NODE_PRODUCT_PARAMETERS,
                                        bool need_weights);
NodeSecond node_product_second_meta(const Tensor &v, const Tensor &g, TDN_NODE_PRODUCT_PARAMETERS,
                                    bool need_weights);
Tensor node_product_autograd(TDN_NODE_PRODUCT_PARAMETERS);
NodeGradients node_product_adjoint_autograd(const Tensor &g, TDN_NODE_PRODUCT_PARAMETERS,
                                            bool need_weights);

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
