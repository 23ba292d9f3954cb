/* -*- c++ -*- ----------------------------------------------------------
   SPDX-License-Identifier: GPL-2.0-only

   Pair style tdn/kk for LAMMPS (https://www.lammps.org/): rows of node data between MPI ranks.

   Rows of a model that takes positions are packed and unpacked where they are, by the threads of
   KOKKOS or on its GPU, into the buffers of KOKKOS. Everything else goes as in the plain style.
------------------------------------------------------------------------- */

#ifndef LMP_TDN_ROW_EXCHANGE_KOKKOS_H
#define LMP_TDN_ROW_EXCHANGE_KOKKOS_H

#include "kokkos/graph_kokkos.h"
#include "pair/row_exchange.h"

#include "kokkos_type.h"

#include <cstdint>

namespace LAMMPS_NS {

template <class DeviceType> class RowExchangeKokkos : public RowExchange {
 public:
  using Graph = GraphKokkos<DeviceType>;

  RowExchangeKokkos(LAMMPS *lmp, Pair *pair, const Graph &graph) :
      RowExchange(lmp, pair, graph.nodes()), graph(graph)
  {
  }

  /// Where KOKKOS communicates itself, which its first message after a build of the list shows.
  bool takes_gpu_memory() const override { return !Graph::ON_HOST && in_kokkos; }

  // what KOKKOS calls in the pair style

  int pack_forward(int n, DAT::tdual_int_1d atoms, DAT::tdual_double_1d &buf);
  void unpack_forward(int n, int first, DAT::tdual_double_1d &buf);
  int pack_reverse(int n, int first, DAT::tdual_double_1d &buf);
  void unpack_reverse(int n, DAT::tdual_int_1d atoms, DAT::tdual_double_1d &buf);

  // what it calls where it communicates as LAMMPS does without it

  int pack_forward(int n, int *atoms, double *buf) override;
  using RowExchange::pack_reverse;
  using RowExchange::unpack_forward;
  using RowExchange::unpack_reverse;

  double memory_usage() const override;

  // functions with kernels, and what these take, must be public for nvcc

  using Word = uint32_t;    // rows are of numbers of 4 or 8 bytes
  template <typename T> using Array = typename Graph::template Array<T>;

  /// The rows of a message in words; those of idle ghosts are apart.
  struct Rows {
    Word *data, *idle;
    int64_t num_all, stride, begin;
    int64_t width;          // of the message per atom
    int64_t parts, step;    // a row of the message has parts of `step` words, each for one thread

    KOKKOS_INLINE_FUNCTION Word *row(int64_t k) const
    {
      return (k < num_all ? data + stride * k : idle + stride * (k - num_all)) + begin;
    }
  };

  void copy_rows(int n, const int *row_of_atom, const int *list, const DAT::tdual_double_1d &buf,
                 bool pack);

 private:
  const Graph &graph;
  bool in_kokkos = false;
  Array<Word> idle;    // rows of ghosts without an edge, which are passed on

  Rows rows_of_message();
  bool is_there() const { return carries_rows() && graph.has_rows(); }
};

}    // namespace LAMMPS_NS

#endif
