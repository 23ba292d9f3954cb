"""Supercells of a wanted size."""

from __future__ import annotations

import ase
import numpy as np

from .vacuum import matter_directions

# atoms, of those that were asked for, at most, where equal directions grow together
MOST = 2


def supercell(atoms: ase.Atoms, wanted: int) -> ase.Atoms:
    """Repeat where matter goes on, always the thinnest direction, until there are enough atoms."""
    atoms = ase.Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
    directions = matter_directions(atoms)
    if not directions.any():
        return atoms
    repeats = np.ones(3, dtype=int)
    heights = np.full(3, np.inf)
    inverse = np.linalg.pinv(atoms.cell.array)[:, directions]
    heights[directions] = 1 / np.linalg.norm(inverse, axis=0)
    while len(atoms) * repeats.prod() < wanted:
        thinnest = heights * repeats
        # equal heights grow together, so that a cubic cell stays cubic; not where that would cost
        # far more than was asked for
        together = repeats + np.isclose(thinnest, thinnest.min(), rtol=0.02)
        if len(atoms) * together.prod() <= MOST * wanted:
            repeats = together
        else:
            repeats[thinnest.argmin()] += 1
    return atoms.repeat(tuple(int(n) for n in repeats))
