/* -*- c++ -*- ----------------------------------------------------------
   SPDX-License-Identifier: GPL-2.0-only

   Pair style tdn for LAMMPS (https://www.lammps.org/): the graph that the model sees.

   Its pairs are those of the full neighbor list whose atoms both are nodes, sorted by center; or all
   pairs of atoms as close as in that list, if the model finds them. They stay until the next build
   of the list. Its edges are the pairs within the cutoff in this step; a model that takes positions
   finds them itself.
------------------------------------------------------------------------- */

#ifndef LMP_TDN_EDGE_GRAPH_H
#define LMP_TDN_EDGE_GRAPH_H

#include "neighbors.h"
#include "nodes.h"

#include "model/tdn_model.h"

#include "pointers.h"

#include <cstdint>
#include <memory>
#include <vector>

namespace LAMMPS_NS {

class EdgeGraph : protected Pointers {
 public:
  explicit EdgeGraph(LAMMPS *lmp) : Pointers(lmp) {}
  ~EdgeGraph() noexcept override {}    // that of Pointers may throw

  /// Cutoff, the species index of each atom type, and whether the model takes positions.
  virtual void set_model(double cutoff, const std::vector<int> &species_of_type, bool positions);

  /// Before each run: the model that finds the pairs, or null where LAMMPS's list has them.
  void find_pairs_with(tdn::TDNModel *model) { finder = model; }
  bool finds_pairs() const { return finder != nullptr; }

  const Nodes &nodes() const { return nodes_; }

  // after each build of the neighbor list, which is not looked at where the model finds the pairs:
  // local nodes, then the pairs. The owners are found in between, from the numbers of local nodes

  virtual void number_local(const Neighbors &neighbors);
  virtual void build_pairs(const Neighbors &neighbors, const std::vector<int64_t> &owners);

  /** In every step: the species of local atoms, since fixes change types between builds of the
      list. Whether one has changed, so that other ranks do not know it, if that is `needed`.
      Throws std::runtime_error if an atom has come to this style or left it since then; a graph on a
      GPU does so later if nothing is needed now. */
  virtual bool read_species(bool needed);

  /// In every step, when the types of ghosts are those of their owners.
  virtual void update();

  /// The graph of this step, without edges for a model that takes positions, or the pairs; valid
  /// until the next step.
  virtual tdn::Graph view() const;
  virtual tdn::Pairs pairs() const;

  /// The closest two atoms of all pairs of this rank.
  struct Closest {
    int atom, other;    // -1 if there is no pair within the cutoff
    double distance;
  };
  virtual Closest closest();

  virtual double memory_usage() const;

 protected:
  bool takes_positions = false;
  Nodes nodes_;
  int64_t build = 0;                   // another number after each build of the pairs
  std::vector<int64_t> pairs_begin;    // [num_local + 1] first pair of each center
  std::vector<int> pair_atom;          // the neighbor, which may be an image

  void count_build();
  int64_t species_of(int node) const;
  [[noreturn]] static void throw_joined();

 private:
  double r_max = 0.0;
  std::vector<int> type2species;

  std::vector<int64_t> node_species;
  int num_mapped = 0;    // local atoms whose type has a species, at the last build of the list

  tdn::TDNModel *finder = nullptr;
  std::shared_ptr<const tdn::FoundPairs> found;
  std::vector<int> all_atoms;          // 0, 1, ..., for the model that finds the pairs
  std::vector<uint8_t> reached;        // likewise: 1 for the atoms and images that are in a pair
  std::vector<int> node_of_row;        // for positions: node of each atom and image, -1 for none
  std::vector<int> pair_slot;          // for edges: the neighbor's number in nodes

  int64_t num_edges = 0;
  std::vector<int64_t> edge_index;    // [2, num_edges]
  std::vector<double> edge_vec;       // [num_edges, 3]

  void find_pairs();
  void copy_pairs(const Neighbors &neighbors);
  void build_edges();
  int count_mapped() const;
};

}    // namespace LAMMPS_NS

#endif
