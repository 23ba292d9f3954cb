// Calls of operators through PyTorch's dispatcher, so that each call is recorded for derivatives.

#ifndef TDN_FIND_OPERATOR_H
#define TDN_FIND_OPERATOR_H

#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>

namespace tdn {

template <typename Signature> auto find_operator(const char *name)
{
  return c10::Dispatcher::singleton().findSchemaOrThrow(name, "").typed<Signature>();
}

// Whether an operator has kernels where `x` is; elsewhere tensor operations do its work.
inline bool has_kernels(const char *name, const at::Tensor &x)
{
  if (x.is_cpu() || x.is_meta()) return true;
  return c10::Dispatcher::singleton().findSchemaOrThrow(name, "").hasKernelForDispatchKey(
      c10::DispatchKey::CUDA);
}

}    // namespace tdn

#endif
