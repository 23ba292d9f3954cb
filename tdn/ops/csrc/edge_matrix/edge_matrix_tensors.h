// Checks of the tensors of edge_product and edge_message, and the structures that point to them; on
// CPU and GPU.

#ifndef TDN_EDGE_MATRIX_TENSORS_H
#define TDN_EDGE_MATRIX_TENSORS_H

#include "edge_matrix.h"
#include "edge_matrix_kernels.h"

#include <ATen/ops/empty.h>

namespace tdn {

inline void check_matrix(const char *name, const Tensor &matrix, const Tensor &center)
{
  TORCH_CHECK_VALUE(center.dim() == 1 && center.scalar_type() == at::kLong && matrix.dim() == 3 &&
                        matrix.sym_size(0) == center.sym_size(0) &&
                        matrix.sym_size(1) == matrix.sym_size(2),
                    name, ": expected edges from sort_edges and a matrix [E, D, D] of each, found ",
                    center.sym_sizes(), " and ", matrix.sym_sizes());
}

inline void check_kind(const char *name, const char *what, const Tensor &x, const Tensor &matrix)
{
  TORCH_CHECK_VALUE(x.scalar_type() == matrix.scalar_type() && x.device() == matrix.device(), name,
                    ": ", what, " is ", x.scalar_type(), " on ", x.device(), ", the matrix ",
                    matrix.scalar_type(), " on ", matrix.device(), "; they must agree");
}

// `x` [rows, components, C of w].
inline void check_rows(const char *name, const char *what, const Tensor &x, const c10::SymInt &rows,
                       const c10::SymInt &components, const Tensor &matrix, const Tensor &w)
{
  TORCH_CHECK_VALUE(x.dim() == 3 && x.sym_size(0) == rows && x.sym_size(1) == components &&
                        x.sym_size(2) == w.sym_size(-1),
                    name, ": ", what, " must be [", rows, ", ", components, ", ", w.sym_size(-1),
                    "] (C of w), found ", x.sym_sizes());
  check_kind(name, what, x, matrix);
}

// Features of edges in two parts.
inline void check_edges_of(const char *name, const char *what, const Tensor &scalars,
                           const Tensor &rest, const Tensor &matrix, const Tensor &w)
{
  TORCH_CHECK_VALUE(scalars.dim() == 2, name, ": ", what, " must have scalars [E, C], found ",
                    scalars.sym_sizes());
  check_rows(name, what, scalars.unsqueeze(1), matrix.sym_size(0), 1, matrix, w);
  check_rows(name, what, rest, matrix.sym_size(0), matrix.sym_size(1) - 1, matrix, w);
}

inline void check_edge_product(const Tensor &source, const Tensor &target, const Tensor &matrix,
                               const Tensor &w, TDN_EDGE_PARAMETERS)
{
  check_matrix("edge_product", matrix, center);
  TORCH_CHECK_VALUE(w.dim() == 2 && w.sym_size(0) == matrix.sym_size(0),
                    "edge_product: w must be [", matrix.sym_size(0), ", C], found ", w.sym_sizes());
  check_kind("edge_product", "w", w, matrix);
  const c10::SymInt components = matrix.sym_size(1);
  check_rows("edge_product", "source", source, neighbor_ptr.sym_size(0) - 1, components, matrix, w);
  check_rows("edge_product", "target", target, center_ptr.sym_size(0) - 1, components, matrix, w);
}

inline void check_edge_message(const Tensor &scalars, const Tensor &rest, const Tensor &matrix,
                               const Tensor &w, const Tensor &center, const Tensor &center_ptr)
{
  check_matrix("edge_message", matrix, center);
  TORCH_CHECK_VALUE(w.dim() == 3 && w.sym_size(0) == matrix.sym_size(0) &&
                        (w.sym_size(1) == 1 || w.sym_size(1) == 2),
                    "edge_message: w must be [", matrix.sym_size(0), ", 1 or 2, C], found ",
                    w.sym_sizes());
  check_kind("edge_message", "w", w, matrix);
  check_edges_of("edge_message", "x", scalars, rest, matrix, w);
}

inline void check_edge_product_gradient(const Tensor &scalars, const Tensor &rest,
                                        const Tensor &matrix, const Tensor &w)
{
  check_edges_of("edge_product", "the gradient", scalars, rest, matrix, w);
}

inline void check_edge_message_gradient(const Tensor &g, const Tensor &matrix, const Tensor &w,
                                        const Tensor &center_ptr)
{
  check_rows("edge_message", "the gradient", g, center_ptr.sym_size(0) - 1, matrix.sym_size(1),
             matrix, w);
}

// Types without kernels.
inline bool is_other_type(const Tensor &matrix)
{
  return matrix.scalar_type() != at::kFloat && matrix.scalar_type() != at::kDouble;
}

// Memory for a gradient, none where it is not needed.
inline Tensor wanted(const Tensor &like, bool needed)
{
  return needed ? at::empty(like.sizes(), like.options()) : at::empty({0}, like.options());
}

template <typename T> T *pointer(const Tensor &x)    // null for none
{
  return x.numel() > 0 ? x.mutable_data_ptr<T>() : nullptr;
}

template <typename T> EdgeRows<const T> rows(const Tensor &scalars, const Tensor &rest)
{
  return {scalars.const_data_ptr<T>(), rest.const_data_ptr<T>()};
}

// Arguments with matrices and weights; features of nodes and of edges for them are below.
template <template <typename> class Arguments, typename T>
Arguments<T> edge_arguments(const Tensor &matrix, const Tensor &w)
{
  Arguments<T> a{};
  a.components = matrix.size(1);
  a.channels = w.size(-1);
  a.groups = w.dim() == 3 ? w.size(1) : 1;
  a.matrix = matrix.const_data_ptr<T>();
  a.w = w.const_data_ptr<T>();
  return a;
}

template <typename T>
EdgeFeatures<T> features_of_nodes(const Tensor &source, const Tensor &target, const Tensor &index)
{
  EdgeFeatures<T> x{};
  x.source = source.const_data_ptr<T>();
  x.target = target.const_data_ptr<T>();
  x.index = index.const_data_ptr<int64_t>();
  return x;
}

template <typename T> EdgeFeatures<T> features_of_edges(const Tensor &scalars, const Tensor &rest)
{
  return {rows<T>(scalars, rest), nullptr, nullptr, nullptr};
}

}    // namespace tdn

#endif
