// The convolutions for inference on a GPU; see ../convolution.h.

#ifndef TDN_CUDA_CONVOLUTION_CUDA_H
#define TDN_CUDA_CONVOLUTION_CUDA_H

#include "convolution.h"

namespace tdn {

Tensor convolution_cuda(TDN_CONVOLUTION_PARAMETERS);
std::tuple<Tensor, Tensor> convolution_adjoint_cuda(const Tensor &g, TDN_CONVOLUTION_PARAMETERS,
                                                    bool need_x);
Tensor density_cuda(TDN_DENSITY_PARAMETERS);
Tensor density_adjoint_cuda(const Tensor &g, TDN_DENSITY_PARAMETERS);

}    // namespace tdn

#endif
