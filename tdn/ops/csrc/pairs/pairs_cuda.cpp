#include "pairs.h"

#include "pair_cuda_tensors.h"

#include <ATen/ops/zeros.h>

// Values of indices are checked by the kernels, since looking at them here would wait for the GPU.

namespace tdn {

std::vector<Tensor> pair_sums_cuda(TDN_PAIR_PARAMETERS, bool per_atom)
{
  const DeviceList list("pair_sums", TDN_PAIR_ARGUMENTS);
  const int64_t n = list.num_centers(), atoms = per_atom ? n : 0;
  const auto zeros = [&](at::IntArrayRef shape) { return at::zeros(shape, positions.options()); };
  // each center has a virial of its own, half of every edge at each of its ends
  const Tensor virial = zeros({n, 9});
  return {zeros({1, n, 3}), virial, virial.narrow(0, 0, atoms).unsqueeze(0), zeros({1, atoms, 9})};
}

int64_t pair_row_size_cuda(const Tensor &, int64_t rank, int64_t channels)
{
  return rank * channels;
}

void pair_project_cuda(const Tensor &x, const Tensor &matrix, int64_t first, const Tensor &out)
{
  const c10::cuda::CUDAGuard guard(x.device());
  const int64_t count = x.size(0) - first;
  const Tensor rows = out.view({out.size(0), matrix.size(1), x.size(2)});
  project(part(x, first, count), matrix, false, part(rows, first, count));
}

void pair_density_ghosts_cuda(TDN_PAIR_PARAMETERS, const Tensor &table,
                              at::ArrayRef<double> numbers, const Tensor &gradients,
                              at::TensorList sums)
{
  const DeviceList list("pair_density_ghosts", TDN_PAIR_ARGUMENTS);
  if (list.num_nodes() == list.num_centers()) return;
  Edges(table, gradients.size(2), numbers).density_adjoint(list, gradients, true, sums);
}

}    // namespace tdn
