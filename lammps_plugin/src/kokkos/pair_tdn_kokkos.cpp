/* ----------------------------------------------------------------------
   SPDX-License-Identifier: GPL-2.0-only

   Pair style tdn/kk for LAMMPS (https://www.lammps.org/): tdn on the data of KOKKOS.
------------------------------------------------------------------------- */

#include "kokkos/pair_tdn_kokkos.h"

#include "pair/neighbors.h"
#include "pair/row_exchange.h"

#include "atom_kokkos.h"
#include "atom_masks.h"
#include "comm.h"
#include "error.h"
#include "kokkos.h"
#include "neigh_list_kokkos.h"
#include "neigh_request.h"
#include "neighbor.h"

#include <type_traits>

#ifdef LMP_KOKKOS_GPU
#error "pair_style tdn/kk is for the CPU backends of KOKKOS"
#endif

using namespace LAMMPS_NS;

// one memory for the arrays of LAMMPS and the views of KOKKOS
static_assert(!DAT::ttransform_kkfloat_1d_3_lr::NEED_TRANSFORM &&
                  !DAT::ttransform_kkacc_1d_3::NEED_TRANSFORM,
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
PairTDNKokkos<DeviceType>::PairTDNKokkos(LAMMPS *lmp) : PairTDN(lmp, threads_of_kokkos(lmp))
{
  kokkosable = 1;
  reverse_comm_device = 1;
  atomKK = dynamic_cast<AtomKokkos *>(atom);
  // KOKKOS communicates in its own buffers for styles on its device, which here is the CPU
  execution_space = Device;
  datamask_read = X_MASK | F_MASK | TYPE_MASK | TAG_MASK | ENERGY_MASK | VIRIAL_MASK;
  datamask_modify = F_MASK | ENERGY_MASK | VIRIAL_MASK;
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
  auto *const request = neighbor->find_request(this);
  constexpr bool on_device = std::is_same_v<DeviceType, LMPDeviceType>;
  request->set_kokkos_device(on_device);
  request->set_kokkos_host(!on_device);
}

/* ---------------------------------------------------------------------- */

template <class DeviceType> Neighbors PairTDNKokkos<DeviceType>::neighbors() const
{
  const auto *const found = static_cast<NeighListKokkos<DeviceType> *>(list);
  static_assert(std::is_same_v<typename decltype(found->d_neighbors)::array_layout,
                               Kokkos::LayoutRight>);
  return {found->inum,
          found->d_ilist.data(),
          found->d_numneigh.data(),
          nullptr,
          found->d_neighbors.data(),
          found->d_neighbors.stride(0)};
}

/* ---------------------------------------------------------------------- */

template <class DeviceType> void PairTDNKokkos<DeviceType>::compute(int eflag, int vflag)
{
  atomKK->sync(execution_space, datamask_read);
  Kokkos::fence();    // other threads may still write to what the model reads
  PairTDN::compute(eflag, vflag);
  atomKK->modified(execution_space, datamask_modify);
  if (report_places) log_places();
  report_places = false;
}

/* ----------------------------------------------------------------------
   whether the model works where KOKKOS has its data, seen from the addresses of this step
------------------------------------------------------------------------- */

template <class DeviceType> void PairTDNKokkos<DeviceType>::log_places()
{
  const void *const x = atomKK->k_x.template view<DeviceType>().data();
  const void *const f = atomKK->k_f.template view<DeviceType>().data();
  const char *const positions = !positions_of_model() ? "as edges"
      : positions_of_model() == x                     ? "in place"
                                                      : "copied";
  const char *const forces = atom->f && f == atom->f[0] ? "in place" : "copied";
  if (comm->me == 0)
    utils::logmesg(lmp, "TDN with KOKKOS ({}, {} thread(s)): positions {}, forces {}\n",
                   DeviceType::name(), lmp->kokkos->nthreads, positions, forces);
}

/* ----------------------------------------------------------------------
   rows through the buffers of KOKKOS, whose memory is that of the host here
------------------------------------------------------------------------- */

template <class DeviceType>
int PairTDNKokkos<DeviceType>::pack_forward_comm_kokkos(int n, DAT::tdual_int_1d atoms,
                                                        DAT::tdual_double_1d &buf, int, int *)
{
  return rows().pack_forward(n, atoms.view_host().data(), buf.view_host().data());
}

template <class DeviceType>
void PairTDNKokkos<DeviceType>::unpack_forward_comm_kokkos(int n, int first,
                                                           DAT::tdual_double_1d &buf)
{
  rows().unpack_forward(n, first, buf.view_host().data());
}

template <class DeviceType>
int PairTDNKokkos<DeviceType>::pack_reverse_comm_kokkos(int n, int first,
                                                        DAT::tdual_double_1d &buf)
{
  return rows().pack_reverse(n, first, buf.view_host().data());
}

template <class DeviceType>
void PairTDNKokkos<DeviceType>::unpack_reverse_comm_kokkos(int n, DAT::tdual_int_1d atoms,
                                                           DAT::tdual_double_1d &buf)
{
  rows().unpack_reverse(n, atoms.view_host().data(), buf.view_host().data());
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
