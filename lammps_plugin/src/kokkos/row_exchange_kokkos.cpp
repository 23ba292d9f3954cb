/* ----------------------------------------------------------------------
   SPDX-License-Identifier: GPL-2.0-only

   Pair style tdn/kk for LAMMPS (https://www.lammps.org/): rows of node data between MPI ranks.
------------------------------------------------------------------------- */

#include "kokkos/row_exchange_kokkos.h"

#include "kokkos/views.h"

using namespace LAMMPS_NS;

/* ----------------------------------------------------------------------
   buffers of what is packed and unpacked on the host
------------------------------------------------------------------------- */

template <class DeviceType> static void packed(DAT::tdual_double_1d &buf)
{
  if (GraphKokkos<DeviceType>::ON_HOST) return;
  buf.modify_host();
  buf.sync_device();
}

template <class DeviceType> static double *received(DAT::tdual_double_1d &buf)
{
  if (!GraphKokkos<DeviceType>::ON_HOST) {
    buf.modify_device();
    buf.sync_host();
  }
  return buf.view_host().data();
}

/* ----------------------------------------------------------------------
   neighboring threads of a GPU copy neighboring words; a thread of the CPU copies a row
------------------------------------------------------------------------- */

template <class DeviceType>
typename RowExchangeKokkos<DeviceType>::Rows RowExchangeKokkos<DeviceType>::rows_of_message()
{
  const int64_t stride = message.stride / sizeof(Word), count = message.bytes / sizeof(Word);
  enlarge_view(idle, nodes.num_idle() * stride);    // only before the first message of an exchange
  return {reinterpret_cast<Word *>(message.data),
          idle.data(),
          nodes.num_all(),
          stride,
          static_cast<int64_t>(message.begin / sizeof(Word)),
          static_cast<int64_t>(message.values * sizeof(double) / sizeof(Word)),
          Graph::ON_HOST ? 1 : count,
          Graph::ON_HOST ? count : 1};
}

/* ----------------------------------------------------------------------
   between the rows of nodes and a message of n atoms, which are a list or, without it, consecutive
------------------------------------------------------------------------- */

template <class DeviceType>
void RowExchangeKokkos<DeviceType>::copy_rows(int n, const int *row_of_atom, const int *list,
                                              const DAT::tdual_double_1d &buf, bool pack)
{
  const Rows rows = rows_of_message();
  const auto packed = reinterpret_cast<Word *>(buf.template view<DeviceType>().data());
  Kokkos::parallel_for(
      pack ? "tdn:pack" : "tdn:unpack",
      Kokkos::RangePolicy<DeviceType, Kokkos::IndexType<int64_t>>(0, n * rows.parts),
      KOKKOS_LAMBDA(const int64_t item) {
        const int64_t k = item / rows.parts, first = item % rows.parts * rows.step;
        const int row = row_of_atom[list ? list[k] : k];
        if (row < 0) return;
        Word *const here = rows.row(row) + first, *const there = packed + rows.width * k + first;
        const Word *const from = pack ? here : there;
        Word *const to = pack ? there : here;
        for (int64_t w = 0; w < rows.step; w++) to[w] = from[w];
      });
}

/* ---------------------------------------------------------------------- */

template <class DeviceType>
int RowExchangeKokkos<DeviceType>::pack_forward(int n, DAT::tdual_int_1d atoms,
                                                DAT::tdual_double_1d &buf)
{
  in_kokkos = true;
  int *const list = atoms.view_host().data();
  if (!is_there()) {
    const int count = RowExchange::pack_forward(n, list, buf.view_host().data());
    packed<DeviceType>(buf);
    return count;
  }
  if (n > 0 && self_lists.count(list)) return 0;
  copy_rows(n, graph.rows().data(), atoms.template view<DeviceType>().data(), buf, true);
  return n * message.values;
}

template <class DeviceType>
void RowExchangeKokkos<DeviceType>::unpack_forward(int n, int first, DAT::tdual_double_1d &buf)
{
  if (!is_there()) return RowExchange::unpack_forward(n, first, received<DeviceType>(buf));
  if (n == 0 || self_ghosts.count(first)) return;
  copy_rows(n, graph.ghost_rows().data() + first, nullptr, buf, false);
  if (Graph::ON_HOST) DeviceType().fence();    // the model goes on without asking KOKKOS
}

template <class DeviceType>
int RowExchangeKokkos<DeviceType>::pack_forward(int n, int *atoms, double *buf)
{
  in_kokkos = false;
  return RowExchange::pack_forward(n, atoms, buf);
}

/* ----------------------------------------------------------------------
   what comes back is on the host
------------------------------------------------------------------------- */

template <class DeviceType>
int RowExchangeKokkos<DeviceType>::pack_reverse(int n, int first, DAT::tdual_double_1d &buf)
{
  const int count = RowExchange::pack_reverse(n, first, buf.view_host().data());
  packed<DeviceType>(buf);
  return count;
}

template <class DeviceType>
void RowExchangeKokkos<DeviceType>::unpack_reverse(int n, DAT::tdual_int_1d atoms,
                                                   DAT::tdual_double_1d &buf)
{
  RowExchange::unpack_reverse(n, atoms.view_host().data(), received<DeviceType>(buf));
}

/* ---------------------------------------------------------------------- */

template <class DeviceType> double RowExchangeKokkos<DeviceType>::memory_usage() const
{
  return RowExchange::memory_usage() + bytes_of_view(idle);
}

/* ---------------------------------------------------------------------- */

namespace LAMMPS_NS {
template class RowExchangeKokkos<LMPDeviceType>;
#ifdef LMP_KOKKOS_GPU
template class RowExchangeKokkos<LMPHostType>;
#endif
}    // namespace LAMMPS_NS
