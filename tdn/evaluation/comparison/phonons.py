"""Phonon frequencies at a few points, by phonopy."""

from __future__ import annotations

import warnings

import ase
import numpy as np
from ase.calculators.calculator import Calculator

from tdn.system.errors import TDNError

from .section import Pair, Section, comparing_columns

# angstrom, of the displaced atom, and of the supercell's shortest vector at least
DISPLACEMENT, LENGTH = 0.02, 9.0
# in reciprocal vectors of the primitive cell; of fcc they are Gamma, L, X and W
POINTS = ((0.0, 0.0, 0.0), (0.5, 0.0, 0.0), (0.5, 0.5, 0.0), (0.5, 0.25, 0.75))
# THz; smaller frequencies are the acoustic ones at the zone center
ZERO = 0.1


def phonon_frequencies(pair: Pair, crystal: dict[str, ase.Atoms]) -> Section:
    """Frequencies at the zone center and three other points, about each relaxed crystal.

    Parameters
    ----------
    crystal : name -> relaxed crystal, for both names of the pair

    Raises
    ------
    TDNError
        If phonopy is not installed, or the relaxed crystals have different primitive cells.
    """
    try:
        import phonopy  # noqa: F401
    except ImportError:
        raise TDNError(
            "phonon frequencies need phonopy; install it with: pip install phonopy"
        ) from None
    section = Section(
        "Phonons",
        "Frequencies in THz at points in units of the reciprocal vectors of the primitive cell, by "
        "finite displacements (phonopy), without long-range corrections.",
        comparing_columns(pair),
    )
    found = [frequencies(crystal[name], calculator) for name, calculator in pair.named]
    atoms = [len(rows[0]) // 3 for rows in found]
    if atoms[0] != atoms[1]:
        raise TDNError(
            f"the relaxed crystals differ in symmetry: their primitive cells have {atoms[0]} and "
            f"{atoms[1]} atoms"
        )
    for point, one, other in zip(POINTS, *found, strict=True):
        name = "q = (" + ", ".join(f"{x:g}" for x in point) + ")"
        for branch, values in enumerate(zip(one, other, strict=True)):
            if abs(values[0]) > ZERO:
                section.compare(f"{name}, branch {branch + 1}", "THz", values)
    differences = [
        abs(a - b)
        for one, other in zip(*found, strict=True)
        for a, b in zip(one, other, strict=True)
    ]
    section.values["mean_absolute_difference_THz"] = float(np.mean(differences))
    section.text += f" Mean absolute difference: {np.mean(differences):.3f} THz."
    return section


def frequencies(crystal: ase.Atoms, calculator: Calculator) -> list[list[float]]:
    """Sorted frequencies in THz at `POINTS`, imaginary ones negative."""
    from phonopy import Phonopy
    from phonopy.structure.atoms import PhonopyAtoms

    cell = PhonopyAtoms(
        numbers=crystal.numbers,
        cell=crystal.cell.array,
        scaled_positions=crystal.get_scaled_positions(),
    )
    repeats = np.ceil(LENGTH / crystal.cell.lengths()).astype(int)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what releases before did by default
        phonon = Phonopy(cell, supercell_matrix=np.diag(repeats), primitive_matrix="auto")
    phonon.generate_displacements(distance=DISPLACEMENT)
    forces = []
    for displaced in phonon.supercells_with_displacements:
        work = ase.Atoms(
            displaced.numbers,
            displaced.positions,
            cell=displaced.cell,
            pbc=True,
            calculator=calculator,
        )
        forces.append(work.get_forces())
    phonon.forces = forces
    phonon.produce_force_constants()
    phonon.symmetrize_force_constants()
    phonon.run_qpoints(POINTS)
    return [sorted(map(float, row)) for row in phonon.qpoints.frequencies]
