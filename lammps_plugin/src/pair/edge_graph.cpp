/* ----------------------------------------------------------------------
   SPDX-License-Identifier: GPL-2.0-only

   Pair style tdn for LAMMPS (https://www.lammps.org/): the work of every step.

   The model sees a graph. Its nodes are the local atoms that belong to this style and the atoms of
   other ranks that are seen from here. A ghost is no node of its own: it is an image of a local atom
   or of an atom of another rank, and all images of an atom are the same node. Its edges are the pairs
   of the full neighbour list within the cutoff, sorted by centre.
------------------------------------------------------------------------- */

#include "pair_tdn.h"

#include "model/tdn_model.h"

#include "atom.h"
#include "comm.h"
#include "error.h"
#include "exceptions.h"
#include "force.h"
#include "neigh_list.h"
#include "neighbor.h"

#include <algorithm>
#include <cstring>
#include <exception>
#include <limits>
#include <new>

using namespace LAMMPS_NS;

/* ----------------------------------------------------------------------
   make room for count values, with 10 percent to spare so that it happens rarely; never shrinks
------------------------------------------------------------------------- */

template <typename T> static void enlarge(std::vector<T> &values, int64_t count)
{
  const auto needed = static_cast<size_t>(std::max<int64_t>(count, 1));
  if (values.size() >= needed) return;
  values = std::vector<T>();    // what is there need not be kept or copied
  values.resize(needed + needed / 10);
}

static void clear_rows(std::vector<double> &values, int64_t count)
{
  enlarge(values, count);
  std::fill_n(values.begin(), count, 0.0);
}

/* ---------------------------------------------------------------------- */

void PairTDN::compute(int eflag, int vflag)
{
  ev_init(eflag, vflag);
  clear_deviation();

  // LAMMPS asks for the virial at every thermo output, whether or not that shows a pressure
  if (vflag_global && model->metadata().direct_forces)
    std::fill_n(virial, 6, std::numeric_limits<double>::quiet_NaN());

  try {
    // all ranks decide alike, since numbering the nodes communicates
    const bool rebuild = !nodes_valid || neighbor->ago == 0 || neighbor->ncalls != last_build;
    if (rebuild) build_nodes();
    build_edges();
    if (rebuild) require_memory();

    if (comm_mode == CommMode::EXCHANGE ? atom->natoms == 0 : num_local == 0) return;
    const tdn::Evaluation result = evaluate();
    tally(result);
    if (deviation_flag) tally_deviation(result.members);
  } catch (const LAMMPSException &) {
    throw;
  } catch (const std::bad_alloc &) {
    error->one(FLERR, "Pair style tdn: out of memory; use more nodes or a smaller system ({} atoms "
               "and {} ghosts on this rank)", atom->nlocal, atom->nghost);
  } catch (const std::exception &e) {
    error->one(FLERR, "Pair style tdn: {} ({} atoms, {} ghosts and {} edges on this rank)",
               e.what(), num_local, atom->nghost, num_edges);
  }
}

/* ----------------------------------------------------------------------
   number the nodes of the graph; needed after each build of the neighbour list
------------------------------------------------------------------------- */

void PairTDN::build_nodes()
{
  const int nlocal = atom->nlocal;
  const int nall = nlocal + atom->nghost;

  num_local = list->inum;
  enlarge(node_of_atom, nall);
  std::fill_n(node_of_atom.begin(), nall, -1);
  enlarge(atom_of_node, nall);
  for (int ii = 0; ii < num_local; ii++) {
    const int i = list->ilist[ii];
    node_of_atom[i] = ii;
    atom_of_node[ii] = i;
  }

  number_ghosts();
  num_all = num_local + static_cast<int>(ghost_atoms.size());
  enlarge(node_species, num_all);
  for (int node = 0; node < num_local; node++)
    node_species[node] = type2species[atom->type[atom_of_node[node]]];

  int64_t num_pairs = 0;
  for (int node = 0; node < num_local; node++) num_pairs += list->numneigh[atom_of_node[node]];
  enlarge(pairs_begin, num_local + 1);
  enlarge(pair_atom, num_pairs);
  enlarge(pair_node, num_pairs);
  enlarge(edge_index, 2 * num_pairs);
  enlarge(edge_vec, 3 * num_pairs);

  int64_t count = 0;
  for (int node = 0; node < num_local; node++) {
    pairs_begin[node] = count;
    const int i = atom_of_node[node];
    const int *const jlist = list->firstneigh[i];
    for (int jj = 0; jj < list->numneigh[i]; jj++) {
      const int j = jlist[jj] & NEIGHMASK;
      if (node_of_atom[j] < 0) continue;
      pair_atom[count] = j;
      pair_node[count++] = node_of_atom[j];
    }
  }
  pairs_begin[num_local] = count;

  last_build = neighbor->ncalls;
  nodes_valid = true;
}

/* ----------------------------------------------------------------------
   edges of this step: pairs within the cutoff
------------------------------------------------------------------------- */

void PairTDN::build_edges()
{
  const double *const *const x = atom->x;
  const double r_max = model->metadata().r_max;
  const double r_max_sq = r_max * r_max;

  // the second row of edge_index stands behind all pairs until their number is known
  int64_t *const centres = edge_index.data();
  int64_t *const senders = centres + pairs_begin[num_local];
  int64_t count = 0;
  for (int node = 0; node < num_local; node++) {
    const double *const xi = x[atom_of_node[node]];
    for (int64_t pair = pairs_begin[node]; pair < pairs_begin[node + 1]; pair++) {
      const double *const xj = x[pair_atom[pair]];
      const double dx = xj[0] - xi[0];
      const double dy = xj[1] - xi[1];
      const double dz = xj[2] - xi[2];
      if (dx * dx + dy * dy + dz * dz >= r_max_sq) continue;
      centres[count] = node;
      senders[count] = pair_node[pair];
      double *const vec = &edge_vec[3 * count];
      vec[0] = dx;
      vec[1] = dy;
      vec[2] = dz;
      count++;
    }
  }
  num_edges = count;
  memmove(centres + count, senders, sizeof(int64_t) * count);
  place_ghosts();
}

/* ----------------------------------------------------------------------
   atoms of other ranks without an edge in this step, those in the skin and in corners of the halo,
   are no nodes: a model works on all nodes, and around small domains these are many. They get the
   numbers behind the nodes, since their rows are passed on to other ranks.
------------------------------------------------------------------------- */

void PairTDN::place_ghosts()
{
  const auto num_ghosts = static_cast<int>(ghost_atoms.size());
  num_all = num_local;
  if (num_ghosts == 0) return;
  int64_t *const senders = edge_index.data() + num_edges;

  // entries become 1, then numbers of nodes
  ghost_node.assign(num_ghosts, -1);
  for (int64_t e = 0; e < num_edges; e++)
    if (senders[e] >= num_local) ghost_node[senders[e] - num_local] = 1;

  for (int ghost = 0; ghost < num_ghosts; ghost++) {
    if (ghost_node[ghost] < 0) continue;
    const int i = ghost_atoms[ghost];
    atom_of_node[num_all] = i;
    node_species[num_all] = type2species[atom->type[i]];
    ghost_node[ghost] = num_all++;
  }
  int idle = num_all;
  for (int &node : ghost_node)
    if (node < 0) node = idle++;

  for (int64_t e = 0; e < num_edges; e++)
    if (senders[e] >= num_local) senders[e] = ghost_node[senders[e] - num_local];
}

/* ----------------------------------------------------------------------
   energies and forces of the model
------------------------------------------------------------------------- */

void PairTDN::tally(const tdn::Evaluation &result)
{
  if (eflag_global) {
    double energy = 0.0;
    for (int node = 0; node < num_local; node++) energy += result.atom_energy[node];
    eng_vdwl += scale * energy;
  }
  if (eflag_atom)
    for (int node = 0; node < num_local; node++)
      eatom[atom_of_node[node]] += scale * result.atom_energy[node];

  // not a question of pointers, which are null on a rank without atoms
  if (model->metadata().direct_forces) {
    for (int node = 0; node < num_local; node++)
      for (int a = 0; a < 3; a++)
        atom->f[atom_of_node[node]][a] += scale * result.forces[3 * node + a];
  } else {
    tally_edges(result.edge_gradient);
  }
}

/* ----------------------------------------------------------------------
   forces f_i += g, f_j -= g, and virials -r (x) g of all edges

   Per-atom virial: half to each end. Centroid virial: all of it to the neighbour, which gives
   the heat flux of energies that belong to the centres.
------------------------------------------------------------------------- */

void PairTDN::tally_edges(const double *gradient)
{
  clear_rows(node_force, 3 * static_cast<int64_t>(num_all));
  if (vflag_atom) clear_rows(node_virial, 6 * static_cast<int64_t>(num_all));
  if (cvflag_atom) clear_rows(node_centroid, 9 * static_cast<int64_t>(num_all));

  const int64_t *const centres = edge_index.data();
  const int64_t *const senders = edge_index.data() + num_edges;
  for (int64_t e = 0; e < num_edges; e++) {
    const int64_t i = centres[e], j = senders[e];
    const double *const r = &edge_vec[3 * e];
    const double g[3] = {scale * gradient[3 * e], scale * gradient[3 * e + 1],
                         scale * gradient[3 * e + 2]};
    for (int a = 0; a < 3; a++) {
      node_force[3 * i + a] += g[a];
      node_force[3 * j + a] -= g[a];
    }
    if (!vflag_either) continue;

    // order of LAMMPS: xx yy zz xy xz yz; the sum is symmetric, single terms are not
    const double v[6] = {-r[0] * g[0],
                         -r[1] * g[1],
                         -r[2] * g[2],
                         -0.5 * (r[0] * g[1] + r[1] * g[0]),
                         -0.5 * (r[0] * g[2] + r[2] * g[0]),
                         -0.5 * (r[1] * g[2] + r[2] * g[1])};
    if (vflag_global)
      for (int k = 0; k < 6; k++) virial[k] += v[k];
    if (vflag_atom) {
      for (int k = 0; k < 6; k++) {
        node_virial[6 * i + k] += 0.5 * v[k];
        node_virial[6 * j + k] += 0.5 * v[k];
      }
    }
    if (cvflag_atom) {
      double *const c = &node_centroid[9 * j];    // xx yy zz xy xz yz yx zx zy
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

  add_to_atoms(node_force, 3, atom->f);
  if (vflag_atom) add_to_atoms(node_virial, 6, vatom);
  if (cvflag_atom) add_to_atoms(node_centroid, 9, cvatom);
}

/* ----------------------------------------------------------------------
   add rows of the nodes to per-atom arrays; LAMMPS brings what ghosts have to their owners with
   newton on, otherwise it is done here
------------------------------------------------------------------------- */

void PairTDN::add_to_atoms(std::vector<double> &values, int width, double **array)
{
  int count = num_all;
  if (comm_mode == CommMode::EXCHANGE && !force->newton_pair) {
    communicate_rows(values.data(), width, true, false);
    count = num_local;
  }
  for (int node = 0; node < count; node++) {
    double *const out = array[atom_of_node[node]];
    const double *const in = &values[static_cast<size_t>(width) * node];
    for (int k = 0; k < width; k++) out[k] += in[k];
  }
}
