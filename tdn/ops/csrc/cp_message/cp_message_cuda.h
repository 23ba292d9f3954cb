// cp_message on a GPU; see ../cp_message.h.

#ifndef TDN_CUDA_CP_MESSAGE_CUDA_H
#define TDN_CUDA_CP_MESSAGE_CUDA_H

#include "cp_message.h"

namespace tdn {

Tensor cp_message_cuda(const Tensor &u, const Tensor &b, const Tensor &w, TDN_EDGE_PARAMETERS);
Tensor cp_message_transposed_cuda(const Tensor &g, const Tensor &b, const Tensor &w,
                                  TDN_EDGE_PARAMETERS);
std::tuple<Tensor, Tensor> cp_message_edges_cuda(const Tensor &g, const Tensor &u, const Tensor &b,
                                                 const Tensor &w, TDN_EDGE_PARAMETERS, bool need_b,
                                                 bool need_w);

}    // namespace tdn

#endif
