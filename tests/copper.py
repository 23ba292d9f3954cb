"""Frames of copper with energies, forces and stresses of effective medium theory."""

from __future__ import annotations

from pathlib import Path

import ase
import ase.io
import numpy as np
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator


def copper(count: int = 12, rattle: float = 0.1, strain: float = 0.03) -> list[ase.Atoms]:
    """Random displacements (angstrom) and strains of a cell of eight atoms; labels of ASE."""
    rng = np.random.default_rng(0)
    frames = []
    for _ in range(count):
        atoms = bulk("Cu", "fcc", a=3.6, cubic=True) * (2, 1, 1)
        cell = atoms.cell.array @ (np.eye(3) + strain * rng.normal(size=(3, 3)))
        atoms.set_cell(cell, scale_atoms=True)
        atoms.positions += rattle * rng.normal(size=atoms.positions.shape)
        work = atoms.copy()
        work.calc = EMT()
        results = {
            "energy": work.get_potential_energy(),
            "forces": work.get_forces(),
            "stress": work.get_stress(),
        }
        atoms.calc = SinglePointCalculator(atoms, **results)
        frames.append(atoms)
    return frames


def write_renamed(path: Path, frames: list[ase.Atoms], names: dict[str, str]) -> None:
    """Write energy, forces and stress under other names; those without one are left out.

    A name with "virial" gets minus the stress times the volume, one that ends in 6 six numbers.
    """
    renamed = []
    for frame in frames:
        atoms = ase.Atoms(frame.numbers, frame.positions, cell=frame.cell, pbc=frame.pbc)
        if "energy" in names:
            atoms.info[names["energy"]] = frame.get_potential_energy()
        if "forces" in names:
            atoms.arrays[names["forces"]] = frame.get_forces()
        if "stress" in names:
            voigt = names["stress"].endswith("6")
            factor = -frame.get_volume() if "virial" in names["stress"].lower() else 1.0
            atoms.info[names["stress"].removesuffix("6")] = factor * frame.get_stress(voigt=voigt)
        renamed.append(atoms)
    ase.io.write(path, renamed)
