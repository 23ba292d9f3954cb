#include "cp_message.h"

#include "cp_message_cuda_kernels.h"
#include "common/current_queue.h"

#include <ATen/Dispatch.h>

#include <tuple>

// Values of indices are checked by the kernels, since looking at them here would wait for the GPU.
// All else is checked by the implementation of shapes alone, which also allocates the results.

namespace tdn {
namespace {

using c10::cuda::CUDAGuard;

void check_row(int64_t rank, int64_t channels, int64_t degrees)
{
  constexpr int64_t limit = 1 << 30;
  TORCH_CHECK_VALUE(rank <= limit && channels <= limit && degrees <= limit &&
                        rank * channels <= limit && degrees * (rank + channels) <= limit,
                    "cp_message: a row of rank ", rank, ", ", channels, " channels and ", degrees,
                    " degrees is too long for a GPU; all products of two must be below 2^30");
}

// sum over the edges of each node of (b^T w) x[source]; `order` undefined if edges are sorted by
// node.
void gather(const Tensor &x, const Tensor &b, const Tensor &w, const Tensor &ptr,
            const Tensor &order, const Tensor &source, const Tensor &out)
{
  const Tensor x_ = x.contiguous(), b_ = b.contiguous(), w_ = w.contiguous();
  const Tensor ptr_ = ptr.contiguous(), source_ = source.contiguous();
  const Tensor order_ = order.defined() ? order.contiguous() : order;
  const int64_t rank = b_.size(2), channels = w_.size(2), degrees = b_.size(1);
  check_row(rank, channels, degrees);
  const cuda::Sizes sizes{ptr_.numel() - 1, x_.size(0), source_.numel()};
  AT_DISPATCH_FLOATING_TYPES(x_.scalar_type(), "cp_message", [&] {
    const GatherArguments<scalar_t> arguments{
        rank,
        channels,
        degrees,
        x_.const_data_ptr<scalar_t>(),
        b_.const_data_ptr<scalar_t>(),
        w_.const_data_ptr<scalar_t>(),
        ptr_.const_data_ptr<int64_t>(),
        order_.defined() ? order_.const_data_ptr<int64_t>() : nullptr,
        source_.const_data_ptr<int64_t>(),
        out.mutable_data_ptr<scalar_t>()};
    cuda::check_launch(cuda::launch_gather(arguments, sizes, cuda::current_queue(x_)));
  });
}

}    // namespace

Tensor cp_message_cuda(const Tensor &u, const Tensor &b, const Tensor &w, TDN_EDGE_PARAMETERS)
{
  const Tensor out = cp_message_meta(u, b, w, TDN_EDGE_ARGUMENTS);
  if (b.dim() == 2)    // harmonics have no kernels here
    return cp_message_cuda(u.expand({u.size(0), b.size(1), u.size(2)}),
                           factors_of_harmonics(b, w.size(1)), w, TDN_EDGE_ARGUMENTS);
  const CUDAGuard guard(out.device());
  gather(u, b, w, center_ptr, Tensor(), neighbor, out);
  return out;
}

Tensor cp_message_transposed_cuda(const Tensor &g, const Tensor &b, const Tensor &w,
                                  TDN_EDGE_PARAMETERS)
{
  const Tensor out = cp_message_transposed_meta(g, b, w, TDN_EDGE_ARGUMENTS);
  const CUDAGuard guard(out.device());
  gather(g, b, w, neighbor_ptr, by_neighbor, center, out);
  return out;
}

std::tuple<Tensor, Tensor> cp_message_edges_cuda(const Tensor &g, const Tensor &u, const Tensor &b,
                                                 const Tensor &w, TDN_EDGE_PARAMETERS, bool need_b,
                                                 bool need_w)
{
  const auto gradients = cp_message_edges_meta(g, u, b, w, TDN_EDGE_ARGUMENTS, need_b, need_w);
  const Tensor &grad_b = std::get<0>(gradients), &grad_w = std::get<1>(gradients);
  const CUDAGuard guard(b.device());
  const Tensor g_ = g.contiguous(), u_ = u.contiguous(), b_ = b.contiguous(), w_ = w.contiguous();
  const Tensor center_ = center.contiguous(), neighbor_ = neighbor.contiguous();
  const int64_t rank = b_.size(2), channels = w_.size(2), degrees = b_.size(1);
  check_row(rank, channels, degrees);
  const cuda::Sizes sizes{g_.size(0), u_.size(0), center_.numel()};
  AT_DISPATCH_FLOATING_TYPES(b_.scalar_type(), "cp_message", [&] {
    const EdgeArguments<scalar_t> arguments{rank,
                                            channels,
                                            degrees,
                                            g_.const_data_ptr<scalar_t>(),
                                            u_.const_data_ptr<scalar_t>(),
                                            b_.const_data_ptr<scalar_t>(),
                                            w_.const_data_ptr<scalar_t>(),
                                            center_.const_data_ptr<int64_t>(),
                                            neighbor_.const_data_ptr<int64_t>(),
                                            need_b ? grad_b.mutable_data_ptr<scalar_t>() : nullptr,
                                            need_w ? grad_w.mutable_data_ptr<scalar_t>() : nullptr};
    if (!need_b && !need_w) return;
    cuda::check_launch(cuda::launch_edges(arguments, sizes, cuda::current_queue(b_)));
  });
  return gradients;
}

}    // namespace tdn
