#include "cp_message.h"

#include "cp_message_kernels.h"
#include "edges.h"
#include "parallel.h"

#include <ATen/Dispatch.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include <algorithm>

namespace tdn {
namespace {

template <typename T> const Kernels<T> &kernels();
template <> const Kernels<float> &kernels<float>() { return kernel_table().float32; }
template <> const Kernels<double> &kernels<double>() { return kernel_table().float64; }

// `x` belongs to the nodes of `ptr`.
template <typename Sizes>
void check_nodes(const char *name, const Tensor &x, const Sizes &b, const Sizes &w,
                 const Tensor &ptr)
{
  TORCH_CHECK_VALUE(x.dim() == 3 && x.sym_size(0) == ptr.sym_size(0) - 1 &&
                        x.sym_size(1) == b[2] && x.sym_size(2) == w[2],
                    "cp_message: ", name, " must be [", ptr.sym_size(0) - 1, ", ", b[2], ", ", w[2],
                    "] (atoms, R of b, C of w), found ", x.sym_sizes());
}

void check_edges(const Tensor &b, const Tensor &w, TDN_EDGE_PARAMETERS)
{
  for (const Tensor &x : {centre, neighbour, centre_ptr, transpose, neighbour_ptr}) {
    TORCH_CHECK_VALUE(x.dim() == 1 && x.scalar_type() == at::kLong,
                      "cp_message: edges must be int64 vectors from sort_edges, found ",
                      x.sym_sizes(), " of ", x.scalar_type());
    TORCH_CHECK_VALUE(x.device() == b.device(), "cp_message: edges are on ", x.device(),
                      ", b is on ", b.device());
  }
  const c10::SymInt num_edges = centre.sym_size(0);
  TORCH_CHECK_VALUE(
      neighbour.sym_size(0) == num_edges && transpose.sym_size(0) == num_edges &&
          centre_ptr.sym_size(0) >= 1 && neighbour_ptr.sym_size(0) >= 1,
      "cp_message: edges do not fit together; take them from sort_edges");
  TORCH_CHECK_VALUE(b.dim() == 3 && b.sym_size(0) == num_edges, "cp_message: b must be [",
                    num_edges, ", L, R], found ", b.sym_sizes());
  TORCH_CHECK_VALUE(w.dim() == 3 && w.sym_size(0) == num_edges && w.sym_size(1) == b.sym_size(1),
                    "cp_message: w must be [", num_edges, ", ", b.sym_size(1), ", C], found ",
                    w.sym_sizes());
}

void check_kind(const char *name, const Tensor &x, const Tensor &b)
{
  TORCH_CHECK_VALUE(x.scalar_type() == b.scalar_type() && x.device() == b.device(), "cp_message: ",
                    name, " is ", x.scalar_type(), " on ", x.device(), ", b is ", b.scalar_type(),
                    " on ", b.device(), "; they must agree");
}

void check_message(const Tensor &u, const Tensor &b, const Tensor &w, TDN_EDGE_PARAMETERS)
{
  check_edges(b, w, TDN_EDGE_ARGUMENTS);
  check_nodes("u", u, b.sym_sizes(), w.sym_sizes(), neighbour_ptr);
  check_kind("u", u, b);
  check_kind("w", w, b);
}

void check_transposed(const Tensor &g, const Tensor &b, const Tensor &w, TDN_EDGE_PARAMETERS)
{
  check_edges(b, w, TDN_EDGE_ARGUMENTS);
  check_nodes("the gradient", g, b.sym_sizes(), w.sym_sizes(), centre_ptr);
  check_kind("the gradient", g, b);
  check_kind("w", w, b);
}

void check_all(const Tensor &g, const Tensor &u, const Tensor &b, const Tensor &w,
               TDN_EDGE_PARAMETERS)
{
  check_message(u, b, w, TDN_EDGE_ARGUMENTS);
  check_transposed(g, b, w, TDN_EDGE_ARGUMENTS);
}

// sum over the edges of each node of (b^T w) x[source]; `order` null if edges are sorted by node.
Tensor gather_cpu(const Tensor &x, const Tensor &b, const Tensor &w, const Tensor &ptr,
                  const int64_t *order, const Tensor &source)
{
  const Tensor x_ = x.contiguous(), b_ = b.contiguous(), w_ = w.contiguous();
  const int64_t num_nodes = ptr.numel() - 1;
  const int64_t rank = b_.size(2), channels = w_.size(2), degrees = b_.size(1);
  Tensor out = at::empty({num_nodes, rank, channels}, x_.options());
  AT_DISPATCH_FLOATING_TYPES(x_.scalar_type(), "cp_message", [&] {
    const GatherArguments<scalar_t> arguments{
        rank, channels, degrees, x_.const_data_ptr<scalar_t>(), b_.const_data_ptr<scalar_t>(),
        w_.const_data_ptr<scalar_t>(), ptr.const_data_ptr<int64_t>(), order,
        source.const_data_ptr<int64_t>(), out.mutable_data_ptr<scalar_t>()};
    const auto &kernel = kernels<scalar_t>().gather;
    parallel_nodes(arguments.ptr, num_nodes, rank * channels * (degrees + 1),
                   [&](int64_t begin, int64_t end) { kernel(arguments, begin, end); });
  });
  return out;
}

Tensor gather_tensor(const Tensor &x, const Tensor &b, const Tensor &w, const Tensor &ptr,
                     const Tensor &target, const Tensor &source)
{
  const Tensor message = at::bmm(b.transpose(1, 2), w).mul_(x.index_select(0, source));
  return at::zeros({ptr.numel() - 1, b.size(2), w.size(2)}, x.options())
      .index_add_(0, target, message);
}

}    // namespace

Tensor cp_message_cpu(const Tensor &u, const Tensor &b, const Tensor &w, TDN_EDGE_PARAMETERS)
{
  check_message(u, b, w, TDN_EDGE_ARGUMENTS);
  const Tensor ptr = centre_ptr.contiguous(), source = neighbour.contiguous();
  check_edge_indices("cp_message", centre.contiguous(), source, ptr, transpose.contiguous(),
                     neighbour_ptr.contiguous());
  return gather_cpu(u, b, w, ptr, nullptr, source);
}

Tensor cp_message_transposed_cpu(const Tensor &g, const Tensor &b, const Tensor &w,
                                 TDN_EDGE_PARAMETERS)
{
  check_transposed(g, b, w, TDN_EDGE_ARGUMENTS);
  const Tensor ptr = neighbour_ptr.contiguous(), source = centre.contiguous();
  const Tensor order = transpose.contiguous();
  check_edge_indices("cp_message", source, neighbour.contiguous(), centre_ptr.contiguous(), order,
                     ptr);
  return gather_cpu(g, b, w, ptr, order.const_data_ptr<int64_t>(), source);
}

std::tuple<Tensor, Tensor> cp_message_edges_cpu(const Tensor &g, const Tensor &u, const Tensor &b,
                                                const Tensor &w, TDN_EDGE_PARAMETERS, bool need_b,
                                                bool need_w)
{
  check_all(g, u, b, w, TDN_EDGE_ARGUMENTS);
  const Tensor g_ = g.contiguous(), u_ = u.contiguous(), b_ = b.contiguous(), w_ = w.contiguous();
  const Tensor centre_ = centre.contiguous(), neighbour_ = neighbour.contiguous();
  check_edge_indices("cp_message", centre_, neighbour_, centre_ptr.contiguous(),
                     transpose.contiguous(), neighbour_ptr.contiguous());
  const int64_t rank = b_.size(2), channels = w_.size(2), degrees = b_.size(1);
  Tensor grad_b = need_b ? at::empty(b_.sizes(), b_.options()) : at::empty({0}, b_.options());
  Tensor grad_w = need_w ? at::empty(w_.sizes(), w_.options()) : at::empty({0}, w_.options());
  AT_DISPATCH_FLOATING_TYPES(b_.scalar_type(), "cp_message", [&] {
    const EdgeArguments<scalar_t> arguments{rank,
                                            channels,
                                            degrees,
                                            g_.const_data_ptr<scalar_t>(),
                                            u_.const_data_ptr<scalar_t>(),
                                            b_.const_data_ptr<scalar_t>(),
                                            w_.const_data_ptr<scalar_t>(),
                                            centre_.const_data_ptr<int64_t>(),
                                            neighbour_.const_data_ptr<int64_t>(),
                                            need_b ? grad_b.mutable_data_ptr<scalar_t>() : nullptr,
                                            need_w ? grad_w.mutable_data_ptr<scalar_t>() : nullptr};
    if (!need_b && !need_w) return;
    const auto &kernel = kernels<scalar_t>().edges;
    at::parallel_for(0, centre_.numel(), grain(rank * channels * (2 * degrees + 1)),
                     [&](int64_t begin, int64_t end) { kernel(arguments, begin, end); });
  });
  return {grad_b, grad_w};
}

Tensor cp_message_tensor(const Tensor &u, const Tensor &b, const Tensor &w, TDN_EDGE_PARAMETERS)
{
  check_message(u, b, w, TDN_EDGE_ARGUMENTS);
  return gather_tensor(u, b, w, centre_ptr, centre, neighbour);
}

Tensor cp_message_transposed_tensor(const Tensor &g, const Tensor &b, const Tensor &w,
                                    TDN_EDGE_PARAMETERS)
{
  check_transposed(g, b, w, TDN_EDGE_ARGUMENTS);
  return gather_tensor(g, b, w, neighbour_ptr, neighbour, centre);
}

std::tuple<Tensor, Tensor> cp_message_edges_tensor(const Tensor &g, const Tensor &u,
                                                   const Tensor &b, const Tensor &w,
                                                   TDN_EDGE_PARAMETERS, bool need_b, bool need_w)
{
  check_all(g, u, b, w, TDN_EDGE_ARGUMENTS);
  const Tensor product = g.index_select(0, centre).mul_(u.index_select(0, neighbour));
  return {need_b ? at::bmm(w, product.transpose(1, 2)) : at::empty({0}, b.options()),
          need_w ? at::bmm(b, product) : at::empty({0}, w.options())};
}

Tensor cp_message_meta(const Tensor &u, const Tensor &b, const Tensor &w, TDN_EDGE_PARAMETERS)
{
  check_message(u, b, w, TDN_EDGE_ARGUMENTS);
  return at::empty_symint({centre_ptr.sym_size(0) - 1, b.sym_size(2), w.sym_size(2)},
                          u.options());
}

Tensor cp_message_transposed_meta(const Tensor &g, const Tensor &b, const Tensor &w,
                                  TDN_EDGE_PARAMETERS)
{
  check_transposed(g, b, w, TDN_EDGE_ARGUMENTS);
  return at::empty_symint({neighbour_ptr.sym_size(0) - 1, b.sym_size(2), w.sym_size(2)},
                          g.options());
}

std::tuple<Tensor, Tensor> cp_message_edges_meta(const Tensor &g, const Tensor &u, const Tensor &b,
                                                 const Tensor &w, TDN_EDGE_PARAMETERS, bool need_b,
                                                 bool need_w)
{
  check_all(g, u, b, w, TDN_EDGE_ARGUMENTS);
  return {need_b ? at::empty_symint(b.sym_sizes(), b.options()) : at::empty({0}, b.options()),
          need_w ? at::empty_symint(w.sym_sizes(), w.options()) : at::empty({0}, w.options())};
}

}    // namespace tdn
