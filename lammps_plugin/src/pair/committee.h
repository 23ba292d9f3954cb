/* -*- c++ -*- ----------------------------------------------------------
   SPDX-License-Identifier: GPL-2.0-only

   Pair style tdn for LAMMPS (https://www.lammps.org/): disagreement of the networks of a committee.

   fix pair sets the flag before the steps on which it wants the deviation. Only then the forces of
   each network are summed, those of ghosts included, before the deviation is taken on owners.
------------------------------------------------------------------------- */

#ifndef LMP_TDN_COMMITTEE_H
#define LMP_TDN_COMMITTEE_H

#include "pointers.h"

#include <string>
#include <vector>

namespace tdn {
struct Graph;
struct Metadata;
}    // namespace tdn

namespace LAMMPS_NS {

class Nodes;
class RowExchange;

class Committee : protected Pointers {
 public:
  explicit Committee(LAMMPS *lmp) : Pointers(lmp) {}

  /// `path` is that of the file with these metadata.
  void set_model(const tdn::Metadata &metadata, const std::string &path);

  /// Set and reset by fix pair; an error for a model that is no committee.
  int *wanted_flag();
  bool wanted() const { return flag != 0; }

  /// Before the evaluation of each step.
  void begin_step();

  /** sqrt(1/n sum_k |f_k - mean f|^2) of each local atom, f_k being its force from network k; as in
      DP-GEN (arXiv 1910.12690). members: forces [n, num_local, 3] if they are `complete`, else edge
      gradients [n, num_edges, 3], for which `exchange` adds what ghosts have to their owners; null
      on one rank. */
  void set_deviation(const tdn::Graph &graph, const Nodes &nodes, const double *members,
                     bool complete, RowExchange *exchange, double scale);

  /// Of each local atom; null if the last step has not computed it.
  double *deviation();

  double memory_usage() const;

 private:
  int size = 0;    // networks; 0 without a model
  std::string path;
  int flag = 0;
  bool valid = false;
  std::vector<double> member_force;       // [num_all, size, 3]
  std::vector<double> force_deviation;    // 0 for atoms of other styles

  void require() const;
  void sum_forces(const tdn::Graph &graph, const double *members, bool complete);
};

}    // namespace LAMMPS_NS

#endif
