/* -*- c++ -*- ----------------------------------------------------------
   SPDX-License-Identifier: GPL-2.0-only

   Pair style tdn/kk for LAMMPS (https://www.lammps.org/): tdn on the data of KOKKOS.

   The views of KOKKOS and the tensors of the model are the same memory, that of the CPU or of a
   GPU: positions are read, pairs are made and forces are added where KOKKOS has its data, and rows
   of nodes travel in its buffers. Everything else is that of pair style tdn.
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

#include "kokkos/graph_kokkos.h"
#include "kokkos/row_exchange_kokkos.h"
#include "pair/pair_tdn.h"

#include "kokkos_base.h"

#include <vector>

namespace LAMMPS_NS {

template <class DeviceType> class PairTDNKokkos : public PairTDN, public KokkosBase {
 public:
  explicit PairTDNKokkos(class LAMMPS *);

  void settings(int, char **) override;
  void coeff(int, char **) override;
  void init_style() override;
  void compute(int, int) override;

  void unpack_forward_comm(int, int, double *) override;
  int pack_forward_comm_kokkos(int, DAT::tdual_int_1d, DAT::tdual_double_1d &, int,
                               int *) override;
  void unpack_forward_comm_kokkos(int, int, DAT::tdual_double_1d &) override;
  int pack_reverse_comm_kokkos(int, int, DAT::tdual_double_1d &) override;
  void unpack_reverse_comm_kokkos(int, DAT::tdual_int_1d, DAT::tdual_double_1d &) override;

  // functions with kernels must be public for nvcc
  double tally(tdn::Forces &) override;

 protected:
  Neighbors neighbors() const override;

 private:
  using Graph = GraphKokkos<DeviceType>;
  using Rows = RowExchangeKokkos<DeviceType>;
  template <typename T> using Foreign = typename Graph::template Foreign<T>;
  static constexpr bool ON_HOST = Graph::ON_HOST;

  Graph &graph;
  Rows &rows;
  Kokkos::View<double *, DeviceType> e0;    // of each species, eV
  bool report_places = false;    // in the log, after the next evaluation
  // copies for the host, of the last step
  std::vector<Kokkos::View<double *, Kokkos::HostSpace>> copies;

  const double *on_host(const double *, int64_t);
  PairTDNKokkos(class LAMMPS *, Graph *);
  void log_places();
  void take_types();
};

}    // namespace LAMMPS_NS

#endif
#endif
