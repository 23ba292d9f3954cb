#include "edge_matrix_tensors.h"

#include "edge_matrix_cuda_kernels.h"
#include "common/current_queue.h"

#include <ATen/Dispatch.h>

// Values of indices are checked by the kernels, since looking at them here would wait for the GPU.

namespace tdn {
namespace {

using c10::cuda::CUDAGuard;

// Sum over the edges of each node of K (x w), or of its transpose.
Tensor matrix_sum(const Tensor &scalars, const Tensor &rest, const Tensor &matrix, const Tensor &w,
                  const Tensor &ptr, const Tensor &order, bool transposed)
{
  const Tensor out =
      at::empty({ptr.numel() - 1, matrix.size(1), scalars.size(1)}, scalars.options());
  AT_DISPATCH_FLOATING_TYPES(scalars.scalar_type(), "edge_message", [&] {
    auto a = edge_arguments<EdgeMatrixArguments, scalar_t>(matrix, w);
    a.transposed = transposed;
    a.order.ptr = ptr.const_data_ptr<int64_t>();
    if (order.defined()) a.order.order = order.const_data_ptr<int64_t>();
    a.x = features_of_edges<scalar_t>(scalars, rest);
    a.out = pointer<scalar_t>(out);
    if (matrix.size(0) == 0) {    // no address, by which the kernels tell features
      Tensor(out).zero_();
      return;
    }
    const cuda::EdgeMatrixSizes sizes{out.size(0), 0, matrix.size(0)};
    cuda::check_launch(cuda::launch_edge_message(a, sizes, cuda::current_queue(out)));
  });
  return out;
}

}    // namespace

TwoTensors edge_product_cuda(const Tensor &source, const Tensor &target, const Tensor &matrix,
                             const Tensor &w, TDN_EDGE_PARAMETERS)
{
  check_edge_product(source, target, matrix, w, TDN_EDGE_ARGUMENTS);
  if (is_other_type(matrix))
    return edge_product_tensor(source, target, matrix, w, TDN_EDGE_ARGUMENTS);
  const CUDAGuard guard(matrix.device());
  const Tensor s = source.contiguous(), t = target.contiguous(), m = matrix.contiguous(),
               weight = w.contiguous(), index = neighbor.contiguous(), own = center.contiguous();
  const Tensor scalars = at::empty({m.size(0), w.size(1)}, s.options());
  const Tensor rest = at::empty({m.size(0), m.size(1) - 1, w.size(1)}, s.options());
  AT_DISPATCH_FLOATING_TYPES(s.scalar_type(), "edge_product", [&] {
    auto a = edge_arguments<EdgeMatrixArguments, scalar_t>(m, weight);
    a.x = features_of_nodes<scalar_t>(s, t, index);
    a.out_edges = {pointer<scalar_t>(scalars), pointer<scalar_t>(rest)};
    const cuda::EdgeMatrixSizes sizes{t.size(0), s.size(0), m.size(0)};
    cuda::check_launch(cuda::launch_edge_product(a, own.const_data_ptr<int64_t>(), sizes,
                                                 cuda::current_queue(m)));
  });
  return {scalars, rest};
}

FourTensors edge_product_adjoint_cuda(const Tensor &g_scalars, const Tensor &g_rest,
                                      const Tensor &source, const Tensor &target,
                                      const Tensor &matrix, const Tensor &w, TDN_EDGE_PARAMETERS,
                                      bool need_nodes, bool need_matrix, bool need_w)
{
  check_edge_product(source, target, matrix, w, TDN_EDGE_ARGUMENTS);
  check_edge_product_gradient(g_scalars, g_rest, matrix, w);
  if (is_other_type(matrix))
    return edge_product_adjoint_tensor(g_scalars, g_rest, source, target, matrix, w,
                                       TDN_EDGE_ARGUMENTS, need_nodes, need_matrix, need_w);
  const CUDAGuard guard(matrix.device());
  const Tensor s = source.contiguous(), t = target.contiguous(), m = matrix.contiguous(),
               weight = w.contiguous(), g0 = g_scalars.contiguous(), g1 = g_rest.contiguous(),
               index = neighbor.contiguous(), own = center.contiguous();
  const Tensor grad_matrix = wanted(m, need_matrix), grad_w = wanted(weight, need_w);
  if (m.size(0) > 0)
    AT_DISPATCH_FLOATING_TYPES(s.scalar_type(), "edge_product_adjoint", [&] {
      auto a = edge_arguments<EdgeMatrixAdjointArguments, scalar_t>(m, weight);
      a.g = rows<scalar_t>(g0, g1);
      a.x = features_of_nodes<scalar_t>(s, t, index);
      a.grad_matrix = pointer<scalar_t>(grad_matrix);
      a.grad_w = pointer<scalar_t>(grad_w);
      const cuda::EdgeMatrixSizes sizes{t.size(0), s.size(0), m.size(0)};
      cuda::check_launch(cuda::launch_edge_matrix_adjoint(a, own.const_data_ptr<int64_t>(), sizes,
                                                          cuda::current_queue(m)));
    });
  if (!need_nodes) {
    const Tensor none = at::empty({0}, s.options());
    return {none, none, grad_matrix, grad_w};
  }
  return {matrix_sum(g0, g1, m, weight, neighbor_ptr.contiguous(), by_neighbor.contiguous(), true),
          matrix_sum(g0, g1, m, weight, center_ptr.contiguous(), Tensor(), true), grad_matrix,
          grad_w};
}

Tensor edge_message_cuda(const Tensor &scalars, const Tensor &rest, const Tensor &matrix,
                         const Tensor &w, const Tensor &center, const Tensor &center_ptr)
{
  check_edge_message(scalars, rest, matrix, w, center, center_ptr);
  if (is_other_type(matrix))
    return edge_message_tensor(scalars, rest, matrix, w, center, center_ptr);
  const CUDAGuard guard(matrix.device());
  return matrix_sum(scalars.contiguous(), rest.contiguous(), matrix.contiguous(), w.contiguous(),
                    center_ptr.contiguous(), Tensor(), false);
}

FourTensors edge_message_adjoint_cuda(const Tensor &g, const Tensor &scalars, const Tensor &rest,
                                      const Tensor &matrix, const Tensor &w, const Tensor &center,
                                      const Tensor &center_ptr, bool need_features,
                                      bool need_matrix, bool need_w)
{
  check_edge_message(scalars, rest, matrix, w, center, center_ptr);
  check_edge_message_gradient(g, matrix, w, center_ptr);
  if (is_other_type(matrix))
    return edge_message_adjoint_tensor(g, scalars, rest, matrix, w, center, center_ptr,
                                       need_features, need_matrix, need_w);
  const CUDAGuard guard(matrix.device());
  const Tensor x0 = scalars.contiguous(), x1 = rest.contiguous(), m = matrix.contiguous(),
               weight = w.contiguous(), gradient = g.contiguous(), own = center.contiguous();
  const Tensor grad0 = wanted(x0, need_features), grad1 = wanted(x1, need_features);
  const Tensor grad_matrix = wanted(m, need_matrix), grad_w = wanted(weight, need_w);
  if (m.size(0) > 0)
    AT_DISPATCH_FLOATING_TYPES(x0.scalar_type(), "edge_message_adjoint", [&] {
      auto a = edge_arguments<EdgeMatrixAdjointArguments, scalar_t>(m, weight);
      a.g_nodes = gradient.const_data_ptr<scalar_t>();
      a.x = features_of_edges<scalar_t>(x0, x1);
      a.grad_x = {pointer<scalar_t>(grad0), pointer<scalar_t>(grad1)};
      a.grad_matrix = pointer<scalar_t>(grad_matrix);
      a.grad_w = pointer<scalar_t>(grad_w);
      const cuda::EdgeMatrixSizes sizes{g.size(0), 0, m.size(0)};
      cuda::check_launch(cuda::launch_edge_matrix_adjoint(a, own.const_data_ptr<int64_t>(), sizes,
                                                          cuda::current_queue(m)));
    });
  return {grad0, grad1, grad_matrix, grad_w};
}

}    // namespace tdn
