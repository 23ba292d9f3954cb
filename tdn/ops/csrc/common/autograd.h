// What files with derivatives of operators have in common.

#ifndef TDN_AUTOGRAD_H
#define TDN_AUTOGRAD_H

#include "find_operator.h"

#include <ATen/core/LegacyTypeDispatch.h>
#include <torch/csrc/autograd/custom_function.h>

#include <optional>

namespace tdn {

using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

// An undefined tensor stands for a gradient that is not there.
inline std::optional<at::Tensor> maybe(const at::Tensor &x)
{
  return x.defined() ? std::optional<at::Tensor>(x) : std::nullopt;
}

}    // namespace tdn

#endif
