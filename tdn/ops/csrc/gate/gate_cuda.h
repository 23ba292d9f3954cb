// The gate on a GPU; see ../gate.h.

#ifndef TDN_CUDA_GATE_CUDA_H
#define TDN_CUDA_GATE_CUDA_H

#include "gate.h"

namespace tdn {

Tensor gate_cuda(const Tensor &x, const Tensor &weight, double scale);
std::tuple<Tensor, Tensor> gate_adjoint_cuda(const Tensor &g, const Tensor &x,
                                             const Tensor &weight, double scale, bool need_weight);
std::tuple<Tensor, Tensor, Tensor> gate_second_cuda(const Tensor &v, const Tensor &g,
                                                    const Tensor &x, const Tensor &weight,
                                                    double scale, bool need_weight);

}    // namespace tdn

#endif
