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

void Nodes::place_used()
{
  num_all_ = num_local_;
  for (int ghost = 0; ghost < num_ghosts(); ghost++) {
    if (node_of_ghost[ghost] < 0) continue;
    atom_of_node[num_all_] = ghost_atoms[ghost];
    node_of_ghost[ghost] = num_all_++;
  }
  // the others get the numbers after these, since their rows are passed on to further ranks
  int idle = num_all_;
  for (int &node : node_of_ghost)
    if (node < 0) node = idle++;
}

/* ---------------------------------------------------------------------- */

double Nodes::memory_usage() const
{
  return bytes_of(atom_of_node, slot_of_atom, ghost_atoms, node_of_ghost);
}
