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
// Any device; sorts on the CPU.
EdgePointers sort_edges_tensor(const at::Tensor &edge_index, int64_t num_centres,
                               int64_t num_nodes);
EdgePointers sort_edges_meta(const at::Tensor &edge_index, c10::SymInt num_centres,
                             c10::SymInt num_nodes);

}    // namespace tdn

#endif
