/* ----------------------------------------------------------------------
   SPDX-License-Identifier: GPL-2.0-only

   Pair style tdn for LAMMPS (https://www.lammps.org/): disagreement of the networks of a committee.
------------------------------------------------------------------------- */

#include "committee.h"

#include "buffers.h"
#include "nodes.h"
#include "row_exchange.h"

#include "model/tdn_model.h"

#include "atom.h"
#include "error.h"

#include <algorithm>
#include <cmath>

using namespace LAMMPS_NS;

/* ---------------------------------------------------------------------- */

void Committee::set_model(const tdn::Metadata &metadata, const std::string &file)
{
  size = metadata.committee;
  path = file;
}

/* ---------------------------------------------------------------------- */

void Committee::require() const
{
  if (size > 1) return;
  error->all(FLERR,
             "Pair style tdn: force_deviation needs a committee, and {} holds one network; write a "
             "committee with: tdn-export a.pt b.pt c.pt -o committee.tdn.pth",
             path);
}

/* ---------------------------------------------------------------------- */

int *Committee::wanted_flag()
{
  if (size > 0) require();
  return &flag;
}

/* ----------------------------------------------------------------------
   zeros for atoms of other styles; on ranks without atoms still an array
------------------------------------------------------------------------- */

void Committee::begin_step()
{
  valid = wanted();
  if (!valid) return;
  require();    // the fix may be older than the model
  force_deviation.assign(std::max(1, atom->nlocal), 0.0);
}

/* ---------------------------------------------------------------------- */

double *Committee::deviation()
{
  if (size > 0) require();
  return valid ? force_deviation.data() : nullptr;
}

/* ----------------------------------------------------------------------
   what ghosts have goes to their owners in one message whether newton is on or off, since LAMMPS
   does not communicate it
------------------------------------------------------------------------- */

void Committee::set_deviation(const tdn::Graph &graph, const Nodes &nodes, const double *members,
                              bool complete, RowExchange *exchange, double scale)
{
  sum_forces(graph, members, complete);
  if (exchange && !complete) exchange->add_to_owners(member_force, 3 * size);

  for (int node = 0; node < nodes.num_local(); node++) {
    const double *const f = &member_force[3 * static_cast<size_t>(size) * node];
    double sum = 0.0;
    for (int a = 0; a < 3; a++) {
      double mean = 0.0;
      for (int k = 0; k < size; k++) mean += f[3 * k + a];
      mean /= size;
      for (int k = 0; k < size; k++) sum += (f[3 * k + a] - mean) * (f[3 * k + a] - mean);
    }
    force_deviation[nodes.atom_of(node)] = scale * std::sqrt(sum / size);
  }
}

/* ----------------------------------------------------------------------
   forces of each network on the nodes, in the units of the model
------------------------------------------------------------------------- */

void Committee::sum_forces(const tdn::Graph &graph, const double *members, bool complete)
{
  const size_t width = 3 * static_cast<size_t>(size);
  member_force.assign(width * std::max<int64_t>(1, graph.num_all), 0.0);

  if (complete) {
    for (int k = 0; k < size; k++)
      for (int64_t node = 0; node < graph.num_local; node++, members += 3)
        std::copy_n(members, 3, &member_force[width * node + 3 * k]);
    return;
  }

  const int64_t *const centers = graph.edge_index;
  const int64_t *const senders = graph.edge_index + graph.num_edges;
  for (int k = 0; k < size; k++) {
    for (int64_t e = 0; e < graph.num_edges; e++, members += 3) {
      double *const fi = &member_force[width * centers[e] + 3 * k];
      double *const fj = &member_force[width * senders[e] + 3 * k];
      for (int a = 0; a < 3; a++) {
        fi[a] += members[a];
        fj[a] -= members[a];
      }
    }
  }
}

/* ---------------------------------------------------------------------- */

double Committee::memory_usage() const
{
  return bytes_of(member_force, force_deviation);
}
