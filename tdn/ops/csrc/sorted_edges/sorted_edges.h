// Walking the edges of a graph from both ends.

#ifndef TDN_EDGES_H
#define TDN_EDGES_H

#include <ATen/core/Tensor.h>

#include <tuple>

namespace tdn {

// (centre_ptr [num_centres + 1], transpose [E], neighbour_ptr [num_nodes + 1]) of edges [2, E]
// sorted by centre; `transpose` is the stable order by neighbour.
using EdgePointers = std::tuple<at::Tensor, at::Tensor, at::Tensor>;

EdgePointers sort_edges_cpu(const at::Tensor &edge_index, int64_t num_centres, int64_t num_nodes);
// Any device, where the edges stay; waits once for the check of indices.
EdgePointers sort_edges_tensor(const at::Tensor &edge_index, int64_t num_centres,
                               int64_t num_nodes);
EdgePointers sort_edges_meta(const at::Tensor &edge_index, c10::SymInt num_centres,
                             c10::SymInt num_nodes);

// The kernels trust their indices, so hand-made edges must not lead outside the arrays. All on the
// CPU and contiguous.
void check_edge_indices(const char *name, const at::Tensor &centre, const at::Tensor &neighbour,
                        const at::Tensor &centre_ptr, const at::Tensor &transpose,
                        const at::Tensor &neighbour_ptr);

}    // namespace tdn

#endif
