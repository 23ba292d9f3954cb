// What the implementations of cp_message refuse, whatever the device: tensors that do not fit together.
// `check_message`, which others need as well, is in cp_message.h.

#ifndef TDN_CP_MESSAGE_CHECKS_H
#define TDN_CP_MESSAGE_CHECKS_H

#include "cp_message.h"

namespace tdn {

// Whether neighbors have scalars only: b [E, D] are the harmonics, u [nodes, 1, C].
inline bool is_scalar(const Tensor &b) { return b.dim() == 2; }

// Arguments of a transposed message: the gradient g of the message instead of u.
void check_transposed(const Tensor &g, const Tensor &b, const Tensor &w, TDN_EDGE_PARAMETERS);

// Arguments of derivatives by edges.
void check_all(const Tensor &g, const Tensor &u, const Tensor &b, const Tensor &w,
               TDN_EDGE_PARAMETERS);

}    // namespace tdn

#endif
