/* ----------------------------------------------------------------------
   SPDX-License-Identifier: GPL-2.0-only

   Pair style tdn for LAMMPS (https://www.lammps.org/): what other commands of an input ask for and
   the model cannot give.
------------------------------------------------------------------------- */

#include "input_checks.h"

#include "atom.h"
#include "comm.h"
#include "compute.h"
#include "error.h"
#include "fix.h"
#include "force.h"
#include "modify.h"
#include "neighbor.h"
#include "pair.h"

#include <algorithm>
#include <cstring>

using namespace LAMMPS_NS;

// a weight of special_bonds that is not 0, but makes any energy vanish
static constexpr double ALMOST_ZERO = 1.0e-50;

// fixes that insert and delete atoms
static bool is_insertion(const Fix *fix)
{
  return utils::strmatch(fix->style, "^gcmc") || utils::strmatch(fix->style, "^widom") ||
      utils::strmatch(fix->style, "^charge/regulation");
}

/* ---------------------------------------------------------------------- */

void LAMMPS_NS::refuse_virial(LAMMPS *lmp)
{
  for (const Compute *compute : lmp->modify->get_compute_list()) {
    if (!compute->pressatomflag && (!compute->pressflag || !strcmp(compute->id, "thermo_press")))
      continue;
    lmp->error->all(FLERR,
                    "Pair style tdn: compute {} {} needs a virial, and a model with direct forces "
                    "has none; leave it out, or the fix that made it (fix nve and fix nvt need "
                    "none)",
                    compute->id, compute->style);
  }
}

/* ---------------------------------------------------------------------- */

void LAMMPS_NS::refuse_insertions(LAMMPS *lmp, const std::vector<double> &e0)
{
  if (std::all_of(e0.begin(), e0.end(), [](double energy) { return energy == 0.0; })) return;
  for (const Fix *fix : lmp->modify->get_fix_list())
    if (is_insertion(fix))
      lmp->error->all(FLERR,
                      "Pair style tdn: fix {} {} inserts or deletes atoms, and their energies "
                      "would contain those of isolated atoms; leave these out with: pair_style tdn "
                      "e0 no",
                      fix->id, fix->style);
}

/* ---------------------------------------------------------------------- */

void LAMMPS_NS::keep_special_neighbors(LAMMPS *lmp)
{
  const Atom *const atom = lmp->atom;
  Force *const force = lmp->force;
  if (atom->molecular == Atom::ATOMIC) return;
  bool changed = false;
  for (int kind = 1; kind <= 3; kind++) {
    if (force->special_lj[kind] != 0.0 || force->special_coul[kind] != 0.0) continue;
    force->special_lj[kind] = force->special_coul[kind] = ALMOST_ZERO;
    changed = true;
  }
  bigint bonded = 0;
  if (atom->nspecial)
    for (int i = 0; i < atom->nlocal; i++) bonded += atom->nspecial[i][2] > 0;
  bigint total;
  MPI_Allreduce(&bonded, &total, 1, MPI_LMP_BIGINT, MPI_SUM, lmp->world);
  if (changed && (total > 0 || atom->molecular == Atom::TEMPLATE) && lmp->comm->me == 0)
    lmp->error->warning(FLERR,
                        "Pair style tdn: special_bonds weights of 0 hide bonded neighbors, which "
                        "the model needs; the weights are now {}",
                        ALMOST_ZERO);
}

/* ---------------------------------------------------------------------- */

bool LAMMPS_NS::has_exclusions(LAMMPS *lmp)
{
  const Neighbor *const neighbor = lmp->neighbor;
  return neighbor->nex_type + neighbor->nex_group + neighbor->nex_mol > 0;
}

/* ----------------------------------------------------------------------
   the fixes exclude atoms after this has been asked
------------------------------------------------------------------------- */

std::string LAMMPS_NS::need_of_list(LAMMPS *lmp, const Pair *pair)
{
  if (lmp->force->pair != pair)
    return fmt::format("pair_style {} chooses the pairs of its styles", lmp->force->pair_style);
  if (has_exclusions(lmp)) return "neigh_modify exclude takes pairs out";
  if (lmp->neighbor->includegroup) return "neigh_modify include leaves atoms out";
  for (const Fix *fix : lmp->modify->get_fix_list())
    if (is_insertion(fix) || utils::strmatch(fix->style, "^gemc"))
      return fmt::format("fix {} {} takes atoms out", fix->id, fix->style);
  return "";
}
