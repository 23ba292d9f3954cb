/* ----------------------------------------------------------------------
   SPDX-License-Identifier: GPL-2.0-only

   Pair style tdn for LAMMPS (https://www.lammps.org/): the order of work in a step.
------------------------------------------------------------------------- */

#include "pair_tdn.h"

#include "input_checks.h"
#include "pair_parts.h"

#include "model/tdn_model.h"

#include "atom.h"
#include "comm.h"
#include "error.h"
#include "exceptions.h"
#include "force.h"
#include "memory.h"
#include "neigh_list.h"
#include "neighbor.h"

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
  if (parts->graph.finds_pairs()) return {};
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
      if (graph.finds_pairs() && has_exclusions(lmp))
        error->all(FLERR, "Pair style tdn: pairs are excluded since this run began, and the model "
                   "finds all of them; use: pair_style tdn neighbors lammps");
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
    if (parts->exchanges ? atom->natoms > 0 : graph.nodes().num_local() > 0) evaluate();
  } catch (const LAMMPSException &) {
    throw;
  } catch (const std::bad_alloc &) {
    error->one(FLERR, "Pair style tdn: out of memory; use more nodes or a smaller system ({} atoms "
               "and {} ghosts on this rank)", atom->nlocal, atom->nghost);
  } catch (const std::exception &e) {
    error->one(FLERR, "Pair style tdn: {} ({} atoms and {} ghosts on this rank)", e.what(),
               graph.nodes().num_local(), atom->nghost);
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
    if (parts->file.graphs) report_graphs();
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

void PairTDN::report_graphs()
{
  const std::string failure = model().graphs_failure();
  if (failure.empty() || failure == parts->reported_failure) return;
  parts->reported_failure = failure;
  error->warning(FLERR, "Pair style tdn: steps cannot be recorded here and go on as with graphs no: {}",
                 failure);
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
