/* -*- c++ -*- ----------------------------------------------------------
   SPDX-License-Identifier: GPL-2.0-only

   Pair style tdn for LAMMPS (https://www.lammps.org/): which atom is which node of the graph.

   Nodes are first the local atoms of this style, then the atoms of other ranks that have an edge in
   this step, or a pair in the list where the model takes positions. A ghost atom is an image of a local atom or of an atom of another rank, and all images
   of an atom are the same node. "Ghost" below means one atom of another rank with all its images.
------------------------------------------------------------------------- */

#ifndef LMP_TDN_NODES_H
#define LMP_TDN_NODES_H

#include <cstdint>
#include <vector>

namespace LAMMPS_NS {

class Nodes {
 public:
  int num_local() const { return num_local_; }
  int num_all() const { return num_all_; }
  int num_ghosts() const { return static_cast<int>(ghost_atoms.size()); }

  /// Ghosts without an edge in this step; their numbers start at num_all.
  int num_idle() const { return num_local_ + num_ghosts() - num_all_; }

  int atom_of(int node) const { return atom_of_node[node]; }
  const int *atoms() const { return atom_of_node.data(); }

  /// Of each atom `slot_of`, and of each ghost its node; valid until the next build of the list.
  const int *slots() const { return slot_of_atom.data(); }
  const int *places() const { return node_of_ghost.data(); }

  /// The image that stands for each ghost.
  const int *ghosts() const { return ghost_atoms.data(); }

  /// Node of an atom or image in this step; -1 for atoms of other styles.
  int node_of(int atom) const
  {
    return static_cast<int>(node_of_slot(slot_of_atom[atom]));
  }

  /// The same until ghosts are placed: ghost k has the number num_local + k.
  int slot_of(int atom) const { return slot_of_atom[atom]; }

  /// Whether this image stands for an atom of another rank; its other images do not.
  bool is_ghost(int atom) const
  {
    const int ghost = slot_of_atom[atom] - num_local_;
    return ghost >= 0 && ghost_atoms[ghost] == atom;
  }

  /// The atoms that are nodes 0, 1, ...; all other atoms, `num_atoms` with images, are none yet.
  void number_local(const int *atoms, int count, int num_atoms);

  /** Nodes of the images [first, last), from the owners: of each atom the rank times 2^32 plus the
      node there, -1 for none. */
  void number_ghosts(const std::vector<int64_t> &owners, int first, int last, int my_rank);

  /** Give numbers of nodes to the ghosts among the slots that are marked as used. The other ghosts,
      in the skin and in corners of the halo, are no nodes: a model works on all nodes, and around
      small domains these are many. */
  void clear_used() { node_of_ghost.assign(ghost_atoms.size(), -1); }
  void use(int64_t slot)
  {
    if (slot >= num_local_) node_of_ghost[slot - num_local_] = 1;
  }
  void place_used();

  /// Node of a slot after that.
  int64_t node_of_slot(int64_t slot) const
  {
    return slot < num_local_ ? slot : node_of_ghost[slot - num_local_];
  }

  double memory_usage() const;

 private:
  int num_local_ = 0, num_all_ = 0;
  std::vector<int> atom_of_node;
  std::vector<int> slot_of_atom;
  std::vector<int> ghost_atoms;      // the first image of each ghost
  std::vector<int> node_of_ghost;    // in this step
};

}    // namespace LAMMPS_NS

#endif
