/* ----------------------------------------------------------------------
   SPDX-License-Identifier: GPL-2.0-only

   Pair style tdn for LAMMPS (https://www.lammps.org/): the graph that the model sees.
------------------------------------------------------------------------- */

#include "edge_graph.h"

#include "buffers.h"

#include "atom.h"
#include "comm.h"
#include "neighbor.h"

#include <cmath>
#include <cstring>
#include <numeric>
#include <stdexcept>

using namespace LAMMPS_NS;

/* ---------------------------------------------------------------------- */

void EdgeGraph::set_model(double cutoff, const std::vector<int> &species_of_type, bool positions)
{
  r_max = cutoff;
  takes_positions = positions;
  type2species = species_of_type;
}

/* ---------------------------------------------------------------------- */

void EdgeGraph::number_local(const Neighbors &neighbors)
{
  const int num_rows = atom->nlocal + atom->nghost;
  if (finds_pairs()) {
    enlarge(all_atoms, atom->nlocal);
    std::iota(all_atoms.begin(), all_atoms.end(), 0);
    nodes_.number_local(all_atoms.data(), atom->nlocal, num_rows);
  } else {
    nodes_.number_local(neighbors.centers, neighbors.num_centers, num_rows);
  }
}

/* ---------------------------------------------------------------------- */

void EdgeGraph::build_pairs(const Neighbors &neighbors, const std::vector<int64_t> &owners)
{
  const int num_rows = atom->nlocal + atom->nghost;
  nodes_.number_ghosts(owners, atom->nlocal, num_rows, comm->me);
  enlarge(node_species, nodes_.num_local() + nodes_.num_ghosts());
  num_mapped = count_mapped();
  count_build();

  nodes_.clear_used();
  if (finds_pairs())
    find_pairs();
  else
    copy_pairs(neighbors);
  if (!takes_positions) return;

  nodes_.place_used();
  enlarge(node_of_row, num_rows);
  for (int i = 0; i < num_rows; i++) {
    const int node = nodes_.node_of(i);
    node_of_row[i] = node < nodes_.num_all() ? node : -1;
  }
}

/* ----------------------------------------------------------------------
   the same pairs as in the full list of LAMMPS, for all atoms and images on this rank
------------------------------------------------------------------------- */

void EdgeGraph::find_pairs()
{
  const int num_local = atom->nlocal, num_rows = num_local + atom->nghost;
  const bool has_ghosts = nodes_.num_ghosts() > 0;
  found.reset();    // its memory is free for the new list
  found = finder->find_pairs(num_rows > 0 ? atom->x[0] : nullptr, num_rows, num_local,
                             r_max + neighbor->skin, has_ghosts ? &reached : nullptr);
  if (!has_ghosts) return;
  for (int i = num_local; i < num_rows; i++)
    if (reached[i]) nodes_.use(nodes_.slot_of(i));
}

/* ---------------------------------------------------------------------- */

void EdgeGraph::copy_pairs(const Neighbors &neighbors)
{
  found.reset();
  const int num_local = nodes_.num_local();
  int64_t num_pairs = 0;
  for (int node = 0; node < num_local; node++) num_pairs += neighbors.counts[nodes_.atom_of(node)];
  enlarge(pairs_begin, num_local + 1);
  enlarge(pair_atom, num_pairs);
  if (!takes_positions) {
    enlarge(pair_slot, num_pairs);
    enlarge(edge_index, 2 * num_pairs);
    enlarge(edge_vec, 3 * num_pairs);
  }

  int64_t count = 0;
  for (int node = 0; node < num_local; node++) {
    pairs_begin[node] = count;
    const int i = nodes_.atom_of(node);
    const int *const jlist = neighbors.of(i);
    for (int jj = 0; jj < neighbors.counts[i]; jj++) {
      const int j = jlist[jj] & NEIGHMASK;
      const int slot = nodes_.slot_of(j);
      if (slot < 0) continue;
      if (takes_positions)
        nodes_.use(slot);
      else
        pair_slot[count] = slot;
      pair_atom[count++] = j;
    }
  }
  pairs_begin[num_local] = count;
}

/* ----------------------------------------------------------------------
   graphs that follow each other may share a model, which knows lists by these numbers
------------------------------------------------------------------------- */

void EdgeGraph::count_build()
{
  static int64_t num_builds = 0;
  build = ++num_builds;
}

/* ---------------------------------------------------------------------- */

void EdgeGraph::update()
{
  if (!takes_positions) build_edges();
  for (int node = nodes_.num_local(); node < nodes_.num_all(); node++)
    node_species[node] = species_of(node);
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

  int64_t *const slots = centers + count;
  nodes_.clear_used();
  for (int64_t e = 0; e < count; e++) nodes_.use(slots[e]);
  nodes_.place_used();
  for (int64_t e = 0; e < count; e++) slots[e] = nodes_.node_of_slot(slots[e]);
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

bool EdgeGraph::read_species(bool /*needed*/)
{
  bool changed = false;
  for (int node = 0; node < nodes_.num_local(); node++) {
    const int64_t species = species_of(node);
    changed |= species != node_species[node];
    node_species[node] = species;
  }
  if (count_mapped() != num_mapped) throw_joined();
  return changed;
}

/* ---------------------------------------------------------------------- */

void EdgeGraph::throw_joined()
{
  throw std::runtime_error(
      "an atom of a type that pair_coeff maps to NULL became one of this style between two builds "
      "of the neighbor list; change such types with the set command, between runs");
}

/* ---------------------------------------------------------------------- */

tdn::Graph EdgeGraph::view() const
{
  return {node_species.data(), nodes_.num_all(), nodes_.num_local(),
          edge_index.data(),   edge_vec.data(),  num_edges};
}

/* ---------------------------------------------------------------------- */

tdn::Pairs EdgeGraph::pairs() const
{
  return {atom->x ? atom->x[0] : nullptr, atom->nlocal + atom->nghost, nodes_.atoms(),
          pairs_begin.data(),             pair_atom.data(),            node_of_row.data(),
          node_species.data(),            nodes_.num_local(),          nodes_.num_all(),
          build,                          -1,                          false,
          found.get()};
}

/* ---------------------------------------------------------------------- */

EdgeGraph::Closest EdgeGraph::closest()
{
  if (found) tdn::TDNModel::copy(*found, pairs_begin, pair_atom);
  const double *const *const x = atom->x;
  Closest closest{-1, -1, r_max};
  for (int node = 0; node < nodes_.num_local(); node++) {
    const int i = nodes_.atom_of(node);
    for (int64_t pair = pairs_begin[node]; pair < pairs_begin[node + 1]; pair++) {
      const int j = pair_atom[pair];
      const double distance = std::hypot(x[j][0] - x[i][0], x[j][1] - x[i][1], x[j][2] - x[i][2]);
      if (distance < closest.distance) closest = {i, j, distance};
    }
  }
  return closest;
}

/* ---------------------------------------------------------------------- */

double EdgeGraph::memory_usage() const
{
  return nodes_.memory_usage() + (found ? tdn::TDNModel::host_bytes(*found) : 0.0) +
      bytes_of(node_species, pairs_begin, pair_atom, node_of_row, pair_slot, edge_index, edge_vec,
               all_atoms, reached);
}
