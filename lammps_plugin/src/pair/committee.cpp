/* ----------------------------------------------------------------------
   SPDX-License-Identifier: GPL-2.0-only

   Pair style tdn for LAMMPS (https://www.lammps.org/): how far the networks of a committee disagree.

   fix pair sets the flag before the steps on which it wants the deviation. Only then are the forces
   of each network brought together, ghosts included, before the deviation is taken on owners.
------------------------------------------------------------------------- */

#include "pair_tdn.h"

#include "model/tdn_model.h"

#include "atom.h"
#include "error.h"

#include <algorithm>
#include <cmath>
#include <cstring>

using namespace LAMMPS_NS;

/* ----------------------------------------------------------------------
   the flag of: fix ID group pair N tdn force_deviation 1
------------------------------------------------------------------------- */

void *PairTDN::extract(const char *name, int &dim)
{
  if (strcmp(name, "force_deviation_flag") != 0) return nullptr;
  if (model) require_committee();
  dim = 0;
  return &deviation_flag;
}

/* ----------------------------------------------------------------------
   the deviation of each local atom; null where the last step has not computed it
------------------------------------------------------------------------- */

void *PairTDN::extract_peratom(const char *name, int &columns)
{
  if (strcmp(name, "force_deviation") != 0) return nullptr;
  if (model) require_committee();
  columns = 0;
  return deviation_valid ? force_deviation.data() : nullptr;
}

/* ---------------------------------------------------------------------- */

void PairTDN::require_committee()
{
  if (model->metadata().committee > 1) return;
  error->all(FLERR,
             "Pair style tdn: force_deviation needs a committee, and {} holds one network; write a "
             "committee with: tdn-export a.pt b.pt c.pt -o committee.tdn.pth",
             model_path);
}

/* ----------------------------------------------------------------------
   zeros for atoms of other styles, and on ranks without atoms an array all the same
------------------------------------------------------------------------- */

void PairTDN::clear_deviation()
{
  deviation_valid = deviation_flag;
  if (!deviation_flag) return;
  require_committee();    // the fix may be older than the model
  force_deviation.assign(std::max(1, atom->nlocal), 0.0);
}

/* ----------------------------------------------------------------------
   sqrt(1/n sum_k |f_k - mean f|^2) of each atom, f_k being its force from network k; as in DP-GEN
   (arXiv 1910.12690). members: edge gradients [n, num_edges, 3] or direct forces [n, num_local, 3]
------------------------------------------------------------------------- */

void PairTDN::tally_deviation(const double *members)
{
  const int n = model->metadata().committee;
  add_member_forces(members);

  for (int node = 0; node < num_local; node++) {
    const double *const f = &member_force[3 * static_cast<size_t>(n) * node];
    double sum = 0.0;
    for (int a = 0; a < 3; a++) {
      double mean = 0.0;
      for (int k = 0; k < n; k++) mean += f[3 * k + a];
      mean /= n;
      for (int k = 0; k < n; k++) sum += (f[3 * k + a] - mean) * (f[3 * k + a] - mean);
    }
    force_deviation[atom_of_node[node]] = scale * std::sqrt(sum / n);
  }
}

/* ----------------------------------------------------------------------
   forces of each network on the local nodes, in the units of the model; what ghosts have goes to
   their owners in one message whether newton is on or off, since LAMMPS knows nothing of it
------------------------------------------------------------------------- */

void PairTDN::add_member_forces(const double *members)
{
  const int n = model->metadata().committee;
  const size_t width = 3 * static_cast<size_t>(n);
  member_force.assign(width * std::max(1, num_all), 0.0);

  if (model->metadata().direct_forces) {
    for (int k = 0; k < n; k++)
      for (int node = 0; node < num_local; node++, members += 3)
        std::copy_n(members, 3, &member_force[width * node + 3 * k]);
    return;
  }

  const int64_t *const centres = edge_index.data();
  const int64_t *const senders = edge_index.data() + num_edges;
  for (int k = 0; k < n; k++) {
    for (int64_t e = 0; e < num_edges; e++, members += 3) {
      double *const fi = &member_force[width * centres[e] + 3 * k];
      double *const fj = &member_force[width * senders[e] + 3 * k];
      for (int a = 0; a < 3; a++) {
        fi[a] += members[a];
        fj[a] -= members[a];
      }
    }
  }
  if (comm_mode == CommMode::EXCHANGE)
    communicate_rows(member_force.data(), static_cast<int64_t>(width), true, false);
}
