/* ----------------------------------------------------------------------
   SPDX-License-Identifier: GPL-2.0-only

   Pair style tdn for LAMMPS (https://www.lammps.org/): settings, model and initialisation.
   The work of every step is in pair_tdn_compute.cpp, communication in pair_tdn_comm.cpp, the
   deviation of committees in pair_tdn_committee.cpp, and what concerns cores and memory in
   pair_tdn_resources.cpp.
------------------------------------------------------------------------- */

#include "pair_tdn.h"

#include "model/cache.h"
#include "model/tdn_model.h"

#include "atom.h"
#include "comm.h"
#include "compute.h"
#include "error.h"
#include "force.h"
#include "memory.h"
#include "modify.h"
#include "neighbor.h"
#include "update.h"

#include <algorithm>
#include <cstring>
#include <exception>

using namespace LAMMPS_NS;

// longest part of a row that is sent in one message, in doubles; longer rows take several
static constexpr int MAX_COMM_VALUES = 256;

// a weight of special_bonds that is not 0, but makes any energy vanish
static constexpr double ALMOST_ZERO = 1.0e-50;

/* ---------------------------------------------------------------------- */

PairTDN::PairTDN(LAMMPS *lmp) :
    Pair(lmp), device("auto"), comm_setting(CommMode::AUTO), comm_mode(CommMode::FOLD),
    check_reference(true), direct(false), scale(1.0), sharers(MPI_COMM_NULL), admitted_memory(0.0),
    num_local(0), num_all(0), last_list(nullptr), num_received(0), last_build(-1), nodes_valid(false), num_edges(0),
    deviation_flag(0), deviation_valid(false), rows{}, report_exchanges(false)
{
  single_enable = 0;
  restartinfo = 0;
  one_coeff = 1;
  manybody_flag = 1;
  no_virial_fdotr_compute = 1;    // the virial comes from the edges
  centroidstressflag = CENTROID_AVAIL;
  unit_convert_flag = utils::get_supported_conversions(utils::ENERGY);

  // enough for forces and virials; the features of the model follow with the model
  comm_forward = 2;    // rank and node of an owner
  comm_reverse = comm_reverse_off = 9;
}

/* ---------------------------------------------------------------------- */

PairTDN::~PairTDN()
{
  if (copymode) return;
  if (sharers != MPI_COMM_NULL) MPI_Comm_free(&sharers);
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
                  [direct yes|no]
------------------------------------------------------------------------- */

void PairTDN::settings(int narg, char **arg)
{
  device = "auto";
  comm_setting = CommMode::AUTO;
  check_reference = true;
  direct = false;

  for (int iarg = 0; iarg < narg; iarg += 2) {
    const std::string keyword = arg[iarg];
    if (keyword != "device" && keyword != "comm" && keyword != "check" && keyword != "direct")
      error->all(FLERR,
                 "Pair style tdn: unknown keyword '{}', expected device, comm, check or direct",
                 keyword);
    if (iarg + 1 >= narg) utils::missing_cmd_args(FLERR, "pair_style tdn " + keyword, error);
    const std::string value = arg[iarg + 1];

    if (keyword == "device") {
      if (value != "auto" && value != "cpu" && value != "cuda" &&
          !utils::strmatch(value, "^cuda:\\d+$"))
        error->all(FLERR, "Pair style tdn: unknown device '{}', expected auto, cpu, cuda or cuda:N",
                   value);
      device = value;
    } else if (keyword == "comm") {
      if (value == "auto")
        comm_setting = CommMode::AUTO;
      else if (value == "fold")
        comm_setting = CommMode::FOLD;
      else if (value == "exchange")
        comm_setting = CommMode::EXCHANGE;
      else
        error->all(FLERR, "Pair style tdn: unknown comm '{}', expected auto, fold or exchange",
                   value);
    } else if (keyword == "check") {
      check_reference = utils::logical(FLERR, value, false, lmp) == 1;
    } else {
      direct = utils::logical(FLERR, value, false, lmp) == 1;
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
    scale = 1.0;
  else if (strcmp(update->unit_style, "real") == 0)
    scale = utils::get_conversion_factor(utils::ENERGY, utils::METAL2REAL);
  else
    error->all(FLERR, "Pair style tdn: found units {}, expected units metal or real",
               update->unit_style);

  load_model(arg[2]);
  const auto &species = model->metadata().species;

  if (!allocated) allocate();
  type2species.assign(atom->ntypes + 1, -1);
  for (int type = 1; type <= atom->ntypes; type++) {
    const std::string element = arg[2 + type];
    if (element == "NULL") continue;
    const auto found = std::find(species.begin(), species.end(), element);
    if (found == species.end())
      error->all(FLERR, "Pair style tdn: element {} of atom type {} is not in {}, which knows: {}",
                 element, type, arg[2], utils::join_words(species, " "));
    type2species[type] = static_cast<int>(found - species.begin());
  }
  map_element2type(narg - 3, arg + 3);
}

/* ---------------------------------------------------------------------- */

void PairTDN::load_model(const std::string &name)
{
  const std::string path = utils::get_potential_file_path(name);
  fail_together(path.empty() ? "the model file " + name +
                        " was not found in the current folder or in LAMMPS_POTENTIALS"
                             : "");
  int node_rank;
  const int threads = share_node(node_rank);
  std::string failure;
  try {
    if (threads > 0) tdn::TDNModel::set_num_threads(threads);
    model.reset();
    model = tdn::open_model(path, device, node_rank, check_reference);
  } catch (const std::exception &e) {
    failure = e.what();
  }
  fail_together(failure);
  model_path = path;

  const bool is_direct = model->metadata().direct_forces;
  if (is_direct && !direct)
    error->all(FLERR,
               "Pair style tdn: the forces of {} are not the gradient of its energy, so energy is "
               "not conserved and there is no pressure; export a model with model.forces = "
               "gradient, or accept this with: pair_style tdn direct yes",
               path);
  if (is_direct && comm->me == 0)
    error->warning(FLERR,
                   "Pair style tdn: the forces of {} are not the gradient of its energy: energy is "
                   "not conserved, and pressure and virial are not available (thermo output shows "
                   "nan; leave press out of thermo_style)",
                   path);

  if (sharers != MPI_COMM_NULL) MPI_Comm_free(&sharers);
  MPI_Comm node;
  MPI_Comm_split_type(world, MPI_COMM_TYPE_SHARED, comm->me, MPI_INFO_NULL, &node);
  MPI_Comm_split(node, model->gpu_index() + 1, comm->me, &sharers);
  MPI_Comm_free(&node);
  admitted_memory = 0.0;
  report_exchanges = true;

  const int values = static_cast<int>((model->exchange_bytes() + 7) / 8);
  comm_forward = std::max(2, std::min(values, MAX_COMM_VALUES));
  const int member_values = std::min(3 * model->metadata().committee, MAX_COMM_VALUES);
  comm_reverse = comm_reverse_off = std::max({9, comm_forward, member_values});

  if (comm->me == 0) {
    const auto &metadata = model->metadata();
    const std::string committee =
        metadata.committee > 1 ? fmt::format("committee of {}, ", metadata.committee) : "";
    utils::logmesg(lmp,
                   "TDN model {}: {}{}, {} layers, cutoff {} A, {}, species {}, written by tdn {}\n"
                   "  running on {} with {} thread(s) per rank; reference structure {}\n",
                   path, committee, metadata.architecture, metadata.num_layers, metadata.r_max,
                   metadata.dtype, utils::join_words(metadata.species, " "), metadata.tdn_version,
                   model->device(), tdn::TDNModel::num_threads(),
                   check_reference ? "reproduced" : "not checked");
  }
}

/* ----------------------------------------------------------------------
   stop all ranks with the message of the first one that has failed
------------------------------------------------------------------------- */

void PairTDN::fail_together(const std::string &failure)
{
  const int mine = failure.empty() ? comm->nprocs : comm->me;
  int first;
  MPI_Allreduce(&mine, &first, 1, MPI_INT, MPI_MIN, world);
  if (first == comm->nprocs) return;

  int length = static_cast<int>(failure.size());
  MPI_Bcast(&length, 1, MPI_INT, first, world);
  std::string message = failure;
  message.resize(length);
  MPI_Bcast(&message[0], length, MPI_CHAR, first, world);
  error->all(FLERR, "Pair style tdn: " + message);
}

/* ---------------------------------------------------------------------- */

void PairTDN::init_style()
{
  if (!model)
    error->all(FLERR,
               "Pair style tdn: no model was given; add: pair_coeff * * FILE ELEMENTS");

  comm_mode = comm_setting;
  if (comm_mode == CommMode::AUTO)
    comm_mode = comm->nprocs == 1 ? CommMode::FOLD : CommMode::EXCHANGE;
  if (comm_mode == CommMode::FOLD && comm->nprocs > 1)
    error->all(FLERR, "Pair style tdn: comm fold works on one MPI rank, found {}; use comm auto",
               comm->nprocs);

  if (model->metadata().direct_forces) refuse_virial();

  // a hybrid style has asked for these before the model was known
  Pair *top = force->pair;
  top->comm_forward = std::max(top->comm_forward, comm_forward);
  top->comm_reverse = std::max(top->comm_reverse, comm_reverse);
  top->comm_reverse_off = std::max(top->comm_reverse_off, comm_reverse_off);

  keep_special_neighbours();
  neighbor->add_request(this, NeighConst::REQ_FULL);
  nodes_valid = false;
}

/* ----------------------------------------------------------------------
   weights of zero, the default of special_bonds, take bonded atoms out of the neighbour list. A
   weight that is as good as zero for all other styles keeps them in.
------------------------------------------------------------------------- */

void PairTDN::keep_special_neighbours()
{
  if (atom->molecular == Atom::ATOMIC) return;
  bool changed = false;
  for (int kind = 1; kind <= 3; kind++) {
    if (force->special_lj[kind] != 0.0 || force->special_coul[kind] != 0.0) continue;
    force->special_lj[kind] = force->special_coul[kind] = ALMOST_ZERO;
    changed = true;
  }
  bigint bonded = 0;
  if (atom->nspecial)
    for (int i = 0; i < atom->nlocal; i++) bonded += atom->nspecial[i][2] > 0;
  bigint total;
  MPI_Allreduce(&bonded, &total, 1, MPI_LMP_BIGINT, MPI_SUM, world);
  if (changed && (total > 0 || atom->molecular == Atom::TEMPLATE) && comm->me == 0)
    error->warning(FLERR,
                   "Pair style tdn: special_bonds weights of 0 hide bonded neighbours, which the "
                   "model needs; the weights are now {}",
                   ALMOST_ZERO);
}

/* ----------------------------------------------------------------------
   a model with direct forces has no virial; what thermo output may ask for becomes nan instead
------------------------------------------------------------------------- */

void PairTDN::refuse_virial()
{
  for (const Compute *compute : modify->get_compute_list()) {
    if (!compute->pressatomflag && (!compute->pressflag || !strcmp(compute->id, "thermo_press")))
      continue;
    error->all(FLERR,
               "Pair style tdn: compute {} {} needs a virial, and a model with direct forces has "
               "none; leave it out, or the fix that made it (fix nve and fix nvt need none)",
               compute->id, compute->style);
  }
}

/* ---------------------------------------------------------------------- */

double PairTDN::init_one(int i, int j)
{
  if (setflag[i][j] == 0) error->all(FLERR, "All pair coeffs are not set");
  return model->metadata().r_max;
}

/* ---------------------------------------------------------------------- */

extern "C" __attribute__((visibility("default"))) void *tdn_create_pair(void *lmp)
{
  return static_cast<Pair *>(new PairTDN(static_cast<LAMMPS *>(lmp)));
}
