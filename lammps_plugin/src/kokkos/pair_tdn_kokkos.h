/* -*- c++ -*- ----------------------------------------------------------
   SPDX-License-Identifier: GPL-2.0-only

   Pair style tdn/kk for LAMMPS (https://www.lammps.org/): tdn on the data of KOKKOS.

   The views of KOKKOS and the tensors of the model are the same memory: positions are read and
   forces are added where KOKKOS has them, and rows of nodes travel in its buffers. Everything else
   is that of pair style tdn.
------------------------------------------------------------------------- */

#ifdef PAIR_CLASS
// clang-format off
PairStyle(tdn/kk,PairTDNKokkos<LMPDeviceType>);
PairStyle(tdn/kk/device,PairTDNKokkos<LMPDeviceType>);
PairStyle(tdn/kk/host,PairTDNKokkos<LMPHostType>);
// clang-format on
#else

#ifndef LMP_PAIR_TDN_KOKKOS_H
#define LMP_PAIR_TDN_KOKKOS_H

#include "kokkos_base.h"
#include "pair/pair_tdn.h"

namespace LAMMPS_NS {

template <class DeviceType> class PairTDNKokkos : public PairTDN, public KokkosBase {
 public:
  explicit PairTDNKokkos(class LAMMPS *);

  void coeff(int, char **) override;
  void init_style() override;
  void compute(int, int) override;

  int pack_forward_comm_kokkos(int, DAT::tdual_int_1d, DAT::tdual_double_1d &, int,
                               int *) override;
  void unpack_forward_comm_kokkos(int, int, DAT::tdual_double_1d &) override;
  int pack_reverse_comm_kokkos(int, int, DAT::tdual_double_1d &) override;
  void unpack_reverse_comm_kokkos(int, DAT::tdual_int_1d, DAT::tdual_double_1d &) override;

 protected:
  Neighbors neighbors() const override;

 private:
  bool report_places = false;    // in the log, after the next evaluation

  void log_places();
};

}    // namespace LAMMPS_NS

#endif
#endif
