/* ----------------------------------------------------------------------
   SPDX-License-Identifier: GPL-2.0-only

   Pair style tdn for LAMMPS (https://www.lammps.org/): which atom is which node of the graph.
------------------------------------------------------------------------- */

#include "nodes.h"

#include "buffers.h"

#include <algorithm>
#include <unordered_map>

using namespace LAMMPS_NS;

/* ---------------------------------------------------------------------- */

void Nodes::number_local(const int *atoms, int count, int num_atoms)
{
  num_local_ = num_all_ = count;
  enlarge(slot_of_atom, num_atoms);
  std::fill_n(slot_of_atom.begin(), num_atoms, -1);
  enlarge(atom_of_node, num_atoms);
  for (int node = 0; node < count; node++) {
    slot_of_atom[atoms[node]] = node;
    atom_of_node[node] = atoms[node];
  }
}

/* ---------------------------------------------------------------------- */

void Nodes::number_ghosts(const std::vector<int64_t> &owners, int first, int last, int my_rank)
{
  ghost_atoms.clear();
  std::unordered_map<int64_t, int> slot_of_owner;
  for (int i = first; i < last; i++) {
    if (owners[i] < 0) continue;
    if (owners[i] >> 32 == my_rank) {
      slot_of_atom[i] = static_cast<int>(owners[i] & 0xffffffff);
      continue;
    }
    const auto [entry, is_new] = slot_of_owner.emplace(owners[i], num_local_ + num_ghosts());
    slot_of_atom[i] = entry->second;
    if (is_new) ghost_atoms.push_back(i);
  }
}

/* ---------------------------------------------------------------------- */

void Nodes::place_ghosts(int64_t *senders, int64_t num_edges)
{
  num_all_ = num_local_;
  if (ghost_atoms.empty()) return;

  // entries become 1, then numbers of nodes
  node_of_ghost.assign(ghost_atoms.size(), -1);
  for (int64_t e = 0; e < num_edges; e++)
    if (senders[e] >= num_local_) node_of_ghost[senders[e] - num_local_] = 1;

  for (int ghost = 0; ghost < num_ghosts(); ghost++) {
    if (node_of_ghost[ghost] < 0) continue;
    atom_of_node[num_all_] = ghost_atoms[ghost];
    node_of_ghost[ghost] = num_all_++;
  }
  // the others get the numbers after these, since their rows are passed on to further ranks
  int idle = num_all_;
  for (int &node : node_of_ghost)
    if (node < 0) node = idle++;

  for (int64_t e = 0; e < num_edges; e++)
    if (senders[e] >= num_local_) senders[e] = node_of_ghost[senders[e] - num_local_];
}

/* ---------------------------------------------------------------------- */

double Nodes::memory_usage() const
{
  return bytes_of(atom_of_node, slot_of_atom, ghost_atoms, node_of_ghost);
}
