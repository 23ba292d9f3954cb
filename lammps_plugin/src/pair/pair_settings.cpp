/* ----------------------------------------------------------------------
   SPDX-License-Identifier: GPL-2.0-only

   Pair style tdn for LAMMPS (https://www.lammps.org/): its commands, and what is settled before a
   run.
------------------------------------------------------------------------- */

#include "pair_tdn.h"

#include "input_checks.h"
#include "pair_parts.h"
#include "type_checks.h"

#include "model/tdn_model.h"

#include "atom.h"
#include "comm.h"
#include "error.h"
#include "force.h"
#include "memory.h"
#include "neighbor.h"
#include "update.h"

#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

using namespace LAMMPS_NS;

// longest part of a row that is sent in one message, in doubles; longer rows take several
static constexpr int MAX_COMM_VALUES = 256;

/* ---------------------------------------------------------------------- */

void PairTDN::allocate()
{
  const int n = atom->ntypes + 1;
  memory->create(setflag, n, n, "pair:setflag");
  memory->create(cutsq, n, n, "pair:cutsq");
  map = new int[n];
  allocated = 1;
}

/* ----------------------------------------------------------------------
   pair_style tdn [device auto|cpu|cuda|cuda:N] [comm auto|fold|exchange] [check yes|no]
                  [direct yes|no] [e0 yes|no] [neighbors auto|lammps|own] [graphs yes|no]
------------------------------------------------------------------------- */

void PairTDN::settings(int narg, char **arg)
{
  parts->file.device = "auto";
  parts->comm_mode = CommMode::AUTO;
  parts->list_mode = ListMode::AUTO;
  parts->file.check = true;
  parts->file.direct = false;
  parts->file.keep_e0 = true;
  parts->file.graphs = false;

  for (int iarg = 0; iarg < narg; iarg += 2) {
    const std::string keyword = arg[iarg];
    if (keyword != "device" && keyword != "comm" && keyword != "check" && keyword != "direct" &&
        keyword != "e0" && keyword != "neighbors" && keyword != "graphs")
      error->all(FLERR,
                 "Pair style tdn: unknown keyword '{}', expected device, comm, check, direct, e0, "
                 "neighbors or graphs",
                 keyword);
    if (iarg + 1 >= narg) utils::missing_cmd_args(FLERR, "pair_style tdn " + keyword, error);
    const std::string value = arg[iarg + 1];

    if (keyword == "device") {
      if (value != "auto" && value != "cpu" && value != "cuda" &&
          !utils::strmatch(value, "^cuda:\\d+$"))
        error->all(FLERR, "Pair style tdn: unknown device '{}', expected auto, cpu, cuda or cuda:N",
                   value);
      parts->file.device = value;
    } else if (keyword == "comm") {
      if (value == "auto")
        parts->comm_mode = CommMode::AUTO;
      else if (value == "fold")
        parts->comm_mode = CommMode::FOLD;
      else if (value == "exchange")
        parts->comm_mode = CommMode::EXCHANGE;
      else
        error->all(FLERR, "Pair style tdn: unknown comm '{}', expected auto, fold or exchange",
                   value);
    } else if (keyword == "neighbors") {
      if (value == "auto")
        parts->list_mode = ListMode::AUTO;
      else if (value == "lammps")
        parts->list_mode = ListMode::LAMMPS;
      else if (value == "own")
        parts->list_mode = ListMode::OWN;
      else
        error->all(FLERR, "Pair style tdn: unknown neighbors '{}', expected auto, lammps or own",
                   value);
    } else if (keyword == "check") {
      parts->file.check = utils::logical(FLERR, value, false, lmp) == 1;
    } else if (keyword == "graphs") {
      parts->file.graphs = utils::logical(FLERR, value, false, lmp) == 1;
    } else if (keyword == "e0") {
      parts->file.keep_e0 = utils::logical(FLERR, value, false, lmp) == 1;
    } else {
      parts->file.direct = utils::logical(FLERR, value, false, lmp) == 1;
    }
  }
}

/* ----------------------------------------------------------------------
   pair_coeff * * model.tdn.pth element1 element2 ...
------------------------------------------------------------------------- */

void PairTDN::coeff(int narg, char **arg)
{
  if (narg < 4) utils::missing_cmd_args(FLERR, "pair_coeff", error);
  if (narg != 3 + atom->ntypes)
    error->all(FLERR,
               "Pair style tdn: pair_coeff found {} element(s), expected {}: one element or NULL "
               "for each atom type",
               narg - 3, atom->ntypes);

  if (strcmp(update->unit_style, "metal") == 0)
    parts->scale = 1.0;
  else if (strcmp(update->unit_style, "real") == 0)
    parts->scale = utils::get_conversion_factor(utils::ENERGY, utils::METAL2REAL);
  else
    error->all(FLERR, "Pair style tdn: found units {}, expected units metal or real",
               update->unit_style);

  // nothing is half set where this command fails and a script goes on
  if (!allocated) allocate();
  for (int i = 1; i <= atom->ntypes; i++)
    for (int j = i; j <= atom->ntypes; j++) setflag[i][j] = 0;

  ModelFile &file = parts->file;
  file.load(arg[2], parts->resources);
  const auto &metadata = file.metadata();
  parts->resources.set_model(file.model());
  parts->committee.set_model(metadata, file.path());
  parts->report_exchanges = true;

  const int values = static_cast<int>((file.model().exchange_bytes() + 7) / 8);
  comm_forward = std::max(2, std::min(values, MAX_COMM_VALUES));
  const int member_values = std::min(3 * metadata.committee, MAX_COMM_VALUES);
  comm_reverse = comm_reverse_off = std::max({9, comm_forward, member_values});

  std::vector<int> type2species(atom->ntypes + 1, -1);
  for (int type = 1; type <= atom->ntypes; type++) {
    const std::string element = arg[2 + type];
    if (element != "NULL") type2species[type] = file.species_index(element, type);
  }
  parts->graph.set_model(metadata.r_max, type2species, file.model().takes_positions());
  map_element2type(narg - 3, arg + 3);
  parts->elements.assign(1, "NULL");
  parts->elements.insert(parts->elements.end(), arg + 3, arg + narg);
}

/* ---------------------------------------------------------------------- */

void PairTDN::init_style()
{
  if (!parts->file.is_loaded())
    error->all(FLERR,
               "Pair style tdn: no model was given; add: pair_coeff * * FILE ELEMENTS");

  if (parts->comm_mode == CommMode::FOLD && comm->nprocs > 1)
    error->all(FLERR, "Pair style tdn: comm fold works on one MPI rank, found {}; use comm auto",
               comm->nprocs);
  parts->exchanges = parts->comm_mode == CommMode::EXCHANGE ||
      (parts->comm_mode == CommMode::AUTO && comm->nprocs > 1);

  parts->file.check_keywords();
  tdn::TDNModel &model = parts->file.model();
  if (parts->file.graphs && (kokkosable || model.gpu_index() < 0 || !model.takes_positions()))
    error->all(FLERR,
               "Pair style tdn: graphs are for models that take positions on a GPU, without "
               "KOKKOS; found one that takes {} on {}{}; use graphs no",
               model.takes_positions() ? "positions" : "edges", model.device(),
               kokkosable ? " in tdn/kk" : "");
  model.use_graphs(parts->file.graphs);
  if (parts->file.metadata().direct_forces) refuse_virial(lmp);
  if (parts->file.keep_e0) refuse_insertions(lmp, parts->file.isolated_energies());
  check_types(lmp, parts->elements);

  // a hybrid style has asked for these before the model was known
  Pair *top = force->pair;
  top->comm_forward = std::max(top->comm_forward, comm_forward);
  top->comm_reverse = std::max(top->comm_reverse, comm_reverse);
  top->comm_reverse_off = std::max(top->comm_reverse_off, comm_reverse_off);

  keep_special_neighbors(lmp);
  const bool own = choose_list();
  parts->graph.find_pairs_with(own ? &parts->file.model() : nullptr);
  if (!own) neighbor->add_request(this, NeighConst::REQ_FULL);
  parts->last_build = -1;
}

/* ----------------------------------------------------------------------
   whether the model finds the pairs, by itself
------------------------------------------------------------------------- */

bool PairTDN::choose_list()
{
  const tdn::TDNModel &model = parts->file.model();
  const std::string need = kokkosable ? "style tdn/kk takes the list of KOKKOS"
      : model.takes_positions()       ? need_of_list(lmp, this)
                                      : "this model is evaluated from edges";
  const ListMode mode = parts->list_mode;
  if (mode == ListMode::OWN && !need.empty())
    error->all(FLERR, "Pair style tdn: neighbors own is not possible here: {}; use neighbors auto", need);
  const bool own = mode != ListMode::LAMMPS && need.empty();
  const std::string report = own ? "found by the model on " + model.device()
      : need.empty()             ? "that of LAMMPS"
                                 : "that of LAMMPS, since " + need;
  if (comm->me == 0 && !kokkosable && report != parts->reported_list)
    utils::logmesg(lmp, "TDN neighbor list: {}\n", report);
  parts->reported_list = report;
  return own;
}

/* ---------------------------------------------------------------------- */

double PairTDN::init_one(int i, int j)
{
  if (setflag[i][j] == 0) error->all(FLERR, "All pair coeffs are not set");
  return parts->file.metadata().r_max;
}
