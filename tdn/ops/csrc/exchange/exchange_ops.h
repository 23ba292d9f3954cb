// The operator tdn::exchange and its adjoint over the transport of exchange.h, and the exchange in
// place for what records no derivatives.

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

// Whether a transport between processes is set. The tensor is there for TorchScript, which takes
// the result of an operator without inputs for a constant.
bool exchanges(const at::Tensor &like);

// Fill the rows of ghosts, [num_local, ...), in place; on a GPU in libraries built with CUDA.
void exchange_in_place(const at::Tensor &x, int64_t num_local);
void exchange_in_place_cuda(const at::Tensor &x, int64_t num_local);

}    // namespace tdn

#endif
