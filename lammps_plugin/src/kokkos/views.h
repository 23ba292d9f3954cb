/* -*- c++ -*- ----------------------------------------------------------
   SPDX-License-Identifier: GPL-2.0-only

   Pair style tdn/kk for LAMMPS (https://www.lammps.org/): arrays in the memory of KOKKOS.
------------------------------------------------------------------------- */

#ifndef LMP_TDN_VIEWS_H
#define LMP_TDN_VIEWS_H

#include "kokkos_type.h"

#include <algorithm>
#include <cstdint>

namespace LAMMPS_NS {

/// As `enlarge` of vectors: the old values are lost.
template <class View> void enlarge_view(View &view, int64_t count)
{
  const auto needed = static_cast<size_t>(std::max<int64_t>(count, 1));
  if (view.extent(0) >= needed) return;
  view = View();
  view = View(Kokkos::view_alloc(Kokkos::WithoutInitializing, "tdn"), needed + needed / 10);
}

template <class View> double bytes_of_view(const View &view)
{
  return static_cast<double>(view.span()) * sizeof(typename View::value_type);
}

}    // namespace LAMMPS_NS

#endif
