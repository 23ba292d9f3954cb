/* ----------------------------------------------------------------------
   SPDX-License-Identifier: GPL-2.0-only

   Pair style tdn for LAMMPS (https://www.lammps.org/): cores, devices and memory that ranks share.
------------------------------------------------------------------------- */

#include "resources.h"

#include "model/tdn_model.h"

#include "atom.h"
#include "comm.h"
#include "error.h"
#include "universe.h"

#include <algorithm>
#include <cstdlib>
#include <mpi.h>
#include <sched.h>

using namespace LAMMPS_NS;

/* ----------------------------------------------------------------------
   the ranks of this simulation on this node
------------------------------------------------------------------------- */

namespace {
struct NodeRanks {
  MPI_Comm comm;
  int me, count;

  explicit NodeRanks(MPI_Comm world)
  {
    MPI_Comm_split_type(world, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &comm);
    MPI_Comm_rank(comm, &me);
    MPI_Comm_size(comm, &count);
  }
  ~NodeRanks() { MPI_Comm_free(&comm); }
  NodeRanks(const NodeRanks &) = delete;
  NodeRanks &operator=(const NodeRanks &) = delete;
};
}    // namespace

/* ---------------------------------------------------------------------- */

int Resources::rank_on_node() const
{
  return NodeRanks(world).me + universe->root_proc[universe->iworld];
}

/* ---------------------------------------------------------------------- */

int Resources::threads_per_rank() const
{
  if (chosen_threads > 0) return chosen_threads;
  const NodeRanks node(world);

  // ranks may be bound to cores of their own or may all see the same ones
  cpu_set_t mine, all;
  CPU_ZERO(&mine);
  sched_getaffinity(0, sizeof(mine), &mine);
  MPI_Allreduce(&mine, &all, static_cast<int>(sizeof(all)), MPI_BYTE, MPI_BOR, node.comm);
  int cores = CPU_COUNT(&mine), sum_cores;
  MPI_Allreduce(&cores, &sum_cores, 1, MPI_INT, MPI_SUM, node.comm);
  double share = static_cast<double>(CPU_COUNT(&all)) * cores / std::max(sum_cores, 1);

  // other partitions may be on this node; they cannot be asked, since their scripts may differ
  if (universe->nworlds > 1 && cores == CPU_COUNT(&all))
    share = std::min(share, static_cast<double>(cores) / universe->nprocs);

  const char *chosen = std::getenv("OMP_NUM_THREADS");
  if (!chosen || !*chosen) return std::max(1, static_cast<int>(share));
  const int threads = std::atoi(chosen);
  if (comm->me == 0 && threads > 1 && threads > share)
    error->warning(FLERR,
                   "Pair style tdn: {} rank(s) with OMP_NUM_THREADS={} share {} core(s) of this "
                   "node and hinder each other; unset OMP_NUM_THREADS or use fewer threads",
                   node.count, threads, CPU_COUNT(&all));
  return 0;
}

/* ---------------------------------------------------------------------- */

void Resources::set_model(const tdn::TDNModel &model)
{
  const NodeRanks node(world);
  MPI_Comm sharers;
  MPI_Comm_split(node.comm, model.gpu_index() + 1, 0, &sharers);
  MPI_Comm_size(sharers, &num_sharers);
  MPI_Comm_free(&sharers);
  largest = 0.0;
  warned = false;
}

/* ----------------------------------------------------------------------
   each rank compares its own need with its share of the memory that is left, once the need has
   grown by 10 percent; the worst rank counts
------------------------------------------------------------------------- */

void Resources::check_memory(const tdn::TDNModel &model, const tdn::Graph &graph)
{
  if (warned) return;
  const double needed = model.memory_needed(graph.num_all, graph.num_edges);
  double mine[2] = {0.0, needed}, worst[2];
  if (needed > 1.1 * largest) {
    // earlier evaluations may still hold what they used
    mine[0] = needed / (model.memory_left() / num_sharers + largest);
    largest = needed;
  }
  MPI_Allreduce(mine, worst, 2, MPI_DOUBLE, MPI_MAX, world);
  if (worst[0] <= 1.0) return;
  warned = true;
  if (comm->me == 0)
    error->warning(FLERR,
                   "Pair style tdn: this step may not fit into memory: it needs about {:.3g} GB on "
                   "a rank, whose share of what is left on its {} is {:.3g} GB; about {} of the {} "
                   "atoms would fit; use more nodes, a smaller system or a smaller model",
                   1e-9 * worst[1], model.gpu_index() < 0 ? "node" : "GPU",
                   1e-9 * worst[1] / worst[0],
                   static_cast<bigint>(static_cast<double>(atom->natoms) / worst[0]), atom->natoms);
}
