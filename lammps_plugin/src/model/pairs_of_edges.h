// SPDX-License-Identifier: MIT

/* A graph for a model that takes positions. */

#ifndef TDN_PAIRS_OF_EDGES_H
#define TDN_PAIRS_OF_EDGES_H

#include "tdn_model.h"

#include <cstdint>
#include <numeric>
#include <vector>

namespace tdn {

/** Edges as pairs: all centers are at one place, and every edge has a row of its own. Only the
    differences within a pair matter. */
struct PairsOfEdges {
  std::vector<double> positions;
  std::vector<int32_t> center, other, node;
  std::vector<int64_t> begin;
  Pairs pairs;

  explicit PairsOfEdges(const Graph &graph) :
      positions(3 * graph.num_local, 0.0), center(graph.num_local), other(graph.num_edges),
      node(graph.num_local), begin(graph.num_local + 1, 0)
  {
    std::iota(center.begin(), center.end(), 0);
    std::iota(node.begin(), node.end(), 0);
    std::iota(other.begin(), other.end(), static_cast<int32_t>(graph.num_local));
    positions.insert(positions.end(), graph.edge_vec, graph.edge_vec + 3 * graph.num_edges);
    for (int64_t e = 0; e < graph.num_edges; e++) {
      begin[graph.edge_index[e] + 1]++;
      node.push_back(static_cast<int32_t>(graph.edge_index[graph.num_edges + e]));
    }
    std::partial_sum(begin.begin(), begin.end(), begin.begin());
    pairs = {positions.data(), static_cast<int64_t>(node.size()), center.data(), begin.data(),
             other.data(),     node.data(), graph.species, graph.num_local, graph.num_all};
  }
  PairsOfEdges(const PairsOfEdges &) = delete;
  PairsOfEdges &operator=(const PairsOfEdges &) = delete;
};

}    // namespace tdn

#endif
