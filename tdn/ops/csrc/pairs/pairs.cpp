#include "pair_tensors.h"

#include "exchange/exchange.h"

#include <ATen/Dispatch.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include <cmath>

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

// Both ends have half of a pair's energy, so that the edges i -> j and j -> i have the same one.
void pair_zbl_cpu(TDN_PAIR_PARAMETERS, const Tensor &number, const Tensor &pair_cutoff,
                  const Tensor &energy, at::TensorList sums)
{
  constexpr double half_coulomb = 0.5 * 14.399645478425668;
  constexpr double share[] = {0.18175, 0.50986, 0.28022, 0.02817};
  constexpr double decay[] = {3.19980, 0.94229, 0.40290, 0.20162};
  const Pairs pairs("pair_zbl", TDN_PAIR_ARGUMENTS);
  const PairList<double> list = pairs.list<double>({});
  const double *const z = number.const_data_ptr<double>();
  const double *const cutoffs = pair_cutoff.const_data_ptr<double>();
  const int64_t num_species = number.numel();
  pairs.each_center(8, [&](int64_t begin, int64_t end) {
    const PairSums out = sums_of_thread(sums);
    double *const energies = energy.mutable_data_ptr<double>();
    for (int64_t i = begin; i < end; ++i) {
      const double *const at = list.positions + 3 * static_cast<int64_t>(list.center[i]);
      for (int64_t k = list.ptr[i]; k < list.ptr[i + 1]; ++k) {
        const int64_t node_j = list.node[list.other[k]];
        if (node_j < 0) continue;
        const double *const to = list.positions + 3 * static_cast<int64_t>(list.other[k]);
        const double v[3] = {to[0] - at[0], to[1] - at[1], to[2] - at[2]};
        const double r = std::sqrt(v[0] * v[0] + v[1] * v[1] + v[2] * v[2]);
        const int64_t si = list.species[i], sj = list.species[node_j];
        const double cutoff = cutoffs[si * num_species + sj], y = r / cutoff;
        if (y >= 1) continue;
        const double per_length = (std::pow(z[si], 0.23) + std::pow(z[sj], 0.23)) / 0.46850;
        double screening = 0, slope = 0;
        for (int m = 0; m < 4; ++m) {
          const double term = share[m] * std::exp(-decay[m] * per_length * r);
          screening += term;
          slope -= decay[m] * per_length * term;
        }
        // the polynomial envelope with p = 6
        const double y5 = std::pow(y, 5), y6 = y5 * y;
        const double envelope = 1 - 28 * y6 + 48 * y6 * y - 21 * y6 * y * y;
        const double envelope_slope = -168 * y5 * (1 - y) * (1 - y) / cutoff;
        const double factor = half_coulomb * z[si] * z[sj] / r;
        energies[i] += factor * screening * envelope;
        const double derivative = factor *
            (slope * envelope + screening * envelope_slope - screening * envelope / r);
        // the edges from i and to i: twice the force; the edge to i is the one seen here
        for (int a = 0; a < 3; ++a) {
          const double g = derivative * v[a] / r;
          out.force[3 * i + a] += 2 * g;
          for (int b = 0; b < 3; ++b) {
            const double virial = -v[b] * g;
            out.virial[3 * a + b] += virial;
            if (!out.atom_virial) continue;
            out.atom_virial[9 * i + 3 * a + b] += virial;
            out.centroid[9 * i + 3 * a + b] += virial;
          }
        }
      }
    }
  });
}

bool exchanges(const Tensor &) { return get_exchange() != nullptr; }

void exchange_in_place(const Tensor &x, int64_t num_local)
{
  Exchange *const transport = get_exchange();
  const int64_t num_all = x.size(0);
  if (!transport) {
    TORCH_CHECK_VALUE(num_local == num_all, "exchange_: found ", num_all - num_local,
                      " ghost atoms, but no transport between processes is set");
    return;
  }
  TORCH_CHECK_VALUE(x.is_cpu() && x.is_contiguous(), "exchange_: x must be contiguous, on the CPU");
  int64_t width = 1;    // numbers per row, also for no rows
  for (int64_t d = 1; d < x.dim(); ++d) width *= x.size(d);
  transport->forward(x.mutable_data_ptr(), num_local, num_all, width,
                     x.scalar_type() == at::kDouble);
}

}    // namespace tdn
