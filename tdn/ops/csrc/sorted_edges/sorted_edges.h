// Walking the edges of a graph from both ends.

#ifndef TDN_EDGES_H
#define TDN_EDGES_H

#include <ATen/core/Tensor.h>

#include <tuple>

namespace tdn {

// (center_ptr [num_centers + 1], by_neighbor [E], neighbor_ptr [num_nodes + 1]) of edges [2, E]
// sorted by center; `by_neighbor` is the stable order by neighbor.
using EdgePointers = std::tuple<at::Tensor, at::Tensor, at::Tensor>;

EdgePointers sort_edges_cpu(const at::Tensor &edge_index, int64_t num_centers, int64_t num_nodes);
// Any device, where the edges stay; waits once for the check of indices.
EdgePointers sort_edges_tensor(const at::Tensor &edge_index, int64_t num_centers,
                               int64_t num_nodes);
EdgePointers sort_edges_meta(const at::Tensor &edge_index, c10::SymInt num_centers,
                             c10::SymInt num_nodes);

// The kernels trust their indices, so hand-made edges must not lead outside the arrays. All on the
// CPU and contiguous.
void check_edge_indices(const char *name, const at::Tensor &center, const at::Tensor &neighbor,
                        const at::Tensor &center_ptr, const at::Tensor &by_neighbor,
                        const at::Tensor &neighbor_ptr);

}    // namespace tdn

#endif
