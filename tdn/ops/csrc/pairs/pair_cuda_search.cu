#include "common/launch.h"
#include "pair_search.h"

// A thread takes a center. Those of a warp read the same cells if atoms that are close in space are
// close in memory, which LAMMPS sees to.

namespace tdn::cuda {
namespace {

struct Search {
  PairSearch a;

  TDN_DEVICE void operator()(int64_t i) const
  {
    const double *const place = a.positions + 3 * i;
    int64_t count = 0;
    int32_t *const out = a.other ? a.other + a.ptr[i] : nullptr;
    a.grid.each_range(place, [&](int64_t begin, int64_t end) {
      for (int64_t k = begin; k < end; ++k) {
        const int32_t row = a.grid.row[k];
        if (row == i || !a.grid.is_near(place, k)) continue;
        if (out) {
          out[count] = row;
          a.reached[row] = 1;    // by any number of threads
        }
        ++count;
      }
    });
    if (!out) a.ptr[i + 1] = count;
  }
};

}    // namespace

int launch_search(const PairSearch &search, int64_t num_centers, const Queue &queue)
{
  return launch_threads(Search{search}, num_centers, queue);
}

}    // namespace tdn::cuda
