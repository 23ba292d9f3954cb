/* -*- c++ -*- ----------------------------------------------------------
   SPDX-License-Identifier: GPL-2.0-only

   Pair style tdn for LAMMPS (https://www.lammps.org/): what other commands of an input ask for and
   the model cannot give.

   All ranks call these together, before each run.
------------------------------------------------------------------------- */

#ifndef LMP_TDN_INPUT_CHECKS_H
#define LMP_TDN_INPUT_CHECKS_H

#include <string>
#include <vector>

namespace LAMMPS_NS {

/** Stop where a compute needs a virial, for models with direct forces, which have none. That of
    thermo output is in every input and may stay: what it shows becomes nan instead. */
void refuse_virial(class LAMMPS *lmp);

/** Stop where a fix inserts and deletes atoms, unless all isolated atoms have energy 0. Such a fix
    takes an atom out of the neighbor list to compare energies: it must then count nothing. */
void refuse_insertions(class LAMMPS *lmp, const std::vector<double> &isolated_energies);

/** Replace weights of special_bonds that are 0, its default, by one that is as good as 0 for all
    other styles: 0 takes bonded atoms out of the neighbor list. A warning if atoms are bonded. */
void keep_special_neighbors(class LAMMPS *lmp);

/** Why the pairs of a run must come from a neighbor list of LAMMPS; empty where all pairs of atoms
    within the cutoff count. Bonds are no reason, see above. */
std::string need_of_list(class LAMMPS *lmp, const class Pair *pair);

/// Whether pairs are excluded; known for certain from the first step of a run on.
bool has_exclusions(class LAMMPS *lmp);

}    // namespace LAMMPS_NS

#endif
