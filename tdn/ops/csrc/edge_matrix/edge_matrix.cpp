#include "edge_matrix_tensors.h"

#include "common/parallel.h"
#include "sorted_edges/sorted_edges.h"

#include <ATen/Dispatch.h>
#include <ATen/ops/arange.h>

#include <vector>

namespace tdn {
namespace {

template <typename T> const EdgeMatrixKernels<T> &kernels();
template <> const EdgeMatrixKernels<float> &kernels<float>() { return edge_matrix_table().float32; }
template <> const EdgeMatrixKernels<double> &kernels<double>()
{
  return edge_matrix_table().float64;
}

// What has no kernels.
bool is_other(const Tensor &matrix)
{
  return matrix.size(1) > max_edge_components || is_other_type(matrix);
}

EdgeOrder in_order(const Tensor &ptr) { return {ptr.const_data_ptr<int64_t>(), nullptr}; }

// Edges of `ptr` walked by threads: `kernel(begin, end)` works on nodes.
template <typename F>
void for_nodes(const Tensor &ptr, const Tensor &matrix, int64_t channels, const F &kernel)
{
  parallel_nodes(ptr.const_data_ptr<int64_t>(), ptr.numel() - 1,
                 matrix.size(1) * (matrix.size(1) + 2) * channels, kernel);
}

// Sum over the edges of each node of K (x w), or of its transpose.
Tensor matrix_sum(const Tensor &scalars, const Tensor &rest, const Tensor &matrix, const Tensor &w,
                  const Tensor &ptr, const Tensor &order, bool transposed)
{
  const Tensor out =
      at::empty({ptr.numel() - 1, matrix.size(1), scalars.size(1)}, scalars.options());
  AT_DISPATCH_FLOATING_TYPES(scalars.scalar_type(), "edge_message", [&] {
    auto a = edge_arguments<EdgeMatrixArguments, scalar_t>(matrix, w);
    a.transposed = transposed;
    a.order = in_order(ptr);
    if (order.defined()) a.order.order = order.const_data_ptr<int64_t>();
    a.x = features_of_edges<scalar_t>(scalars, rest);
    a.out = pointer<scalar_t>(out);
    for_nodes(ptr, matrix, a.channels, [&](int64_t begin, int64_t end) {
      kernels<scalar_t>().message(a, begin, end);
    });
  });
  return out;
}

template <typename T>
void run_adjoint(const EdgeMatrixAdjointArguments<T> &a, const Tensor &ptr, const Tensor &matrix)
{
  for_nodes(ptr, matrix, a.channels, [&](int64_t begin, int64_t end) {
    std::vector<T> scratch(a.grad_matrix ? 2 * a.components * a.channels : 0);
    kernels<T>().adjoint(a, begin, end, scratch.data());
  });
}

void check_centers(const char *name, const Tensor &center, const Tensor &center_ptr)
{
  // each edge carries a feature of its own: it is its own neighbor
  const Tensor edges = at::arange(center.size(0) + 1, center.options());
  const Tensor own = edges.slice(0, 0, center.size(0));
  check_edge_indices(name, center, own, center_ptr, own, edges);
}

}    // namespace

TwoTensors edge_product_cpu(const Tensor &source, const Tensor &target, const Tensor &matrix,
                            const Tensor &w, TDN_EDGE_PARAMETERS)
{
  check_edge_product(source, target, matrix, w, TDN_EDGE_ARGUMENTS);
  if (is_other(matrix)) return edge_product_tensor(source, target, matrix, w, TDN_EDGE_ARGUMENTS);
  const Tensor s = source.contiguous(), t = target.contiguous(), m = matrix.contiguous(),
               weight = w.contiguous(), index = neighbor.contiguous(),
               ptr = center_ptr.contiguous();
  check_edge_indices("edge_product", center.contiguous(), index, ptr, by_neighbor.contiguous(),
                     neighbor_ptr.contiguous());
  const Tensor scalars = at::empty({m.size(0), w.size(1)}, s.options());
  const Tensor rest = at::empty({m.size(0), m.size(1) - 1, w.size(1)}, s.options());
  AT_DISPATCH_FLOATING_TYPES(s.scalar_type(), "edge_product", [&] {
    auto a = edge_arguments<EdgeMatrixArguments, scalar_t>(m, weight);
    a.order = in_order(ptr);
    a.x = features_of_nodes<scalar_t>(s, t, index);
    a.out_edges = {pointer<scalar_t>(scalars), pointer<scalar_t>(rest)};
    for_nodes(ptr, m, a.channels, [&](int64_t begin, int64_t end) {
      kernels<scalar_t>().product(a, begin, end);
    });
  });
  return {scalars, rest};
}

FourTensors edge_product_adjoint_cpu(const Tensor &g_scalars, const Tensor &g_rest,
                                     const Tensor &source, const Tensor &target,
                                     const Tensor &matrix, const Tensor &w, TDN_EDGE_PARAMETERS,
                                     bool need_nodes, bool need_matrix, bool need_w)
{
  check_edge_product(source, target, matrix, w, TDN_EDGE_ARGUMENTS);
  check_edge_product_gradient(g_scalars, g_rest, matrix, w);
  if (is_other(matrix))
    return edge_product_adjoint_tensor(g_scalars, g_rest, source, target, matrix, w,
                                       TDN_EDGE_ARGUMENTS, need_nodes, need_matrix, need_w);
  const Tensor s = source.contiguous(), t = target.contiguous(), m = matrix.contiguous(),
               weight = w.contiguous(), g0 = g_scalars.contiguous(), g1 = g_rest.contiguous(),
               index = neighbor.contiguous(), ptr = center_ptr.contiguous(),
               order = by_neighbor.contiguous(), pointers = neighbor_ptr.contiguous();
  check_edge_indices("edge_product", center.contiguous(), index, ptr, order, pointers);
  const Tensor grad_target = wanted(t, need_nodes), grad_matrix = wanted(m, need_matrix);
  const Tensor grad_w = wanted(weight, need_w);
  AT_DISPATCH_FLOATING_TYPES(s.scalar_type(), "edge_product_adjoint", [&] {
    auto a = edge_arguments<EdgeMatrixAdjointArguments, scalar_t>(m, weight);
    a.g = rows<scalar_t>(g0, g1);
    a.order = in_order(ptr);
    a.x = features_of_nodes<scalar_t>(s, t, index);
    a.grad_sum = pointer<scalar_t>(grad_target);
    a.grad_matrix = pointer<scalar_t>(grad_matrix);
    a.grad_w = pointer<scalar_t>(grad_w);
    run_adjoint(a, ptr, m);
  });
  const Tensor grad_source = need_nodes ? matrix_sum(g0, g1, m, weight, pointers, order, true)
                                        : at::empty({0}, s.options());
  return {grad_source, grad_target, grad_matrix, grad_w};
}

Tensor edge_message_cpu(const Tensor &scalars, const Tensor &rest, const Tensor &matrix,
                        const Tensor &w, const Tensor &center, const Tensor &center_ptr)
{
  check_edge_message(scalars, rest, matrix, w, center, center_ptr);
  if (is_other(matrix)) return edge_message_tensor(scalars, rest, matrix, w, center, center_ptr);
  const Tensor ptr = center_ptr.contiguous();
  check_centers("edge_message", center.contiguous(), ptr);
  return matrix_sum(scalars.contiguous(), rest.contiguous(), matrix.contiguous(), w.contiguous(),
                    ptr, Tensor(), false);
}

FourTensors edge_message_adjoint_cpu(const Tensor &g, const Tensor &scalars, const Tensor &rest,
                                     const Tensor &matrix, const Tensor &w, const Tensor &center,
                                     const Tensor &center_ptr, bool need_features,
                                     bool need_matrix, bool need_w)
{
  check_edge_message(scalars, rest, matrix, w, center, center_ptr);
  check_edge_message_gradient(g, matrix, w, center_ptr);
  if (is_other(matrix))
    return edge_message_adjoint_tensor(g, scalars, rest, matrix, w, center, center_ptr,
                                       need_features, need_matrix, need_w);
  const Tensor x0 = scalars.contiguous(), x1 = rest.contiguous(), m = matrix.contiguous(),
               weight = w.contiguous(), gradient = g.contiguous(), ptr = center_ptr.contiguous();
  check_centers("edge_message", center.contiguous(), ptr);
  const Tensor grad0 = wanted(x0, need_features), grad1 = wanted(x1, need_features);
  const Tensor grad_matrix = wanted(m, need_matrix), grad_w = wanted(weight, need_w);
  AT_DISPATCH_FLOATING_TYPES(x0.scalar_type(), "edge_message_adjoint", [&] {
    auto a = edge_arguments<EdgeMatrixAdjointArguments, scalar_t>(m, weight);
    a.g_nodes = gradient.const_data_ptr<scalar_t>();
    a.order = in_order(ptr);
    a.x = features_of_edges<scalar_t>(x0, x1);
    a.grad_x = {pointer<scalar_t>(grad0), pointer<scalar_t>(grad1)};
    a.grad_matrix = pointer<scalar_t>(grad_matrix);
    a.grad_w = pointer<scalar_t>(grad_w);
    run_adjoint(a, ptr, m);
  });
  return {grad0, grad1, grad_matrix, grad_w};
}

}    // namespace tdn
