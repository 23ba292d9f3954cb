/* -*- c++ -*- ----------------------------------------------------------
   SPDX-License-Identifier: GPL-2.0-only

   Pair style tdn for LAMMPS (https://www.lammps.org/): what the style is made of.
------------------------------------------------------------------------- */

#ifndef LMP_TDN_PAIR_PARTS_H
#define LMP_TDN_PAIR_PARTS_H

#include "committee.h"
#include "edge_graph.h"
#include "edge_sums.h"
#include "model_file.h"
#include "pair_tdn.h"
#include "resources.h"
#include "row_exchange.h"

#include <memory>
#include <string>
#include <vector>

namespace LAMMPS_NS {

enum class CommMode { AUTO, FOLD, EXCHANGE };
enum class ListMode { AUTO, LAMMPS, OWN };

struct PairTDN::Parts {
  CommMode comm_mode = CommMode::AUTO;
  ListMode list_mode = ListMode::AUTO;
  ModelFile file;
  double scale = 1.0;    // eV to the energy unit of this run

  // work of a step

  std::unique_ptr<EdgeGraph> own_graph;
  EdgeGraph &graph;
  std::unique_ptr<RowExchange> rows;
  EdgeSums sums;
  Committee committee;
  Resources resources;
  bool exchanges = false;           // of rows between ranks; otherwise all images are folded
  bool report_exchanges = false;    // in the log, after the next evaluation
  std::string reported_list;        // what the log says of the neighbor list
  std::string reported_failure;     // and of steps that cannot be recorded
  std::vector<std::string> elements;    // of each atom type
  bigint last_build = -1;           // neighbor->ncalls when the pairs were collected

  Parts(LAMMPS *lmp, Pair *pair, EdgeGraph *given, int num_threads) :
      file(lmp), own_graph(given ? given : new EdgeGraph(lmp)), graph(*own_graph),
      rows(new RowExchange(lmp, pair, graph.nodes())), committee(lmp), resources(lmp, num_threads)
  {
  }
};

}    // namespace LAMMPS_NS

#endif
