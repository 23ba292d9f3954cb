// Lists of pairs and the edges of a layer on a GPU as tensors, and the structures that point to
// them.

#ifndef TDN_PAIR_CUDA_TENSORS_H
#define TDN_PAIR_CUDA_TENSORS_H

#include "pair_cuda_kernels.h"
#include "pair_list_tensors.h"
#include "common/current_queue.h"

#include <ATen/Dispatch.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/empty.h>

#include <algorithm>

namespace tdn {

inline int64_t pair_nodes_at_once = 1 << 14;    // tests lower it

struct DeviceList : PairListTensors {
  c10::cuda::CUDAGuard guard;
  at::AutoDispatchBelowADInplaceOrView below;    // no derivatives are recorded

  DeviceList(const char *name, TDN_PAIR_PARAMETERS) :
      PairListTensors(name, TDN_PAIR_ARGUMENTS), guard(positions.device())
  {
  }

  // function(first, count) for all centers, some at a time
  template <typename F> void each_part(const F &function) const
  {
    for (int64_t first = 0; first < num_centers(); first += pair_nodes_at_once)
      function(first, std::min(pair_nodes_at_once, num_centers() - first));
  }
};

template <typename T> const T *read(const Tensor &x)
{
  return x.defined() && x.numel() > 0 ? x.const_data_ptr<T>() : nullptr;
}

template <typename T> T *written(const Tensor &x)
{
  return x.defined() && x.numel() > 0 ? x.mutable_data_ptr<T>() : nullptr;
}

inline cuda::CenterSums center_sums(at::TensorList sums)
{
  return {written<double>(sums[0]), written<double>(sums[1]), written<double>(sums[3])};
}

// The rows [first, first + count) of an array [>= n, ...].
inline Tensor part(const Tensor &x, int64_t first, int64_t count)
{
  return x.narrow(0, first, count);
}

// x [n, rows_in, C] -> out [n, rows_out, C] with matrix [rows_in, rows_out], or its transpose.
inline void project(const Tensor &x, const Tensor &matrix, bool transposed, const Tensor &out)
{
  if (x.size(0) == 0 || x.size(2) == 0) return;
  const Tensor from = x.contiguous(), factors = matrix.contiguous();
  const int64_t columns = factors.size(1);
  AT_DISPATCH_FLOATING_TYPES(x.scalar_type(), "pairs", [&] {
    const cuda::PairProjection<scalar_t> a{from.size(0),
                                           from.size(1),
                                           factors.size(transposed ? 0 : 1),
                                           from.size(2),
                                           transposed ? 1 : columns,
                                           transposed ? columns : 1,
                                           from.const_data_ptr<scalar_t>(),
                                           factors.const_data_ptr<scalar_t>(),
                                           out.mutable_data_ptr<scalar_t>()};
    cuda::check_launch(cuda::launch_projection(a, cuda::current_queue(from)));
  });
}

// The edges of a layer.
struct Edges {
  bool first;    // its neighbors are known by their species
  Tensor table, input1, harmonics, output;
  int64_t l_max, components, rank, channels;
  double r_max, stretch;

  Edges(at::TensorList edge, int64_t channels, at::ArrayRef<double> numbers) :
      first(edge.size() == 1), table(edge[0].contiguous()), channels(channels), r_max(numbers[0]),
      stretch(numbers[1])
  {
    if (first) {
      components = rank = table.size(4) * table.size(4);
    } else {
      input1 = edge[1].contiguous();
      harmonics = edge[2].contiguous();
      output = edge[3].contiguous();
      components = harmonics.size(0);
      rank = harmonics.size(1);
    }
    l_max = 0;
    while ((l_max + 1) * (l_max + 1) < components) ++l_max;
  }

  template <typename T> cuda::PairWalk<T> walk(const DeviceList &list) const
  {
    cuda::PairWalk<T> a{};
    a.l_max = l_max;
    a.rank = rank;
    a.channels = channels;
    a.pairs = list.list<T>({table.const_data_ptr<T>(), table.size(0), table.size(2), table.size(4),
                            table.size(5) - 1, r_max, stretch});
    a.num_rows = list.positions.size(0);
    a.num_pairs = list.other.numel();
    a.count = list.num_centers();
    a.harmonics = first ? nullptr : harmonics.const_data_ptr<T>();
    return a;
  }

  Tensor empty(int64_t count, int64_t rows) const
  {
    return at::empty({count, rows, channels}, table.options());
  }

  // [count, D, C] of the centers from `begin` on
  Tensor messages(const DeviceList &list, const Tensor &u, int64_t begin, int64_t count) const
  {
    const Tensor ranked = empty(count, rank);
    AT_DISPATCH_FLOATING_TYPES(table.scalar_type(), "pairs", [&] {
      auto a = walk<scalar_t>(list);
      a.first = begin;
      a.count = count;
      a.u = first ? nullptr : read<scalar_t>(u);
      a.out = written<scalar_t>(ranked);
      cuda::check_launch(cuda::launch_pairs(a, cuda::current_queue(table)));
    });
    if (first) return ranked;
    const Tensor out = empty(count, output.size(0));
    project(ranked, output, true, out);
    return out;
  }

  // Gradient of the features [count, D, C] of the centers from `begin` on, and forces.
  Tensor adjoint(const DeviceList &list, const Tensor &u, const Tensor &ranked, int64_t begin,
                 int64_t count, at::TensorList sums) const
  {
    const Tensor gradient = empty(count, rank);
    AT_DISPATCH_FLOATING_TYPES(table.scalar_type(), "pairs", [&] {
      auto a = walk<scalar_t>(list);
      a.first = begin;
      a.count = count;
      a.u = read<scalar_t>(u);
      a.g = read<scalar_t>(ranked);
      a.out = written<scalar_t>(gradient);
      a.outgoing = true;
      a.incoming_end = list.num_nodes();
      a.sums = center_sums(sums);
      cuda::check_launch(cuda::launch_pairs_adjoint(a, cuda::current_queue(table)));
    });
    const Tensor out = empty(count, input1.size(0));
    project(gradient, input1, true, out);
    return out;
  }

  // Forces by a first layer from the gradients of the messages of all nodes, or of ghosts alone.
  void density_adjoint(const DeviceList &list, const Tensor &g, bool from_ghosts,
                       at::TensorList sums) const
  {
    AT_DISPATCH_FLOATING_TYPES(table.scalar_type(), "pairs", [&] {
      auto a = walk<scalar_t>(list);
      a.g = read<scalar_t>(g);
      a.outgoing = !from_ghosts;
      a.incoming_begin = from_ghosts ? list.num_centers() : 0;
      a.incoming_end = from_ghosts ? list.num_nodes() : list.num_centers();
      a.sums = center_sums(sums);
      cuda::check_launch(cuda::launch_pairs_adjoint(a, cuda::current_queue(table)));
    });
  }
};

}    // namespace tdn

#endif
