// Products with one matrix per edge, made once for all channels and layers, and their derivatives.
//
// Both operators are partial derivatives of forms that are linear in each argument,
//   sum over edges e = (i, j) of g[e,k,c] K[e,k,a] (source[j,a,c] + target[i,a,c]) w[e,c]   product
//   sum over edges e of i     of g[i,k,c] K[e,k,a] x[e,a,c] w[e,l,c]                        message
// (l: 0 for the component a = 0, last for the others), so that operator and adjoint serve
// derivatives of every order. Features of edges are two tensors, scalars [E, C] and the other
// components [E, D - 1, C]: what is computed from scalars alone needs no slice of a large tensor,
// whose gradient would be filled with zeros and added.

#ifndef TDN_EDGE_MATRIX_H
#define TDN_EDGE_MATRIX_H

#include "cp_message/cp_message.h"    // TDN_EDGE_PARAMETERS

#include <ATen/core/Tensor.h>

#include <tuple>

namespace tdn {

using at::Tensor;
using TwoTensors = std::tuple<Tensor, Tensor>;
using FourTensors = std::tuple<Tensor, Tensor, Tensor, Tensor>;

// One implementation: of the CPU, of tensor operations (any device), of shapes alone, for autograd.
// edge_product: scalars and rest; its adjoint: gradients by source, target, matrix and w.
// edge_message: [num_centers, D, C]; its adjoint: gradients by scalars, rest, matrix and w.
// Gradients are empty [0] where not needed; the first two come together.
#define TDN_DECLARE_EDGE_MATRIX(suffix)                                                          \
  TwoTensors edge_product_##suffix(const Tensor &source, const Tensor &target,                   \
                                   const Tensor &matrix, const Tensor &w, TDN_EDGE_PARAMETERS);  \
  FourTensors edge_product_adjoint_##suffix(                                                     \
      const Tensor &g_scalars, const Tensor &g_rest, const Tensor &source, const Tensor &target, \
      const Tensor &matrix, const Tensor &w, TDN_EDGE_PARAMETERS, bool need_nodes,               \
      bool need_matrix, bool need_w);                                                            \
  Tensor edge_message_##suffix(const Tensor &scalars, const Tensor &rest, const Tensor &matrix,  \
                               const Tensor &w, const Tensor &center, const Tensor &center_ptr); \
  FourTensors edge_message_adjoint_##suffix(                                                     \
      const Tensor &g, const Tensor &scalars, const Tensor &rest, const Tensor &matrix,          \
      const Tensor &w, const Tensor &center, const Tensor &center_ptr, bool need_features,       \
      bool need_matrix, bool need_w);

TDN_DECLARE_EDGE_MATRIX(cpu)
TDN_DECLARE_EDGE_MATRIX(tensor)
TDN_DECLARE_EDGE_MATRIX(meta)
TDN_DECLARE_EDGE_MATRIX(autograd)
TDN_DECLARE_EDGE_MATRIX(cuda)    // in libraries that are built with CUDA

#undef TDN_DECLARE_EDGE_MATRIX

}    // namespace tdn

#endif
