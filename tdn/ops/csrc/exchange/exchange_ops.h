// The operator tdn::exchange and its adjoint over the transport of exchange.h.

#ifndef TDN_EXCHANGE_OPS_H
#define TDN_EXCHANGE_OPS_H

#include <ATen/core/Tensor.h>

namespace tdn {

// [num_local, ...] -> [num_all, ...]: appends the rows of ghost atoms.
at::Tensor exchange_rows(const at::Tensor &x, int64_t num_all);
at::Tensor exchange_meta(const at::Tensor &x, c10::SymInt num_all);
at::Tensor exchange_autograd(const at::Tensor &x, c10::SymInt num_all);

// [num_all, ...] -> [num_local, ...]: adds the rows of ghost atoms to those of their owners.
at::Tensor exchange_reverse_rows(const at::Tensor &x, int64_t num_local);
at::Tensor exchange_reverse_meta(const at::Tensor &x, c10::SymInt num_local);
at::Tensor exchange_reverse_autograd(const at::Tensor &x, c10::SymInt num_local);

}    // namespace tdn

#endif
