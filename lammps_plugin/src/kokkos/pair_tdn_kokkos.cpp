/* ----------------------------------------------------------------------
   SPDX-License-Identifier: GPL-2.0-only

   Pair style tdn/kk for LAMMPS (https://www.lammps.org/): tdn on the data of KOKKOS.
------------------------------------------------------------------------- */

#include "kokkos/pair_tdn_kokkos.h"

#include "pair/neighbors.h"

#include "model/stream_scope.h"
#include "model/tdn_model.h"

#include "atom_kokkos.h"
#include "atom_masks.h"
#include "comm.h"
#include "error.h"
#include "kokkos.h"
#include "neigh_list_kokkos.h"
#include "neigh_request.h"
#include "neighbor.h"

#include <algorithm>
#include <memory>
#include <string>
#include <type_traits>
#include <vector>

using namespace LAMMPS_NS;

static_assert(!DAT::ttransform_kkfloat_1d_3_lr::NEED_TRANSFORM &&
                  std::is_same_v<KK_ACC_FLOAT, double>,
              "pair_style tdn/kk is for KOKKOS in double precision");

/* ---------------------------------------------------------------------- */

static int threads_of_kokkos(LAMMPS *lmp)
{
  if (!lmp->kokkos)
    lmp->error->all(FLERR,
                    "Pair style tdn/kk: KOKKOS is off; start LAMMPS with -k on, or use pair_style "
                    "tdn");
  return lmp->kokkos->nthreads;
}

template <class DeviceType>
PairTDNKokkos<DeviceType>::PairTDNKokkos(LAMMPS *lmp) : PairTDNKokkos(lmp, new Graph(lmp))
{
}

template <class DeviceType>
PairTDNKokkos<DeviceType>::PairTDNKokkos(LAMMPS *lmp, Graph *graph) :
    PairTDN(lmp, graph, threads_of_kokkos(lmp)), graph(*graph), rows(*new Rows(lmp, this, *graph))
{
  exchange_with(&rows);
  kokkosable = 1;
  reverse_comm_device = 1;
  // also on the CPU, where KOKKOS then communicates in its own buffers
  execution_space = std::is_same_v<DeviceType, LMPDeviceType> ? Device : HostKK;
  datamask_read = X_MASK | F_MASK | TYPE_MASK | TAG_MASK | ENERGY_MASK | VIRIAL_MASK;
  datamask_modify = F_MASK | ENERGY_MASK | VIRIAL_MASK;
}

/* ----------------------------------------------------------------------
   on a GPU the model is where KOKKOS is
------------------------------------------------------------------------- */

template <class DeviceType> void PairTDNKokkos<DeviceType>::settings(int narg, char **arg)
{
  std::string device = "device", gpu = "cuda:" + std::to_string(Kokkos::device_id());
  std::vector<char *> args;
  if (!ON_HOST) args = {&device[0], &gpu[0]};
  args.insert(args.end(), arg, arg + narg);
  PairTDN::settings(static_cast<int>(args.size()), args.data());
}

/* ---------------------------------------------------------------------- */

template <class DeviceType> void PairTDNKokkos<DeviceType>::coeff(int narg, char **arg)
{
  PairTDN::coeff(narg, arg);
  report_places = true;
}

/* ---------------------------------------------------------------------- */

template <class DeviceType> void PairTDNKokkos<DeviceType>::init_style()
{
  PairTDN::init_style();
  if (!ON_HOST && (!model().takes_positions() || model().gpu_index() != Kokkos::device_id()))
    error->all(FLERR,
               "Pair style tdn/kk: found a model that {} on {}, expected one that takes positions "
               "on cuda:{}, where KOKKOS is; use pair_style tdn",
               model().takes_positions() ? "takes positions" : "takes edges", model().device(),
               Kokkos::device_id());
  auto *const request = neighbor->find_request(this);
  request->set_kokkos_device(execution_space == Device);
  request->set_kokkos_host(execution_space == HostKK);
  const std::vector<double> values = left_out_e0();
  e0 = Kokkos::View<double *, DeviceType>("tdn:e0", values.size());
  Kokkos::deep_copy(e0, Kokkos::View<const double *, Kokkos::HostSpace,
                                     Kokkos::MemoryTraits<Kokkos::Unmanaged>>(values.data(),
                                                                              values.size()));
}

/* ---------------------------------------------------------------------- */

template <class DeviceType> Neighbors PairTDNKokkos<DeviceType>::neighbors() const
{
  const auto *const found = static_cast<NeighListKokkos<DeviceType> *>(list);
  return {found->inum,
          found->d_ilist.data(),
          found->d_numneigh.data(),
          nullptr,
          found->d_neighbors.data(),
          found->d_neighbors.stride(0),
          found->d_neighbors.stride(1)};
}

/* ---------------------------------------------------------------------- */

template <class DeviceType> void PairTDNKokkos<DeviceType>::compute(int eflag, int vflag)
{
  atomKK->sync(execution_space, datamask_read);
  if (!ON_HOST) atomKK->sync(Host, TYPE_MASK);    // which are sent to ghosts when they change
  copies.clear();
  if (ON_HOST) DeviceType().fence();    // KOKKOS may still write to what the model reads
#ifdef KOKKOS_ENABLE_CUDA
  std::unique_ptr<tdn::StreamScope> scope;
  if (!ON_HOST)
    scope.reset(new tdn::StreamScope(Kokkos::Cuda().cuda_stream(), Kokkos::device_id()));
#endif
  PairTDN::compute(eflag, vflag);
  atomKK->modified(execution_space, datamask_modify);
  if (report_places && atom->natoms > 0) log_places();
}

/* ----------------------------------------------------------------------
   results for loops on the host; copies if they are on a GPU
------------------------------------------------------------------------- */

template <class DeviceType>
const double *PairTDNKokkos<DeviceType>::on_host(const double *values, int64_t count)
{
  if (ON_HOST || !values) return values;
  copies.emplace_back("tdn:results", count);
  Kokkos::deep_copy(copies.back(), Foreign<double>(values, count));
  return copies.back().data();
}

/* ----------------------------------------------------------------------
   energies and forces where they are; what LAMMPS has on the host, on the host
------------------------------------------------------------------------- */

template <class DeviceType> double PairTDNKokkos<DeviceType>::tally(tdn::Forces &result)
{
  const int n = graph.nodes().num_local();
  const auto f = atomKK->k_f.template view<DeviceType>();
  const auto atoms = graph.atoms();
  const auto species = graph.species();
  const auto left_out = e0;
  const double energy_unit = scale();
  const Foreign<double> energies(result.atom_energy, n), forces(result.forces, 3 * n);
  Graph::reduce(
      "tdn:tally", n,
      KOKKOS_LAMBDA(const int node, StepSums &sum) {
        sum.energy += energies(node) - left_out(species(node));
        for (int a = 0; a < 3; a++) {
          f(atoms(node), a) += energy_unit * forces(3 * node + a);
          sum.force += forces(3 * node + a);
        }
      },
      graph.result_sums());
  const StepSums sums = graph.wait_for_results();

  if (eflag_atom) {
    const auto species_on_host = Kokkos::create_mirror_view_and_copy(Kokkos::HostSpace(), species);
    tally_energies(on_host(result.atom_energy, n), species_on_host.data());
  } else if (eflag_global) {
    eng_vdwl += energy_unit * sums.energy;
  }
  const int64_t rows = vflag_atom || cvflag_atom ? 9 * static_cast<int64_t>(n) : 0;
  if (vflag_global) result.virial = on_host(result.virial, 9);    // each copy waits for the GPU
  result.atom_virial = on_host(result.atom_virial, rows);
  result.centroid = on_host(result.centroid, rows);
  const int64_t members = model().metadata().committee;
  result.members = on_host(result.members, 3 * members * n);
  tally_virials(result);
  return sums.energy + sums.force;
}

/* ----------------------------------------------------------------------
   whether the model works where KOKKOS has its data, seen from the addresses of this step
------------------------------------------------------------------------- */

template <class DeviceType> void PairTDNKokkos<DeviceType>::log_places()
{
  report_places = false;
  const char *const places = !model().takes_positions() ? "positions as edges"
      : model().has_read(graph.pairs())                 ? "positions and pairs in place"
                                                        : "positions and pairs copied";
  if (comm->me == 0)
    utils::logmesg(lmp, "TDN with KOKKOS ({}, {} thread(s)): {}\n", DeviceType::name(),
                   lmp->kokkos->nthreads, places);
}

/* ---------------------------------------------------------------------- */

template <class DeviceType>
int PairTDNKokkos<DeviceType>::pack_forward_comm_kokkos(int n, DAT::tdual_int_1d atoms,
                                                        DAT::tdual_double_1d &buf, int, int *)
{
  return rows.pack_forward(n, atoms, buf);
}

template <class DeviceType>
void PairTDNKokkos<DeviceType>::unpack_forward_comm_kokkos(int n, int first,
                                                           DAT::tdual_double_1d &buf)
{
  rows.unpack_forward(n, first, buf);
  take_types();
}

template <class DeviceType>
void PairTDNKokkos<DeviceType>::unpack_forward_comm(int n, int first, double *buf)
{
  PairTDN::unpack_forward_comm(n, first, buf);
  take_types();
}

template <class DeviceType> void PairTDNKokkos<DeviceType>::take_types()
{
  if (!ON_HOST && rows.carries_types()) atomKK->modified(Host, TYPE_MASK);
}

template <class DeviceType>
int PairTDNKokkos<DeviceType>::pack_reverse_comm_kokkos(int n, int first,
                                                        DAT::tdual_double_1d &buf)
{
  return rows.pack_reverse(n, first, buf);
}

template <class DeviceType>
void PairTDNKokkos<DeviceType>::unpack_reverse_comm_kokkos(int n, DAT::tdual_int_1d atoms,
                                                           DAT::tdual_double_1d &buf)
{
  rows.unpack_reverse(n, atoms, buf);
}

/* ---------------------------------------------------------------------- */

extern "C" __attribute__((visibility("default"))) void *tdn_create_pair_kokkos(void *lmp)
{
  return static_cast<Pair *>(new PairTDNKokkos<LMPDeviceType>(static_cast<LAMMPS *>(lmp)));
}

extern "C" __attribute__((visibility("default"))) void *tdn_create_pair_kokkos_host(void *lmp)
{
  return static_cast<Pair *>(new PairTDNKokkos<LMPHostType>(static_cast<LAMMPS *>(lmp)));
}
