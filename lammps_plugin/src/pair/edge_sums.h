/* -*- c++ -*- ----------------------------------------------------------
   SPDX-License-Identifier: GPL-2.0-only

   Pair style tdn for LAMMPS (https://www.lammps.org/): forces and virials of the edges, summed for
   each node.
------------------------------------------------------------------------- */

#ifndef LMP_TDN_EDGE_SUMS_H
#define LMP_TDN_EDGE_SUMS_H

#include <vector>

namespace tdn {
struct Graph;
}

namespace LAMMPS_NS {

struct EdgeSums {
  std::vector<double> force;       // [num_all, 3]
  std::vector<double> virial;      // [num_all, 6] half of each edge to each of its ends
  std::vector<double> centroid;    // [num_all, 9] all of an edge to the neighbor

  /** From the derivatives by the edge vectors, times scale: f_i += g, f_j -= g, and virials
      -r (x) g. The total virial is added to six values unless the pointer is null.

      An edge belongs to the energy of its center, so the centroid virial gives the heat flux. */
  void set(const tdn::Graph &graph, const double *gradient, double scale, double *total_virial,
           bool per_node, bool per_node_centroid);

  double memory_usage() const;
};

}    // namespace LAMMPS_NS

#endif
