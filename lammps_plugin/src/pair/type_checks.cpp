/* ----------------------------------------------------------------------
   SPDX-License-Identifier: GPL-2.0-only

   Pair style tdn for LAMMPS (https://www.lammps.org/): whether atom types are what pair_coeff says.
------------------------------------------------------------------------- */

#include "type_checks.h"

#include "atom.h"
#include "comm.h"
#include "error.h"

#include <cmath>
#include <dlfcn.h>

using namespace LAMMPS_NS;

namespace {

struct Element {
  const char *symbol;
  double mass;    // standard atomic weight, amu
};

const Element table[] = {
    {"H", 1.008}, {"He", 4.002602}, {"Li", 6.94}, {"Be", 9.012183}, {"B", 10.81}, {"C", 12.011},
    {"N", 14.007}, {"O", 15.999}, {"F", 18.9984}, {"Ne", 20.1797}, {"Na", 22.98977},
    {"Mg", 24.305}, {"Al", 26.98154}, {"Si", 28.085}, {"P", 30.97376}, {"S", 32.06},
    {"Cl", 35.45}, {"Ar", 39.948}, {"K", 39.0983}, {"Ca", 40.078}, {"Sc", 44.95591},
    {"Ti", 47.867}, {"V", 50.9415}, {"Cr", 51.9961}, {"Mn", 54.93804}, {"Fe", 55.845},
    {"Co", 58.93319}, {"Ni", 58.6934}, {"Cu", 63.546}, {"Zn", 65.38}, {"Ga", 69.723},
    {"Ge", 72.63}, {"As", 74.92159}, {"Se", 78.971}, {"Br", 79.904}, {"Kr", 83.798},
    {"Rb", 85.4678}, {"Sr", 87.62}, {"Y", 88.90584}, {"Zr", 91.224}, {"Nb", 92.90637},
    {"Mo", 95.95}, {"Tc", 97.90721}, {"Ru", 101.07}, {"Rh", 102.9055}, {"Pd", 106.42},
    {"Ag", 107.8682}, {"Cd", 112.414}, {"In", 114.818}, {"Sn", 118.71}, {"Sb", 121.76},
    {"Te", 127.6}, {"I", 126.9045}, {"Xe", 131.293}, {"Cs", 132.9055}, {"Ba", 137.327},
    {"La", 138.9055}, {"Ce", 140.116}, {"Pr", 140.9077}, {"Nd", 144.242}, {"Pm", 144.9128},
    {"Sm", 150.36}, {"Eu", 151.964}, {"Gd", 157.25}, {"Tb", 158.9254}, {"Dy", 162.5},
    {"Ho", 164.9303}, {"Er", 167.259}, {"Tm", 168.9342}, {"Yb", 173.054}, {"Lu", 174.9668},
    {"Hf", 178.49}, {"Ta", 180.9479}, {"W", 183.84}, {"Re", 186.207}, {"Os", 190.23},
    {"Ir", 192.217}, {"Pt", 195.084}, {"Au", 196.9666}, {"Hg", 200.592}, {"Tl", 204.38},
    {"Pb", 207.2}, {"Bi", 208.9804}, {"Po", 208.9824}, {"At", 209.9872}, {"Rn", 222.0176},
    {"Fr", 223.0197}, {"Ra", 226.0254}, {"Ac", 227.0277}, {"Th", 232.0377}, {"Pa", 231.0359},
    {"U", 238.0289}, {"Np", 237.0482}, {"Pu", 244.0642},
};

// masses this close are those of one element; masses this far apart are not
constexpr double SAME = 0.005;
constexpr double FACTOR = 2.0;

// the heaviest hydrogen: tritium, or with mass moved to it from its neighbor
constexpr double HEAVY_HYDROGEN = 4.1;

bool same(double mass, double other)
{
  return std::abs(mass / other - 1.0) < SAME;
}

const Element *find(const std::string &symbol)
{
  for (const Element &element : table)
    if (symbol == element.symbol) return &element;
  return nullptr;
}

/// Why a mass does not fit an element; empty if it does.
std::string mass_problem(double mass, const Element &element)
{
  if (same(mass, element.mass)) return "";
  if (std::string(element.symbol) == "H" && mass >= element.mass && mass < HEAVY_HYDROGEN) return "";
  for (const Element &other : table)
    if (same(mass, other.mass)) return fmt::format("the mass of {}", other.symbol);
  if (mass == 1.0) return "";    // a placeholder, where masses do not matter
  if (mass * FACTOR < element.mass || mass > element.mass * FACTOR)
    return fmt::format("expected about {:.4g}", element.mass);
  return "";
}

/** Atom type of a label, -1 if there is none. The header of this class is not installed with LAMMPS,
    its library is: so the function is looked up by its name there. */
int type_of_label(const LabelMap *map, const std::string &label)
{
  using Find = int (*)(const LabelMap *, const std::string &, int);
  static const auto find_type = reinterpret_cast<Find>(dlsym(
      RTLD_DEFAULT,
      "_ZNK9LAMMPS_NS8LabelMap4findERKNSt7__cxx1112basic_stringIcSt11char_traitsIcESaIcEEEi"));
  return find_type && map ? find_type(map, label, Atom::ATOM) : -1;
}

}    // namespace

/* ---------------------------------------------------------------------- */

void LAMMPS_NS::check_types(LAMMPS *lmp, const std::vector<std::string> &elements)
{
  const Atom *const atom = lmp->atom;
  if (lmp->comm->me != 0) return;
  for (int type = 1; type < static_cast<int>(elements.size()); type++) {
    const Element *const element = find(elements[type]);
    if (!element || !atom->mass || !atom->mass_setflag[type]) continue;
    const std::string problem = mass_problem(atom->mass[type], *element);
    if (!problem.empty())
      lmp->error->warning(FLERR,
                          "Pair style tdn: atom type {} is {} in pair_coeff and has mass {:.6g} ({}); "
                          "is the order of the elements right?",
                          type, element->symbol, atom->mass[type], problem);
  }
  if (!atom->labelmapflag) return;
  for (const Element &element : table) {
    const int type = type_of_label(atom->lmap, element.symbol);
    if (type < 1 || type >= static_cast<int>(elements.size())) continue;
    if (elements[type] != "NULL" && elements[type] != element.symbol)
      lmp->error->warning(FLERR,
                          "Pair style tdn: atom type {} has the label {} and is {} in pair_coeff; is "
                          "the order of the elements right?",
                          type, element.symbol, elements[type]);
  }
}
