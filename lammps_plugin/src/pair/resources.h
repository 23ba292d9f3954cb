/* -*- c++ -*- ----------------------------------------------------------
   SPDX-License-Identifier: GPL-2.0-only

   Pair style tdn for LAMMPS (https://www.lammps.org/): cores, devices and memory that ranks share.
------------------------------------------------------------------------- */

#ifndef LMP_TDN_RESOURCES_H
#define LMP_TDN_RESOURCES_H

#include "pointers.h"

namespace tdn {
struct Graph;
class TDNModel;
}    // namespace tdn

namespace LAMMPS_NS {

class Resources : protected Pointers {
 public:
  /// `num_threads` that somebody has chosen for each rank; 0 for none.
  Resources(LAMMPS *lmp, int num_threads) : Pointers(lmp), chosen_threads(num_threads) {}

  // all ranks call these together

  /** Threads that were chosen, or that give each rank of this node its share of the cores; 0 if
      OMP_NUM_THREADS is set. */
  int threads_per_rank() const;

  /// Different for each rank of this node, those of other partitions included.
  int rank_on_node() const;

  /// With how many ranks this one shares the memory where the model runs.
  void set_model(const tdn::TDNModel &model);

  /** Warn once if the evaluation of a graph may not fit into memory; called when the number of its
      edges may have changed much. */
  void check_memory(const tdn::TDNModel &model, const tdn::Graph &graph);

 private:
  const int chosen_threads;
  int num_sharers = 1;
  double largest = 0.0;    // bytes that the evaluations so far have needed
  bool warned = false;
};

}    // namespace LAMMPS_NS

#endif
