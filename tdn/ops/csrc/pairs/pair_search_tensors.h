// Cells of atoms as tensors, made by PyTorch's operators wherever the positions are.

#ifndef TDN_PAIR_SEARCH_TENSORS_H
#define TDN_PAIR_SEARCH_TENSORS_H

#include "pair_search.h"
#include "pairs.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/amax.h>
#include <ATen/ops/amin.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cumsum.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/searchsorted.h>
#include <ATen/ops/sort.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>

#include <cmath>
#include <optional>
#include <tuple>

namespace tdn {

// Rows sorted into cells a little wider than the distance over CellGrid::reach. Rows of one cell
// keep their order. Where few atoms are far apart cells are wider, so that there are not many more
// of them than atoms.
struct SortedCells {
  Tensor places, row, first;    // places: [3, rows]
  CellGrid grid;

  SortedCells(const Tensor &positions, double distance)
  {
    const int64_t rows = positions.size(0);
    const Tensor bounds =
        at::stack({positions.amin(0), positions.amax(0)}).cpu();    // waits for a GPU
    const double *const low = bounds.const_data_ptr<double>(), *const high = low + 3;
    TORCH_CHECK_VALUE(std::isfinite(low[0] + low[1] + low[2]) &&
                          std::isfinite(high[0] + high[1] + high[2]),
                      "find_pairs: positions must be finite");
    // rounding must not move an atom out of reach
    double width = distance * (1 + 1e-6) / CellGrid::reach;
    const auto cells_along = [&](int a) { return std::floor((high[a] - low[a]) / width) + 1; };
    while (cells_along(0) * cells_along(1) * cells_along(2) > 2.0 * static_cast<double>(rows) + 64)
      width *= 1.25;
    grid.cells_per_length = 1 / width;
    grid.distance_squared = distance * distance;
    for (int a = 0; a < 3; ++a) {
      grid.low[a] = low[a];
      grid.count[a] = static_cast<int64_t>((high[a] - low[a]) * grid.cells_per_length) + 1;
    }

    const Tensor cells =
        ((positions - bounds[0].to(positions.device())) * grid.cells_per_length).to(at::kInt);
    const Tensor cell = (cells.select(1, 0) * grid.count[1] + cells.select(1, 1)) * grid.count[2] +
        cells.select(1, 2);
    const auto [sorted, order] = at::sort(cell, /*stable=*/std::make_optional(true), 0);
    const int64_t num_cells = grid.count[0] * grid.count[1] * grid.count[2];
    first = at::searchsorted(sorted, at::arange(num_cells + 1, cell.options()), /*out_int32=*/true);
    row = order.to(at::kInt);
    places = positions.index_select(0, order).t().contiguous();
    grid.x = places.const_data_ptr<double>();
    grid.y = grid.x + rows;
    grid.z = grid.y + rows;
    grid.row = row.const_data_ptr<int32_t>();
    grid.first = first.const_data_ptr<int32_t>();
  }
};

// `work(search)` does the search for all centers.
template <typename F>
std::tuple<Tensor, Tensor, Tensor> find_pairs(const Tensor &positions, int64_t num_centers,
                                              double distance, const F &work)
{
  TORCH_CHECK_VALUE(positions.scalar_type() == at::kDouble && positions.dim() == 2 &&
                        positions.size(1) == 3 && positions.is_contiguous(),
                    "find_pairs: positions must be contiguous float64 [rows, 3], found ",
                    positions.scalar_type(), " ", positions.sizes());
  TORCH_CHECK_VALUE(num_centers >= 0 && num_centers <= positions.size(0),
                    "find_pairs: num_centers must lie in 0..", positions.size(0), ", found ",
                    num_centers);
  TORCH_CHECK_VALUE(std::isfinite(distance) && distance > 0,
                    "find_pairs: the distance must be positive, found ", distance);
  const auto options = positions.options();
  const Tensor counts = at::zeros({num_centers + 1}, options.dtype(at::kLong));
  const Tensor reached = at::zeros({positions.size(0)}, options.dtype(at::kByte));
  if (num_centers == 0) return {counts, at::empty({0}, options.dtype(at::kInt)), reached};

  const SortedCells cells(positions, distance);
  PairSearch search{cells.grid, positions.const_data_ptr<double>(),
                    counts.mutable_data_ptr<int64_t>(), nullptr,
                    reached.mutable_data_ptr<uint8_t>()};
  work(search);
  const Tensor ptr = at::cumsum(counts, 0);
  const Tensor other = at::empty({ptr[num_centers].item<int64_t>()}, options.dtype(at::kInt));
  search.ptr = ptr.mutable_data_ptr<int64_t>();
  search.other = other.mutable_data_ptr<int32_t>();
  if (other.numel() > 0) work(search);
  return {ptr, other, reached};
}

}    // namespace tdn

#endif
