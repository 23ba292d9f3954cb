// Threads share edges (and the rows of nodes), not nodes.

#ifndef TDN_PARALLEL_H
#define TDN_PARALLEL_H

#include <ATen/Parallel.h>

#include <algorithm>

namespace tdn {

// Multiplications that are worth a thread.
constexpr int64_t grain_work = 1 << 16;

inline int64_t grain(int64_t work_per_item)
{
  return std::max<int64_t>(1, grain_work / std::max<int64_t>(1, work_per_item));
}

// Call `function(begin, end)` for ranges of nodes with equal work. Node n, whose edges are
// ptr[n]..ptr[n + 1], starts at work ptr[n] + n and belongs to the thread whose interval has that.
template <typename F>
void parallel_nodes(const int64_t *ptr, int64_t num_nodes, int64_t work_per_edge, const F &function)
{
  const auto node_at = [ptr, num_nodes](int64_t work) {
    int64_t low = 0, high = num_nodes;
    while (low < high) {
      const int64_t middle = (low + high) / 2;
      if (ptr[middle] + middle < work)
        low = middle + 1;
      else
        high = middle;
    }
    return low;
  };
  at::parallel_for(0, ptr[num_nodes] + num_nodes, grain(work_per_edge),
                   [&](int64_t begin, int64_t end) { function(node_at(begin), node_at(end)); });
}

}    // namespace tdn

#endif
