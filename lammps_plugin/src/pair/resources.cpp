/* ----------------------------------------------------------------------
   SPDX-License-Identifier: GPL-2.0-only

   Pair style tdn for LAMMPS (https://www.lammps.org/): cores and memory.
------------------------------------------------------------------------- */

#include "pair_tdn.h"

#include "model/tdn_model.h"

#include "atom.h"
#include "comm.h"
#include "error.h"
#include "universe.h"

#include <algorithm>
#include <cstdlib>
#include <sched.h>

using namespace LAMMPS_NS;

/* ----------------------------------------------------------------------
   number of threads that give each rank of this node its share of the cores,
   0 if the user has chosen it; node_rank tells the ranks of this node apart
------------------------------------------------------------------------- */

int PairTDN::share_node(int &node_rank)
{
  MPI_Comm node;
  MPI_Comm_split_type(world, MPI_COMM_TYPE_SHARED, comm->me, MPI_INFO_NULL, &node);
  int node_ranks;
  MPI_Comm_rank(node, &node_rank);
  MPI_Comm_size(node, &node_ranks);

  // ranks may be bound to cores of their own or may all see the same ones
  cpu_set_t mine, all;
  CPU_ZERO(&mine);
  sched_getaffinity(0, sizeof(mine), &mine);
  MPI_Allreduce(&mine, &all, static_cast<int>(sizeof(all)), MPI_BYTE, MPI_BOR, node);
  int cores = CPU_COUNT(&mine), sum_cores;
  MPI_Allreduce(&cores, &sum_cores, 1, MPI_INT, MPI_SUM, node);
  MPI_Comm_free(&node);
  double share = static_cast<double>(CPU_COUNT(&all)) * cores / std::max(sum_cores, 1);

  // other partitions may be on this node; they cannot be asked, since their scripts may differ
  node_rank += universe->root_proc[universe->iworld];
  if (universe->nworlds > 1 && cores == CPU_COUNT(&all))
    share = std::min(share, static_cast<double>(cores) / universe->nprocs);

  const char *chosen = std::getenv("OMP_NUM_THREADS");
  if (!chosen || !*chosen) return std::max(1, static_cast<int>(share));
  const int threads = std::atoi(chosen);
  if (comm->me == 0 && threads > 1 && threads > share)
    error->warning(FLERR,
                   "Pair style tdn: {} rank(s) with OMP_NUM_THREADS={} share {} core(s) of this "
                   "node and hinder each other; unset OMP_NUM_THREADS or use fewer threads",
                   node_ranks, threads, CPU_COUNT(&all));
  return 0;
}

/* ----------------------------------------------------------------------
   estimate the memory of an evaluation before it allocates any; all ranks call this. Only what
   exceeds earlier steps by 10 percent is compared with the memory there is.
------------------------------------------------------------------------- */

// of what lives at once; the heap falls into pieces, and densities differ from the reference
static constexpr double MARGIN = 1.25;

void PairTDN::require_memory()
{
  const auto num_nodes = num_local + static_cast<int64_t>(ghost_atoms.size());
  const double needed = MARGIN * model->memory_cost().bytes(num_nodes, num_edges);
  double sum;
  MPI_Allreduce(&needed, &sum, 1, MPI_DOUBLE, MPI_SUM, sharers);

  std::string failure;
  if (sum > 1.1 * admitted_memory) {
    // earlier evaluations may still hold what they used
    double available = model->available_memory() + admitted_memory, least;
    MPI_Allreduce(&available, &least, 1, MPI_DOUBLE, MPI_MIN, sharers);
    // of all ranks that share the memory: any single one may have few atoms, or none
    bigint atoms = num_local, total;
    MPI_Allreduce(&atoms, &total, 1, MPI_LMP_BIGINT, MPI_SUM, sharers);
    int num_sharers;
    MPI_Comm_size(sharers, &num_sharers);
    if (sum > least) {
      failure = fmt::format(
          "this step needs about {:.3g} GB on this rank ({} atoms, {} ghosts, {} edges) and {:.3g} "
          "GB in all on its {}, where {:.3g} GB are left; about {} atoms per rank would fit; use "
          "more nodes, a smaller system or a smaller model",
          1e-9 * needed, num_local, atom->nghost, num_edges, 1e-9 * sum,
          model->gpu_index() < 0 ? "node" : "GPU", 1e-9 * least,
          static_cast<bigint>(static_cast<double>(total) / num_sharers * least / sum));
    }
    admitted_memory = sum;
  }
  fail_together(failure);
}

/* ---------------------------------------------------------------------- */

double PairTDN::memory_usage()
{
  const auto bytes_of = [](const auto &values) {
    return static_cast<double>(sizeof(values[0]) * values.capacity());
  };
  return Pair::memory_usage() + bytes_of(node_of_atom) + bytes_of(atom_of_node) +
      bytes_of(node_species) + bytes_of(ghost_atoms) + bytes_of(ghost_node) +
      bytes_of(idle_rows) + bytes_of(pairs_begin) + bytes_of(pair_atom) + bytes_of(pair_node) +
      bytes_of(edge_index) + bytes_of(edge_vec) + bytes_of(node_force) + bytes_of(node_virial) +
      bytes_of(node_centroid) + bytes_of(member_force) + bytes_of(force_deviation);
}
