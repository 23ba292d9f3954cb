// Products of the features of a node with themselves.

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

// On a GPU, in libraries that are built with CUDA.
Tensor node_product_cuda(TDN_NODE_PRODUCT_PARAMETERS);
NodeGradients node_product_adjoint_cuda(const Tensor &g, TDN_NODE_PRODUCT_PARAMETERS,
                                        bool need_weights);
NodeSecond node_product_second_cuda(const Tensor &v, const Tensor &g, TDN_NODE_PRODUCT_PARAMETERS,
                                    bool need_weights);

}    // namespace tdn

#endif
