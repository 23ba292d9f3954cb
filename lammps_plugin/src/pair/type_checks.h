/* -*- c++ -*- ----------------------------------------------------------
   SPDX-License-Identifier: GPL-2.0-only

   Pair style tdn for LAMMPS (https://www.lammps.org/): whether atom types are what pair_coeff says.
------------------------------------------------------------------------- */

#ifndef LMP_TDN_TYPE_CHECKS_H
#define LMP_TDN_TYPE_CHECKS_H

#include <string>
#include <vector>

namespace LAMMPS_NS {

/** Warn about types whose mass, or label of the labelmap command, belongs to another element.
    Isotopes and masses of hydrogen that were taken from its neighbors are no reason.

    `elements` has an entry for each type, counted from 1; "NULL" is passed over. */
void check_types(class LAMMPS *lmp, const std::vector<std::string> &elements);

}    // namespace LAMMPS_NS

#endif
