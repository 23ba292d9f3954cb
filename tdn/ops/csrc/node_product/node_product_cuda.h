// The node product on a GPU; see ../node_product.h.

#ifndef TDN_CUDA_NODE_PRODUCT_CUDA_H
#define TDN_CUDA_NODE_PRODUCT_CUDA_H

#include "node_product.h"

namespace tdn {

Tensor node_product_cuda(TDN_NODE_PRODUCT_PARAMETERS);
NodeGradients node_product_adjoint_cuda(const Tensor &g, TDN_NODE_PRODUCT_PARAMETERS,
                                        bool need_weights);
NodeSecond node_product_second_cuda(const Tensor &v, const Tensor &g, TDN_NODE_PRODUCT_PARAMETERS,
                                    bool need_weights);

}    // namespace tdn

#endif
