"""Units in which other programs write energies, forces and stresses."""

from __future__ import annotations

import ase.units

from tdn.system.errors import UsageError

ENERGY_UNITS = {
    "eV": 1.0,
    "hartree": ase.units.Hartree,
    "rydberg": ase.units.Rydberg,
    "kcal/mol": ase.units.kcal / ase.units.mol,
    "kJ/mol": ase.units.kJ / ase.units.mol,
}
FORCE_UNITS = {
    "eV/A": 1.0,
    "hartree/bohr": ase.units.Hartree / ase.units.Bohr,
    "hartree/A": ase.units.Hartree,
    "rydberg/bohr": ase.units.Rydberg / ase.units.Bohr,
    "kcal/mol/A": ase.units.kcal / ase.units.mol,
    "kJ/mol/A": ase.units.kJ / ase.units.mol,
    "kJ/mol/nm": ase.units.kJ / ase.units.mol / 10,
}
STRESS_UNITS = {
    "eV/A^3": 1.0,
    "GPa": ase.units.GPa,
    "kbar": 0.1 * ase.units.GPa,
    "bar": 1e-4 * ase.units.GPa,
    "hartree/bohr^3": ase.units.Hartree / ase.units.Bohr**3,
    "rydberg/bohr^3": ase.units.Rydberg / ase.units.Bohr**3,
}


def unit_factor(name: str, unit: str) -> float:
    """What a number in a unit is multiplied with to give eV and angstrom.

    Parameters
    ----------
    name : the option or key that gave the unit; ``energy``, ``force`` or ``stress`` is part of it
    unit : of stresses also with a minus sign, for stresses that are positive under compression

    Raises
    ------
    UsageError
        For an unknown unit.
    """
    known = next(
        units
        for kind, units in (
            ("energy", ENERGY_UNITS),
            ("force", FORCE_UNITS),
            ("stress", STRESS_UNITS),
        )
        if kind in name
    )
    sign = -1.0 if known is STRESS_UNITS and unit.startswith("-") else 1.0
    bare = unit[1:] if sign < 0 else unit
    if bare not in known:
        more = ", or one of them after a minus sign" if known is STRESS_UNITS else ""
        raise UsageError(f"{name} {unit}: expected one of {', '.join(known)}{more}")
    return sign * known[bare]
