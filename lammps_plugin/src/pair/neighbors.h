/* -*- c++ -*- ----------------------------------------------------------
   SPDX-License-Identifier: GPL-2.0-only

   Pair style tdn for LAMMPS (https://www.lammps.org/): the neighbor list as LAMMPS or KOKKOS has it.
------------------------------------------------------------------------- */

#ifndef LMP_TDN_NEIGHBORS_H
#define LMP_TDN_NEIGHBORS_H

#include <cstddef>

namespace LAMMPS_NS {

struct Neighbors {
  int num_centers;
  const int *centers;    // [num_centers] atoms
  const int *counts;     // of each atom
  // neighbors of each atom, with special bits: rows anywhere, or of one array if that is null
  int *const *rows;
  const int *array;
  size_t stride, column;    // between the rows of the array, and within one

  /// Of rows without gaps.
  const int *of(int atom) const { return rows ? rows[atom] : array + stride * atom; }
};

}    // namespace LAMMPS_NS

#endif
