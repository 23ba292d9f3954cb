#include "pair_search_tensors.h"

#include <ATen/Parallel.h>

#include <algorithm>

namespace tdn {
namespace {

// Without branches: whether an atom is near is hard to guess.

void count_pairs(const PairSearch &a, int64_t i)
{
  const double *const place = a.positions + 3 * i;
  int64_t count = -1;    // a center finds itself, too
  a.grid.each_range(place, [&](int64_t begin, int64_t end) {
    for (int64_t k = begin; k < end; ++k) count += a.grid.is_near(place, k);
  });
  a.ptr[i + 1] = count;
}

void write_pairs(const PairSearch &a, int64_t i)
{
  constexpr int64_t at_once = 64;
  int32_t found[at_once];
  const double *const place = a.positions + 3 * i;
  int32_t *const first = a.other + a.ptr[i], *out = first;
  a.grid.each_range(place, [&](int64_t begin, int64_t end) {
    for (; begin < end; begin += at_once) {
      int64_t count = 0;
      for (int64_t k = begin; k < std::min(begin + at_once, end); ++k) {
        found[count] = a.grid.row[k];
        count += int64_t(a.grid.is_near(place, k)) & int64_t(a.grid.row[k] != i);
      }
      out = std::copy_n(found, count, out);
    }
  });
  for (const int32_t *k = first; k < out; ++k)
    __atomic_store_n(a.reached + *k, uint8_t(1), __ATOMIC_RELAXED);    // by several threads
}

}    // namespace

std::tuple<Tensor, Tensor, Tensor> find_pairs_cpu(const Tensor &positions, int64_t num_centers,
                                                  double distance)
{
  return find_pairs(positions, num_centers, distance, [&](const PairSearch &search) {
    at::parallel_for(0, num_centers, 64, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i)
        search.other ? write_pairs(search, i) : count_pairs(search, i);
    });
  });
}

}    // namespace tdn
