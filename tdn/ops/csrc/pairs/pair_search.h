// Pairs of atoms within a distance of each other, found in cells: plain pointers, no PyTorch; the
// same for processors and GPUs.

#ifndef TDN_PAIR_SEARCH_H
#define TDN_PAIR_SEARCH_H

#include "common/queue.h"

#include <cstdint>

#ifdef __CUDACC__
#define TDN_SEARCH __device__ __forceinline__
#else
#define TDN_SEARCH inline
#endif

namespace tdn {

// Rows in the order of the cells that they are in; cells of the same x and y follow each other.
struct CellGrid {
  static constexpr int reach = 2;    // a distance is at most as long as so many cells
  const double *x, *y, *z;           // [rows]
  const int32_t *row;                // [rows] the number of each outside this order
  const int32_t *first;              // [cells + 1] first row of each cell
  double low[3], cells_per_length;
  int64_t count[3];                  // of cells
  double distance_squared;

  // function(begin, end) for the rows, in the order of cells, of all cells in reach of a place.
  template <typename F> TDN_SEARCH void each_range(const double *place, const F &function) const
  {
    int64_t begin[3], end[3];
    for (int a = 0; a < 3; ++a) {
      const auto cell = static_cast<int64_t>((place[a] - low[a]) * cells_per_length);
      begin[a] = cell > reach ? cell - reach : 0;
      end[a] = cell + reach < count[a] ? cell + reach + 1 : count[a];
    }
    for (int64_t i = begin[0]; i < end[0]; ++i)
      for (int64_t j = begin[1]; j < end[1]; ++j) {
        const int32_t *const column = first + (i * count[1] + j) * count[2];
        function(int64_t(column[begin[2]]), int64_t(column[end[2]]));
      }
  }

  // Pairs are counted, then written, and both must find the same: so rounding must be the same, and
  // products are not fused with sums here (see CMakeLists.txt and cuda.cmake).
  TDN_SEARCH bool is_near(const double *place, int64_t k) const
  {
    const double dx = x[k] - place[0], dy = y[k] - place[1], dz = z[k] - place[2];
    return dx * dx + dy * dy + dz * dz <= distance_squared;
  }
};

// What is searched, and where results go: first the numbers of pairs, then these.
struct PairSearch {
  CellGrid grid;
  const double *positions;    // [rows, 3] in the usual order; centers come first
  int64_t *ptr;               // [centers + 1] numbers behind a zero; then the sums of them
  int32_t *other;             // [pairs]; null: count
  uint8_t *reached;           // [rows] 1 for the rows that are in a pair
};

namespace cuda {
// Enqueues the work on all centers and returns a cudaError_t.
int launch_search(const PairSearch &search, int64_t num_centers, const Queue &queue);
}    // namespace cuda

}    // namespace tdn

#endif
