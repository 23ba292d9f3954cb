/* ----------------------------------------------------------------------
   SPDX-License-Identifier: GPL-2.0-only

   Pair style tdn for LAMMPS (https://www.lammps.org/): the graph that the model sees.
------------------------------------------------------------------------- */

#include "edge_graph.h"

#include "buffers.h"

#include "atom.h"
#include "comm.h"
#include "neigh_list.h"

#include <cstring>
#include <stdexcept>

using namespace LAMMPS_NS;

/* ---------------------------------------------------------------------- */

void EdgeGraph::set_model(double cutoff, const std::vector<int> &species_of_type)
{
  r_max = cutoff;
  type2species = species_of_type;
}

/* ---------------------------------------------------------------------- */

void EdgeGraph::number_local(const NeighList *list)
{
  nodes_.number_local(list->ilist, list->inum, atom->nlocal + atom->nghost);
}

/* ---------------------------------------------------------------------- */

void EdgeGraph::build_pairs(const NeighList *list, const std::vector<int64_t> &owners)
{
  nodes_.number_ghosts(owners, atom->nlocal, atom->nlocal + atom->nghost, comm->me);
  const int num_local = nodes_.num_local();
  enlarge(node_species, num_local + nodes_.num_ghosts());
  num_mapped = count_mapped();

  int64_t num_pairs = 0;
  for (int node = 0; node < num_local; node++) num_pairs += list->numneigh[nodes_.atom_of(node)];
  enlarge(pairs_begin, num_local + 1);
  enlarge(pair_atom, num_pairs);
  enlarge(pair_slot, num_pairs);
  enlarge(edge_index, 2 * num_pairs);
  enlarge(edge_vec, 3 * num_pairs);

  int64_t count = 0;
  for (int node = 0; node < num_local; node++) {
    pairs_begin[node] = count;
    const int i = nodes_.atom_of(node);
    const int *const jlist = list->firstneigh[i];
    for (int jj = 0; jj < list->numneigh[i]; jj++) {
      const int j = jlist[jj] & NEIGHMASK;
      const int slot = nodes_.slot_of(j);
      if (slot < 0) continue;
      pair_atom[count] = j;
      pair_slot[count++] = slot;
    }
  }
  pairs_begin[num_local] = count;
}

/* ---------------------------------------------------------------------- */

void EdgeGraph::build_edges()
{
  const double *const *const x = atom->x;
  const double r_max_sq = r_max * r_max;
  const int num_local = nodes_.num_local();

  // the second row of edge_index starts after as many entries as there are pairs, until the number
  // of edges is known
  int64_t *const centers = edge_index.data();
  int64_t *const senders = centers + pairs_begin[num_local];
  int64_t count = 0;
  for (int node = 0; node < num_local; node++) {
    const double *const xi = x[nodes_.atom_of(node)];
    for (int64_t pair = pairs_begin[node]; pair < pairs_begin[node + 1]; pair++) {
      const double *const xj = x[pair_atom[pair]];
      const double dx = xj[0] - xi[0];
      const double dy = xj[1] - xi[1];
      const double dz = xj[2] - xi[2];
      if (dx * dx + dy * dy + dz * dz >= r_max_sq) continue;
      centers[count] = node;
      senders[count] = pair_slot[pair];
      double *const vec = &edge_vec[3 * count];
      vec[0] = dx;
      vec[1] = dy;
      vec[2] = dz;
      count++;
    }
  }
  num_edges = count;
  memmove(centers + count, senders, sizeof(int64_t) * count);

  nodes_.place_ghosts(centers + count, count);
  for (int node = num_local; node < nodes_.num_all(); node++) node_species[node] = species_of(node);
}

/* ---------------------------------------------------------------------- */

int EdgeGraph::count_mapped() const
{
  int count = 0;
  for (int i = 0; i < atom->nlocal; i++) count += type2species[atom->type[i]] >= 0;
  return count;
}

/* ---------------------------------------------------------------------- */

int64_t EdgeGraph::species_of(int node) const
{
  const int i = nodes_.atom_of(node);
  const int species = type2species[atom->type[i]];
  if (species < 0)
    throw std::runtime_error(
        "atom " + std::to_string(atom->tag[i]) + " became of type " +
        std::to_string(atom->type[i]) + ", which pair_coeff maps to NULL, between two builds of "
        "the neighbor list; change such types with the set command, between runs");
  return species;
}

/* ---------------------------------------------------------------------- */

bool EdgeGraph::read_species()
{
  bool changed = false;
  for (int node = 0; node < nodes_.num_local(); node++) {
    const int64_t species = species_of(node);
    changed |= species != node_species[node];
    node_species[node] = species;
  }
  if (count_mapped() != num_mapped)
    throw std::runtime_error(
        "an atom of a type that pair_coeff maps to NULL became one of this style between two builds "
        "of the neighbor list; change such types with the set command, between runs");
  return changed;
}

/* ---------------------------------------------------------------------- */

tdn::Graph EdgeGraph::view() const
{
  return {node_species.data(), nodes_.num_all(), nodes_.num_local(),
          edge_index.data(),   edge_vec.data(),  num_edges};
}

/* ---------------------------------------------------------------------- */

double EdgeGraph::memory_usage() const
{
  return nodes_.memory_usage() +
      bytes_of(node_species, pairs_begin, pair_atom, pair_slot, edge_index, edge_vec);
}
