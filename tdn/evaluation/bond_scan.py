"""Smoothness of a potential while one atom moves along a bond."""

from __future__ import annotations

from dataclasses import dataclass

import ase
import numpy as np
from ase.calculators.calculator import Calculator

from tdn.system.errors import UsageError


@dataclass
class Scan:
    """Energies and forces along a line.

    Attributes
    ----------
    distance : [P], angstrom, equally spaced
    energy : [P], eV
    force : [P], eV/angstrom, on the moving atom along the line
    """

    distance: np.ndarray
    energy: np.ndarray
    force: np.ndarray

    @property
    def step(self) -> float:
        return float(self.distance[1] - self.distance[0])

    @property
    def force_error(self) -> float:
        """Largest |F + dE/dr| with a derivative of fourth order, eV/angstrom."""
        e, h = self.energy, self.step
        slope = (e[:-4] - 8 * e[1:-3] + 8 * e[3:-1] - e[4:]) / (12 * h)
        return float(np.abs(self.force[2:-2] + slope).max())

    @property
    def curvature(self) -> np.ndarray:
        """Second difference of the energy, [P - 2], eV/angstrom^2."""
        e = self.energy
        return (e[2:] - 2 * e[1:-1] + e[:-2]) / self.step**2

    @property
    def largest_jump(self) -> float:
        """Largest change of the second difference from one point to the next, eV/angstrom^2."""
        return float(np.abs(np.diff(self.curvature)).max())

    @property
    def roughness(self) -> float:
        """What is left of the largest jump when the step is halved, as a share.

        1/2 for a smooth function, whose jumps are steps times the third derivative; 1 where the
        second derivative jumps, 2 where the force does.
        """
        coarse = Scan(self.distance[::2], self.energy[::2], self.force[::2])
        return self.largest_jump / max(coarse.largest_jump, 1e-300)


def scan_bond(
    atoms: ase.Atoms,
    calculator: Calculator,
    i: int,
    j: int,
    r_max: float,
    points: int = 401,
) -> Scan:
    """Move atom j along the line from atom i, from 70 % of its distance to beyond the cutoff.

    Parameters
    ----------
    atoms : not changed
    i, j : atoms, counted from zero
    r_max : cutoff radius in angstrom; the scan ends 0.3 angstrom beyond it
    points : how many

    Raises
    ------
    UsageError
        If the atoms do not exist, are the same, or are farther apart than the cutoff.
    """
    for index in (i, j):
        if not 0 <= index < len(atoms):
            raise UsageError(
                f"scan {i} {j}: there is no atom {index}; atoms count from 0 to {len(atoms) - 1}"
            )
    if i == j:
        raise UsageError(f"scan {i} {j}: expected two different atoms")
    vector = atoms.get_distance(i, j, mic=bool(atoms.pbc.any()), vector=True)
    start = float(np.linalg.norm(vector))
    if start > r_max:
        raise UsageError(
            f"scan {i} {j}: the atoms are {start:.2f} A apart, beyond the cutoff {r_max:g} A"
        )
    direction = vector / start
    distances = np.linspace(0.7 * start, r_max + 0.3, points)
    work = atoms.copy()
    work.calc = calculator
    energies, forces = [], []
    origin = work.positions[j] - vector
    for distance in distances:
        work.positions[j] = origin + distance * direction
        energies.append(work.get_potential_energy())
        forces.append(float(work.get_forces()[j] @ direction))
    return Scan(distances, np.array(energies), np.array(forces))
