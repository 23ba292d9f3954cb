#include "sorted_edges.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/aminmax.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/searchsorted.h>
#include <ATen/ops/sort.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <optional>
#include <vector>

namespace tdn {
namespace {

void check_edge_index(const at::Tensor &edge_index)
{
  TORCH_CHECK_VALUE(edge_index.dim() == 2 && edge_index.sym_size(0) == 2 &&
                        edge_index.scalar_type() == at::kLong,
                    "sort_edges: edge_index must be an int64 tensor [2, E], found shape ",
                    edge_index.sym_sizes(), " and ", edge_index.scalar_type());
}

}    // namespace

EdgePointers sort_edges_cpu(const at::Tensor &edge_index, int64_t num_centers, int64_t num_nodes)
{
  check_edge_index(edge_index);
  TORCH_CHECK_VALUE(num_centers >= 0 && num_nodes >= 0,
                    "sort_edges: num_centers and num_nodes must not be negative, found ",
                    num_centers, " and ", num_nodes);
  const at::Tensor edges = edge_index.contiguous();
  const int64_t num_edges = edges.size(1);
  const int64_t *center = edges.const_data_ptr<int64_t>();
  const int64_t *neighbor = center + num_edges;
  at::Tensor center_ptr = at::zeros({num_centers + 1}, edges.options());
  at::Tensor neighbor_ptr = at::zeros({num_nodes + 1}, edges.options());
  at::Tensor by_neighbor = at::empty({num_edges}, edges.options());
  int64_t *center_end = center_ptr.mutable_data_ptr<int64_t>();
  int64_t *neighbor_end = neighbor_ptr.mutable_data_ptr<int64_t>();

  for (int64_t e = 0; e < num_edges; ++e) {
    const int64_t i = center[e], j = neighbor[e];
    TORCH_CHECK_VALUE(e == 0 || center[e - 1] <= i,
                      "sort_edges: edge_index[0] (centers) must be non-decreasing, found ",
                      center[e - 1], " before ", i, "; sort the edges by center first");
    TORCH_CHECK_VALUE(i >= 0 && i < num_centers, "sort_edges: centers must lie in 0..",
                      num_centers - 1, ", found ", i);
    TORCH_CHECK_VALUE(j >= 0 && j < num_nodes, "sort_edges: neighbors must lie in 0..",
                      num_nodes - 1, ", found ", j);
    ++center_end[i + 1];
    ++neighbor_end[j + 1];
  }
  for (int64_t i = 0; i < num_centers; ++i) center_end[i + 1] += center_end[i];
  for (int64_t j = 0; j < num_nodes; ++j) neighbor_end[j + 1] += neighbor_end[j];

  std::vector<int64_t> next(neighbor_end, neighbor_end + num_nodes);
  int64_t *order = by_neighbor.mutable_data_ptr<int64_t>();
  for (int64_t e = 0; e < num_edges; ++e) order[next[neighbor[e]]++] = e;
  return {center_ptr, by_neighbor, neighbor_ptr};
}

EdgePointers sort_edges_tensor(const at::Tensor &edge_index, int64_t num_centers,
                               int64_t num_nodes)
{
  check_edge_index(edge_index);
  const int64_t num_edges = edge_index.size(1);
  const at::Tensor center = edge_index.select(0, 0).contiguous();
  const at::Tensor neighbor = edge_index.select(0, 1);
  bool good = num_centers >= 0 && num_nodes >= 0;
  if (num_edges > 0 && good) {
    const at::Tensor step = center.slice(0, 1) - center.slice(0, 0, num_edges - 1);
    const auto [least, largest] = at::aminmax(neighbor);
    // what decides, read from the device at once
    const at::Tensor bounds = at::stack({at::cat({step, step.new_zeros({1})}).min(), center[0],
                                         num_centers - 1 - center[num_edges - 1], least,
                                         num_nodes - 1 - largest});
    good = bounds.min().item<int64_t>() >= 0;
  }
  if (!good) sort_edges_cpu(edge_index.cpu(), num_centers, num_nodes);    // says what is wrong
  const auto [sorted, by_neighbor] = at::sort(neighbor, /*stable=*/std::make_optional(true), 0);
  const auto pointers = [&](const at::Tensor &nodes, int64_t count) {
    return at::searchsorted(nodes, at::arange(count + 1, edge_index.options()));
  };
  return {pointers(center, num_centers), by_neighbor, pointers(sorted, num_nodes)};
}

EdgePointers sort_edges_meta(const at::Tensor &edge_index, c10::SymInt num_centers,
                             c10::SymInt num_nodes)
{
  check_edge_index(edge_index);
  const auto options = edge_index.options();
  return {at::empty_symint({num_centers + 1}, options),
          at::empty_symint({edge_index.sym_size(1)}, options),
          at::empty_symint({num_nodes + 1}, options)};
}

void check_edge_indices(const char *name, const at::Tensor &center, const at::Tensor &neighbor,
                        const at::Tensor &center_ptr, const at::Tensor &by_neighbor,
                        const at::Tensor &neighbor_ptr)
{
  const auto in_range = [](const at::Tensor &x, int64_t size) {
    const int64_t *p = x.const_data_ptr<int64_t>();
    bool good = true;
    for (int64_t k = 0; k < x.numel(); ++k) good &= p[k] >= 0 && p[k] < size;
    return good;
  };
  const auto is_pointer = [](const at::Tensor &x, int64_t size) {
    const int64_t *p = x.const_data_ptr<int64_t>();
    const int64_t last = x.numel() - 1;
    return p[0] == 0 && p[last] == size && std::is_sorted(p, p + last + 1);
  };
  const int64_t num_edges = center.numel();
  TORCH_CHECK_VALUE(
      in_range(center, center_ptr.numel() - 1) && in_range(neighbor, neighbor_ptr.numel() - 1) &&
          in_range(by_neighbor, num_edges) && is_pointer(center_ptr, num_edges) &&
          is_pointer(neighbor_ptr, num_edges),
      name, ": edges have indices out of range; take them from sort_edges");
}

}    // namespace tdn
