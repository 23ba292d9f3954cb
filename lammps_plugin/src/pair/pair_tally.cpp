/* ----------------------------------------------------------------------
   SPDX-License-Identifier: GPL-2.0-only

   Pair style tdn for LAMMPS (https://www.lammps.org/): results of the model in the arrays of LAMMPS.
------------------------------------------------------------------------- */

#include "pair_parts.h"

#include "model/tdn_model.h"

#include "atom.h"
#include "force.h"

#include <numeric>
#include <vector>

using namespace LAMMPS_NS;

/* ----------------------------------------------------------------------
   the sum of the energies, in the units of the model
------------------------------------------------------------------------- */

double PairTDN::tally_energies(const double *energies, const int64_t *species)
{
  const Nodes &nodes = parts->graph.nodes();
  const std::vector<double> e0 = left_out_e0();
  double total = 0.0;
  for (int node = 0; node < nodes.num_local(); node++) {
    const double energy = energies[node] - e0[species[node]];
    total += energy;
    if (eflag_atom) eatom[nodes.atom_of(node)] += parts->scale * energy;
  }
  if (eflag_global) eng_vdwl += parts->scale * total;
  return total;
}

/* ---------------------------------------------------------------------- */

double PairTDN::tally(tdn::Forces &result)
{
  const int num_local = parts->graph.nodes().num_local();
  const double sum = tally_energies(result.atom_energy, parts->graph.view().species);
  tally_forces(result.forces);
  tally_virials(result);
  return std::accumulate(result.forces, result.forces + 3 * num_local, sum);
}

/* ----------------------------------------------------------------------
   order of LAMMPS: xx yy zz xy xz yz yx zx zy; the sum is symmetric, those of atoms are not
------------------------------------------------------------------------- */

void PairTDN::tally_virials(const tdn::Forces &result)
{
  static constexpr int rows[] = {0, 1, 2, 0, 0, 1, 1, 2, 2};
  static constexpr int columns[] = {0, 1, 2, 1, 2, 2, 0, 0, 1};
  const auto add = [this](const double *v, int count, double *out) {
    for (int k = 0; k < count; k++) {
      const double value = v[3 * rows[k] + columns[k]];
      const double symmetric = 0.5 * (value + v[3 * columns[k] + rows[k]]);
      out[k] += parts->scale * (count == 6 ? symmetric : value);
    }
  };
  const Nodes &nodes = parts->graph.nodes();
  if (vflag_global) add(result.virial, 6, virial);
  for (int node = 0; node < nodes.num_local(); node++) {
    const int i = nodes.atom_of(node);
    if (vflag_atom) add(result.atom_virial + 9 * static_cast<int64_t>(node), 6, vatom[i]);
    if (cvflag_atom) add(result.centroid + 9 * static_cast<int64_t>(node), 9, cvatom[i]);
  }
}

/* ---------------------------------------------------------------------- */

void PairTDN::tally_forces(const double *forces)
{
  const Nodes &nodes = parts->graph.nodes();
  for (int node = 0; node < nodes.num_local(); node++)
    for (int a = 0; a < 3; a++)
      atom->f[nodes.atom_of(node)][a] += parts->scale * forces[3 * node + a];
}

/* ---------------------------------------------------------------------- */

void PairTDN::tally_edges(const double *gradient)
{
  EdgeSums &sums = parts->sums;
  sums.set(parts->graph.view(), gradient, parts->scale, vflag_global ? virial : nullptr,
           vflag_atom != 0, cvflag_atom != 0);
  add_to_atoms(sums.force, 3, atom->f);
  if (vflag_atom) add_to_atoms(sums.virial, 6, vatom);
  if (cvflag_atom) add_to_atoms(sums.centroid, 9, cvatom);
}

/* ----------------------------------------------------------------------
   add rows of the nodes to per-atom arrays; LAMMPS brings what ghosts have to their owners with
   newton on, otherwise it is done here
------------------------------------------------------------------------- */

void PairTDN::add_to_atoms(std::vector<double> &rows, int width, double **array)
{
  const Nodes &nodes = parts->graph.nodes();
  int count = nodes.num_all();
  if (parts->exchanges && !force->newton_pair) {
    parts->rows->add_to_owners(rows, width);
    count = nodes.num_local();
  }
  for (int node = 0; node < count; node++) {
    double *const out = array[nodes.atom_of(node)];
    const double *const in = &rows[static_cast<size_t>(width) * node];
    for (int k = 0; k < width; k++) out[k] += in[k];
  }
}
