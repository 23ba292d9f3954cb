"""The energy of vacancies that keep the composition."""

from __future__ import annotations

from math import gcd

import ase
import numpy as np
from ase.calculators.calculator import Calculator
from ase.optimize import FIRE

from tdn.data.supercell import supercell

from .section import Pair, Section, comparing_columns

# atoms of the cell with the vacancies, at least
ATOMS = 60
# eV/angstrom
RELAXED, MOST_STEPS = 0.02, 300


def vacancy_energy(pair: Pair, crystal: dict[str, ase.Atoms]) -> Section:
    """One formula unit less: E(N - n) - (N - n) / N E(N), relaxed at constant volume.

    That is the vacancy of an element and the Schottky defect of a compound, its vacancies as
    neighbors; no energies of other phases or of isolated atoms come in.

    Parameters
    ----------
    crystal : name -> relaxed crystal, for both names of the pair
    """
    section = Section(
        "Vacancies",
        "One formula unit is taken out of a supercell (atoms that are neighbors), and the rest "
        "relaxes at constant volume.",
        comparing_columns(pair),
    )
    values = []
    for name, calculator in pair.named:
        energy, force = _energy(crystal[name], calculator)
        values.append(energy)
        if force > RELAXED:
            section.text += (
                f" The atoms of the {name} are not at rest after {MOST_STEPS} steps (largest force "
                f"{force:.2g} eV/Å): its energy is an upper bound."
            )
            section.values[f"{name}_largest_force_eV_per_A"] = force
    section.compare("formation energy", "eV", (values[0], values[1]))
    return section


def _energy(crystal: ase.Atoms, calculator: Calculator) -> tuple[float, float]:
    """Formation energy in eV, and the largest force that is left in eV/angstrom."""
    whole = supercell(crystal, ATOMS)
    whole.calc = calculator
    energy = whole.get_potential_energy()
    work = whole.copy()
    del work[formula_unit(work)]
    work.calc = calculator
    FIRE(work, logfile=None).run(fmax=RELAXED, steps=MOST_STEPS)
    force = float(np.linalg.norm(work.get_forces(), axis=1).max())
    return work.get_potential_energy() - len(work) / len(whole) * energy, force


def formula_unit(atoms: ase.Atoms) -> list[int]:
    """Atom 0 and the nearest others that make a formula unit with it."""
    numbers, counts = np.unique(atoms.numbers, return_counts=True)
    unit = gcd(*map(int, counts))
    wanted = {int(n): int(c) // unit for n, c in zip(numbers, counts, strict=True)}
    wanted[int(atoms.numbers[0])] -= 1
    chosen = [0]
    distances = atoms.get_distances(0, range(len(atoms)), mic=True)
    for index in np.argsort(distances, kind="stable")[1:]:
        number = int(atoms.numbers[index])
        if wanted[number]:
            wanted[number] -= 1
            chosen.append(int(index))
    return chosen
