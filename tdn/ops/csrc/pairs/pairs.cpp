#include "pair_tensors.h"

#include <ATen/Dispatch.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

namespace tdn {
namespace {

void check_range(const char *what, const Tensor &values, int64_t least, int64_t end)
{
  int32_t low = static_cast<int32_t>(least), high = low;
  const int32_t *const v = values.const_data_ptr<int32_t>();
  for (int64_t k = 0; k < values.numel(); ++k) {
    low = std::min(low, v[k]);
    high = std::max(high, v[k]);
  }
  TORCH_CHECK_VALUE(low >= least && (values.numel() == 0 || high < end), "pairs: ", what,
                    " must lie in ", least, "..", end - 1, ", found ", low, " and ", high);
}

}    // namespace

std::vector<Tensor> pair_sums_cpu(TDN_PAIR_PARAMETERS, bool per_atom)
{
  const Pairs pairs("pair_sums", TDN_PAIR_ARGUMENTS);
  const int64_t n = pairs.num_centers(), num_rows = positions.size(0);
  check_range("rows of centers", center, 0, num_rows);
  check_range("rows of other atoms", other, 0, num_rows);
  check_range("nodes of rows", node, -1, pairs.num_nodes());
  const int64_t *const start = ptr.const_data_ptr<int64_t>();
  bool sorted = start[0] >= 0 && start[n] <= other.numel();
  for (int64_t i = 0; i < n; ++i) sorted &= start[i] <= start[i + 1];
  TORCH_CHECK_VALUE(sorted, "pairs: ptr must not decrease and lie in 0..", other.numel());

  const int64_t threads = at::get_num_threads(), atoms = per_atom ? n : 0;
  const auto zeros = [&](at::IntArrayRef shape) { return at::zeros(shape, positions.options()); };
  return {zeros({threads, n, 3}), zeros({threads, 9}), zeros({threads, atoms, 9}),
          zeros({threads, atoms, 9})};
}

int64_t pair_row_size_cpu(const Tensor &like, int64_t rank, int64_t channels)
{
  int64_t size = 0;
  AT_DISPATCH_FLOATING_TYPES(like.scalar_type(), "pair_row_size", [&] {
    const auto &kernels = Kernels<scalar_t>::convolution();
    const int64_t blocks = (channels + kernels.width - 1) / kernels.width;
    size = blocks * kernels.padded_rank(rank) * kernels.width;
  });
  return size;
}

void pair_project_cpu(const Tensor &x, const Tensor &matrix, int64_t first, const Tensor &out)
{
  AT_DISPATCH_FLOATING_TYPES(x.scalar_type(), "pair_project", [&] {
    using T = scalar_t;
    const Tensor factors[] = {x, matrix, matrix, matrix};
    const double numbers[] = {1, 1};
    const EdgeLayer<T> layer(factors, x.size(2), numbers);
    const int64_t row = x.size(1) * x.size(2), size = layer.row_size();
    at::parallel_for(first, x.size(0), grain(x.size(1) * size), [&](int64_t begin, int64_t end) {
      layer.project(x.const_data_ptr<T>() + begin * row, layer.input1, end - begin,
                    out.mutable_data_ptr<T>() + begin * size);
    });
  });
}

void pair_density_ghosts_cpu(TDN_PAIR_PARAMETERS, const Tensor &table,
                             at::ArrayRef<double> numbers, const Tensor &gradients,
                             at::TensorList sums)
{
  const Pairs pairs("pair_density_ghosts", TDN_PAIR_ARGUMENTS);
  const int64_t n = pairs.num_centers(), ghosts = pairs.num_nodes() - n;
  if (ghosts == 0) return;
  AT_DISPATCH_FLOATING_TYPES(table.scalar_type(), "pair_density_ghosts", [&] {
    using T = scalar_t;
    const EdgeLayer<T> edges(table, gradients.size(2), numbers);
    const Tensor blocked = at::empty({ghosts, edges.row_size()}, gradients.options());
    T *const to = blocked.mutable_data_ptr<T>();
    const T *const from = gradients.const_data_ptr<T>() + n * gradients.stride(0);
    at::parallel_for(0, ghosts, grain(edges.row_size()), [&](int64_t begin, int64_t end) {
      edges.to_blocks(from + begin * gradients.stride(0), end - begin,
                      to + begin * edges.row_size());
    });
    pairs.each_center(edges.work_per_pair(), [&](int64_t begin, int64_t end) {
      PairArguments<T> a = edges.arguments(pairs);
      a.g = to;
      a.sums = sums_of_thread(sums);
      Kernels<T>::density().density_ghosts(a, thread_scratch<T>(edges.scratch_size()), begin, end);
    });
  });
}

}    // namespace tdn
