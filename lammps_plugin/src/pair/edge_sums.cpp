/* ----------------------------------------------------------------------
   SPDX-License-Identifier: GPL-2.0-only

   Pair style tdn for LAMMPS (https://www.lammps.org/): forces and virials of the edges, summed for
   each node.
------------------------------------------------------------------------- */

#include "edge_sums.h"

#include "buffers.h"

#include "model/tdn_model.h"

using namespace LAMMPS_NS;

/* ---------------------------------------------------------------------- */

void EdgeSums::set(const tdn::Graph &graph, const double *gradient, double scale,
                   double *total_virial, bool per_node, bool per_node_centroid)
{
  clear_rows(force, 3 * graph.num_all);
  if (per_node) clear_rows(virial, 6 * graph.num_all);
  if (per_node_centroid) clear_rows(centroid, 9 * graph.num_all);
  const bool virials = total_virial || per_node || per_node_centroid;

  const int64_t *const centers = graph.edge_index;
  const int64_t *const senders = graph.edge_index + graph.num_edges;
  for (int64_t e = 0; e < graph.num_edges; e++) {
    const int64_t i = centers[e], j = senders[e];
    const double *const r = graph.edge_vec + 3 * e;
    const double g[3] = {scale * gradient[3 * e], scale * gradient[3 * e + 1],
                         scale * gradient[3 * e + 2]};
    for (int a = 0; a < 3; a++) {
      force[3 * i + a] += g[a];
      force[3 * j + a] -= g[a];
    }
    if (!virials) continue;

    // order of LAMMPS: xx yy zz xy xz yz; the sum is symmetric, single terms are not
    const double v[6] = {-r[0] * g[0],
                         -r[1] * g[1],
                         -r[2] * g[2],
                         -0.5 * (r[0] * g[1] + r[1] * g[0]),
                         -0.5 * (r[0] * g[2] + r[2] * g[0]),
                         -0.5 * (r[1] * g[2] + r[2] * g[1])};
    if (total_virial)
      for (int k = 0; k < 6; k++) total_virial[k] += v[k];
    if (per_node) {
      for (int k = 0; k < 6; k++) {
        virial[6 * i + k] += 0.5 * v[k];
        virial[6 * j + k] += 0.5 * v[k];
      }
    }
    if (per_node_centroid) {
      double *const c = &centroid[9 * j];    // xx yy zz xy xz yz yx zx zy
      c[0] -= r[0] * g[0];
      c[1] -= r[1] * g[1];
      c[2] -= r[2] * g[2];
      c[3] -= r[0] * g[1];
      c[4] -= r[0] * g[2];
      c[5] -= r[1] * g[2];
      c[6] -= r[1] * g[0];
      c[7] -= r[2] * g[0];
      c[8] -= r[2] * g[1];
    }
  }
}

/* ---------------------------------------------------------------------- */

double EdgeSums::memory_usage() const
{
  return bytes_of(force, virial, centroid);
}
