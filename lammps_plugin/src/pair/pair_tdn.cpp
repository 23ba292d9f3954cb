/* ----------------------------------------------------------------------
   SPDX-License-Identifier: GPL-2.0-only

   Pair style tdn for LAMMPS (https://www.lammps.org/): settings, and the order of work in a step.
------------------------------------------------------------------------- */

#include "pair_tdn.h"

#include "input_checks.h"
#include "pair_parts.h"
#include "type_checks.h"

#include "model/tdn_model.h"

#include "atom.h"
#include "comm.h"
#include "error.h"
#include "exceptions.h"
#include "force.h"
#include "memory.h"
#include "neigh_list.h"
#include "neighbor.h"
#include "update.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <exception>
#include <limits>
#include <new>
#include <numeric>
#include <string>
#include <vector>

using namespace LAMMPS_NS;

// longest part of a row that is sent in one message, in doubles; longer rows take several
static constexpr int MAX_COMM_VALUES = 256;

/* ---------------------------------------------------------------------- */

PairTDN::PairTDN(LAMMPS *lmp, EdgeGraph *graph, int num_threads) :
    Pair(lmp), parts(new Parts(lmp, this, graph, num_threads))
{
  single_enable = 0;
  restartinfo = 0;
  one_coeff = 1;
  manybody_flag = 1;
  no_virial_fdotr_compute = 1;    // the virial comes from the edges
  centroidstressflag = CENTROID_AVAIL;
  unit_convert_flag = utils::get_supported_conversions(utils::ENERGY);

  // enough for owners, forces and virials; coeff adds what the features of the model take
  comm_forward = 2;
  comm_reverse = comm_reverse_off = 9;
}

/* ---------------------------------------------------------------------- */

PairTDN::~PairTDN()
{
  if (copymode) return;
  delete parts;
  if (allocated) {
    memory->destroy(setflag);
    memory->destroy(cutsq);
  }
}

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
                  [direct yes|no] [e0 yes|no]
------------------------------------------------------------------------- */

void PairTDN::settings(int narg, char **arg)
{
  parts->file.device = "auto";
  parts->comm_mode = CommMode::AUTO;
  parts->file.check = true;
  parts->file.direct = false;
  parts->file.keep_e0 = true;

  for (int iarg = 0; iarg < narg; iarg += 2) {
    const std::string keyword = arg[iarg];
    if (keyword != "device" && keyword != "comm" && keyword != "check" && keyword != "direct" &&
        keyword != "e0")
      error->all(FLERR,
                 "Pair style tdn: unknown keyword '{}', expected device, comm, check, direct or e0",
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
    } else if (keyword == "check") {
      parts->file.check = utils::logical(FLERR, value, false, lmp) == 1;
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

  if (!allocated) allocate();
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

  if (parts->file.metadata().direct_forces) refuse_virial(lmp);
  if (parts->file.keep_e0) refuse_insertions(lmp, parts->file.isolated_energies());
  check_types(lmp, parts->elements);

  // a hybrid style has asked for these before the model was known
  Pair *top = force->pair;
  top->comm_forward = std::max(top->comm_forward, comm_forward);
  top->comm_reverse = std::max(top->comm_reverse, comm_reverse);
  top->comm_reverse_off = std::max(top->comm_reverse_off, comm_reverse_off);

  keep_special_neighbors(lmp);
  neighbor->add_request(this, NeighConst::REQ_FULL);
  parts->last_build = -1;
}

/* ---------------------------------------------------------------------- */

double PairTDN::init_one(int i, int j)
{
  if (setflag[i][j] == 0) error->all(FLERR, "All pair coeffs are not set");
  return parts->file.metadata().r_max;
}

/* ---------------------------------------------------------------------- */

void *PairTDN::extract(const char *name, int &dim)
{
  if (strcmp(name, "force_deviation_flag") != 0) return nullptr;
  dim = 0;
  return parts->committee.wanted_flag();
}

/* ---------------------------------------------------------------------- */

void *PairTDN::extract_peratom(const char *name, int &columns)
{
  if (strcmp(name, "force_deviation") != 0) return nullptr;
  columns = 0;
  return parts->committee.deviation();
}

/* ---------------------------------------------------------------------- */

Neighbors PairTDN::neighbors() const
{
  return {list->inum, list->ilist, list->numneigh, list->firstneigh, nullptr, 0, 0};
}

/* ---------------------------------------------------------------------- */

void PairTDN::exchange_with(RowExchange *rows)
{
  parts->rows.reset(rows);
}

/* ---------------------------------------------------------------------- */

tdn::TDNModel &PairTDN::model()
{
  return parts->file.model();
}

double PairTDN::scale() const
{
  return parts->scale;
}

std::vector<double> PairTDN::left_out_e0() const
{
  const std::vector<double> &e0 = parts->file.isolated_energies();
  return parts->file.keep_e0 ? std::vector<double>(e0.size(), 0.0) : e0;
}

/* ---------------------------------------------------------------------- */

void PairTDN::compute(int eflag, int vflag)
{
  ev_init(eflag, vflag);
  parts->committee.begin_step();

  // LAMMPS asks for the virial at every thermo output, whether or not that shows a pressure
  if (vflag_global && parts->file.metadata().direct_forces)
    std::fill_n(virial, 6, std::numeric_limits<double>::quiet_NaN());

  EdgeGraph &graph = parts->graph;
  try {
    // all ranks decide alike, since they communicate in it
    const bool rebuild = neighbor->ago == 0 || neighbor->ncalls != parts->last_build;
    if (rebuild) {
      const Neighbors found = neighbors();
      graph.number_local(found);
      graph.build_pairs(found, parts->rows->find_owners());
      parts->last_build = neighbor->ncalls;
    }
    // the set command and some fixes change types of local atoms alone
    const bool changed = graph.read_species(parts->exchanges && !rebuild);
    if (parts->exchanges && !rebuild) parts->rows->share_types(changed);
    graph.update();
    if (rebuild) parts->resources.check_memory(parts->file.model(), graph.view());

    // with exchange the ranks without atoms take part
    if (parts->exchanges ? atom->natoms > 0 : list->inum > 0) evaluate();
  } catch (const LAMMPSException &) {
    throw;
  } catch (const std::bad_alloc &) {
    error->one(FLERR, "Pair style tdn: out of memory; use more nodes or a smaller system ({} atoms "
               "and {} ghosts on this rank)", atom->nlocal, atom->nghost);
  } catch (const std::exception &e) {
    error->one(FLERR, "Pair style tdn: {} ({} atoms and {} ghosts on this rank)", e.what(),
               list->inum, atom->nghost);
  }
}

/* ----------------------------------------------------------------------
   energies and forces of the model, added to those of LAMMPS
------------------------------------------------------------------------- */

void PairTDN::evaluate()
{
  tdn::TDNModel &model = parts->file.model();
  const tdn::Graph graph = parts->graph.view();
  RowExchange *const exchange = parts->exchanges ? parts->rows.get() : nullptr;
  const bool direct = parts->file.metadata().direct_forces;
  const bool members = parts->committee.wanted();

  parts->rows->clear_counts();
  double sum;    // of everything, to see whether it is finite
  const double *member_values;
  if (model.takes_positions()) {
    tdn::Forces result =
        model.evaluate(parts->graph.pairs(), exchange, vflag_atom || cvflag_atom, members);
    sum = tally(result);
    member_values = result.members;
  } else {
    const tdn::Evaluation result = model.evaluate(graph, exchange, members);
    // pointers do not tell, since they are null on a rank without atoms
    if (direct)
      tally_forces(result.forces);
    else
      tally_edges(result.edge_gradient);
    const double *const forces = direct ? result.forces : parts->sums.force.data();
    sum = std::accumulate(forces, forces + 3 * (direct ? graph.num_local : graph.num_all),
                          tally_energies(result.atom_energy, graph.species));
    member_values = result.members;
  }
  if (exchange && parts->report_exchanges) {
    parts->rows->log_counts();
    parts->report_exchanges = false;
  }
  if (members)
    parts->committee.set_deviation(graph, parts->graph.nodes(), member_values,
                                   direct || model.takes_positions(), exchange, parts->scale);
  if (parts->file.check && !std::isfinite(sum)) report_not_finite();
}

/* ---------------------------------------------------------------------- */

void PairTDN::report_not_finite()
{
  const EdgeGraph::Closest pair = parts->graph.closest();
  const std::string where = pair.atom < 0
      ? "this rank has no two atoms within the cutoff"
      : fmt::format("the closest atoms are {} and {}, {:.3g} A apart", atom->tag[pair.atom],
                    atom->tag[pair.other], pair.distance);
  error->one(FLERR,
             "Pair style tdn: the model gives energies or forces that are not finite; {}; look at "
             "the structure and the timestep, or go on with: pair_style tdn check no",
             where);
}

/* ---------------------------------------------------------------------- */

int PairTDN::pack_forward_comm(int n, int *atoms, double *buf, int /*pbc_flag*/, int * /*pbc*/)
{
  return parts->rows->pack_forward(n, atoms, buf);
}

void PairTDN::unpack_forward_comm(int n, int first, double *buf)
{
  parts->rows->unpack_forward(n, first, buf);
}

int PairTDN::pack_reverse_comm(int n, int first, double *buf)
{
  return parts->rows->pack_reverse(n, first, buf);
}

void PairTDN::unpack_reverse_comm(int n, int *atoms, double *buf)
{
  parts->rows->unpack_reverse(n, atoms, buf);
}

/* ---------------------------------------------------------------------- */

double PairTDN::memory_usage()
{
  return Pair::memory_usage() + parts->graph.memory_usage() + parts->rows->memory_usage() +
      parts->sums.memory_usage() + parts->committee.memory_usage();
}

/* ---------------------------------------------------------------------- */

extern "C" __attribute__((visibility("default"))) void *tdn_create_pair(void *lmp)
{
  return static_cast<Pair *>(new PairTDN(static_cast<LAMMPS *>(lmp)));
}
