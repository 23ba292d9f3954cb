// edge_product and edge_message as operations on tensors, for every device, and shapes alone.

#include "edge_matrix_tensors.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/zeros.h>

namespace tdn {
namespace {

// Weights of every component, [E, D or 1, C], from those of the first and of the others.
Tensor component_weights(const Tensor &w, int64_t components)
{
  if (w.dim() == 2) return w.unsqueeze(1);
  if (w.size(1) == 1) return w;
  return at::cat({w.slice(1, 0, 1), w.slice(1, 1, 2).expand({-1, components - 1, -1})}, 1);
}

// The inverse: sums of [E, D, C] over the components of each weight.
Tensor weight_sums(const Tensor &products, const Tensor &w)
{
  if (w.dim() == 2) return products.sum(1);
  if (w.size(1) == 1) return products.sum(1, true);
  return at::cat({products.slice(1, 0, 1), products.slice(1, 1).sum(1, true)}, 1);
}

Tensor row_sums(const Tensor &x, const Tensor &index, const c10::SymInt &rows)
{
  return at::zeros_symint({rows, x.sym_size(1), x.sym_size(2)}, x.options()).index_add(0, index, x);
}

Tensor joined(const Tensor &scalars, const Tensor &rest)
{
  return at::cat({scalars.unsqueeze(1), rest}, 1);
}

// Gradients by x, matrix and w from those of the edges, all [E, D, C].
std::tuple<Tensor, Tensor, Tensor> adjoint_of_edges(const Tensor &g, const Tensor &x,
                                                    const Tensor &matrix, const Tensor &w,
                                                    bool need_x, bool need_matrix, bool need_w)
{
  const Tensor none = at::empty({0}, x.options());
  const Tensor weights = component_weights(w, matrix.size(1));
  const Tensor t = need_x || need_w ? at::bmm(matrix.transpose(1, 2), g) : none;
  return {need_x ? t * weights : none,
          need_matrix ? at::bmm(g, (x * weights).transpose(1, 2)) : none,
          need_w ? weight_sums(t * x, w) : none};
}

Tensor sized_like(const Tensor &x, bool needed)
{
  return needed ? at::empty_symint(x.sym_sizes(), x.options()) : at::empty({0}, x.options());
}

}    // namespace

TwoTensors edge_product_tensor(const Tensor &source, const Tensor &target, const Tensor &matrix,
                               const Tensor &w, TDN_EDGE_PARAMETERS)
{
  check_edge_product(source, target, matrix, w, TDN_EDGE_ARGUMENTS);
  const Tensor x = source.index_select(0, neighbor) + target.index_select(0, center);
  const Tensor z = at::bmm(matrix, x) * w.unsqueeze(1);
  return {z.select(1, 0).contiguous(), z.slice(1, 1).contiguous()};
}

FourTensors edge_product_adjoint_tensor(const Tensor &g_scalars, const Tensor &g_rest,
                                        const Tensor &source, const Tensor &target,
                                        const Tensor &matrix, const Tensor &w, TDN_EDGE_PARAMETERS,
                                        bool need_nodes, bool need_matrix, bool need_w)
{
  const Tensor x = source.index_select(0, neighbor) + target.index_select(0, center);
  const auto [for_x, for_matrix, for_w] = adjoint_of_edges(joined(g_scalars, g_rest), x, matrix, w,
                                                           need_nodes, need_matrix, need_w);
  if (!need_nodes) return {for_x, at::empty({0}, x.options()), for_matrix, for_w};
  return {row_sums(for_x, neighbor, source.sym_size(0)),
          row_sums(for_x, center, target.sym_size(0)), for_matrix, for_w};
}

Tensor edge_message_tensor(const Tensor &scalars, const Tensor &rest, const Tensor &matrix,
                           const Tensor &w, const Tensor &center, const Tensor &center_ptr)
{
  check_edge_message(scalars, rest, matrix, w, center, center_ptr);
  const Tensor weights = component_weights(w, matrix.size(1));
  return row_sums(at::bmm(matrix, joined(scalars, rest) * weights), center,
                  center_ptr.sym_size(0) - 1);
}

FourTensors edge_message_adjoint_tensor(const Tensor &g, const Tensor &scalars, const Tensor &rest,
                                        const Tensor &matrix, const Tensor &w, const Tensor &center,
                                        const Tensor &center_ptr, bool need_features,
                                        bool need_matrix, bool need_w)
{
  const auto [for_x, for_matrix, for_w] =
      adjoint_of_edges(g.index_select(0, center), joined(scalars, rest), matrix, w, need_features,
                       need_matrix, need_w);
  if (!need_features) return {for_x, at::empty({0}, g.options()), for_matrix, for_w};
  return {for_x.select(1, 0).contiguous(), for_x.slice(1, 1).contiguous(), for_matrix, for_w};
}

TwoTensors edge_product_meta(const Tensor &source, const Tensor &target, const Tensor &matrix,
                             const Tensor &w, TDN_EDGE_PARAMETERS)
{
  check_edge_product(source, target, matrix, w, TDN_EDGE_ARGUMENTS);
  return {at::empty_symint({matrix.sym_size(0), w.sym_size(1)}, w.options()),
          at::empty_symint({matrix.sym_size(0), matrix.sym_size(1) - 1, w.sym_size(1)},
                           w.options())};
}

FourTensors edge_product_adjoint_meta(const Tensor &g_scalars, const Tensor &g_rest,
                                      const Tensor &source, const Tensor &target,
                                      const Tensor &matrix, const Tensor &w, TDN_EDGE_PARAMETERS,
                                      bool need_nodes, bool need_matrix, bool need_w)
{
  return {sized_like(source, need_nodes), sized_like(target, need_nodes),
          sized_like(matrix, need_matrix), sized_like(w, need_w)};
}

Tensor edge_message_meta(const Tensor &scalars, const Tensor &rest, const Tensor &matrix,
                         const Tensor &w, const Tensor &center, const Tensor &center_ptr)
{
  check_edge_message(scalars, rest, matrix, w, center, center_ptr);
  return at::empty_symint({center_ptr.sym_size(0) - 1, matrix.sym_size(1), w.sym_size(2)},
                          w.options());
}

FourTensors edge_message_adjoint_meta(const Tensor &g, const Tensor &scalars, const Tensor &rest,
                                      const Tensor &matrix, const Tensor &w, const Tensor &center,
                                      const Tensor &center_ptr, bool need_features,
                                      bool need_matrix, bool need_w)
{
  return {sized_like(scalars, need_features), sized_like(rest, need_features),
          sized_like(matrix, need_matrix), sized_like(w, need_w)};
}

}    // namespace tdn
