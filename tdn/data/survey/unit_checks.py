"""Signs of wrong units in energies and forces."""

from __future__ import annotations

from collections.abc import Sequence

import ase.units
import numpy as np

from tdn.data.frames import Frame
from tdn.data.units import ENERGY_UNITS, FORCE_UNITS

# frames this close (angstrom, largest displacement of an atom) follow their forces
NEAR = 0.15
MIN_PAIRS = 8
MIN_CORRELATION = 0.9
SLOPE_TOLERANCE = 0.3
# how exactly the total energies of all-electron calculations follow the formula for atoms
ATOM_TOLERANCE = 0.03


def statistical_atom_energy(numbers: np.ndarray) -> np.ndarray:
    """Ground-state energies of neutral atoms in hartree, within one percent from carbon on.

    The expansion for large nuclear charge of Thomas, Fermi, Scott and Schwinger:
    -0.768745 Z^(7/3) + Z^2/2 - 0.269900 Z^(5/3) (Schwinger, Phys. Rev. A 24, 2353, 1981).
    """
    z = np.asarray(numbers, dtype=np.float64)
    return -0.768745 * z ** (7 / 3) + 0.5 * z**2 - 0.269900 * z ** (5 / 3)


def energy_unit(frames: Sequence[Frame]) -> str | None:
    """A warning if total energies are all-electron energies in another unit than eV."""
    labeled = [f for f in frames if f.energy is not None and f.atoms.numbers.max() >= 6]
    if not labeled:
        return None
    expected = np.array([statistical_atom_energy(f.atoms.numbers).sum() for f in labeled])
    ratio = float(np.median(np.array([f.energy for f in labeled]) / expected))
    for name, unit in ENERGY_UNITS.items():
        # the ratio is hartree expressed in the unit of the energies
        if name != "eV" and abs(ratio * unit / ase.units.Hartree - 1) < ATOM_TOLERANCE:
            return (
                f"total energies have the size of all-electron energies in {name}, eV are "
                f"expected; tdn-data convert --energy-unit {name} converts them"
            )
    return None


def force_consistency(frames: Sequence[Frame]) -> str | None:
    """A warning if energies of neighbouring frames do not change as their forces say.

    Between two frames of a trajectory that are close together, the energy changes by
    -(F1 + F2) . (x2 - x1) / 2. A factor between the two sides means different units, a negative one
    gradients in the place of forces.
    """
    pairs = [_pair(a, b) for a, b in zip(frames, frames[1:])]
    values = np.array([p for p in pairs if p is not None and abs(p[1]) > 1e-6])
    if len(values) < MIN_PAIRS:
        return None
    found, expected = values.T
    scale = np.sqrt((found**2).sum() * (expected**2).sum())
    correlation = float((found * expected).sum() / scale) if scale > 0 else 0.0
    if abs(correlation) < MIN_CORRELATION:
        return None  # noise, other cells or constraints: no statement
    slope = float((found * expected).sum() / (expected**2).sum())
    if abs(slope - 1) < SLOPE_TOLERANCE:
        return None
    return (
        f"energies of {len(values)} pairs of neighboring frames change {slope:.3g} times as much "
        f"as their forces say{_explanation(slope)}"
    )


def _pair(first: Frame, second: Frame) -> tuple[float, float] | None:
    """Change of the energy, and the change that the forces give; None for unrelated frames."""
    a, b = first.atoms, second.atoms
    if any(x is None for f in (first, second) for x in (f.energy, f.forces)):
        return None
    if len(a) != len(b) or not np.array_equal(a.numbers, b.numbers):
        return None
    if not np.allclose(a.cell.array, b.cell.array, atol=1e-6):
        return None
    step = b.positions - a.positions
    if np.abs(step).max() > NEAR:
        return None
    return second.energy - first.energy, float(-0.5 * ((first.forces + second.forces) * step).sum())


def _explanation(slope: float) -> str:
    if slope < 0:
        return ": gradients where forces are expected (the sign is wrong)?"
    best = min(
        ((e, f) for e in ENERGY_UNITS for f in FORCE_UNITS),
        key=lambda units: (
            abs(np.log(slope * ENERGY_UNITS[units[0]] / FORCE_UNITS[units[1]])),
            (units[0] != "eV") + (units[1] != "eV/A"),
        ),
    )
    factor = slope * ENERGY_UNITS[best[0]] / FORCE_UNITS[best[1]]
    if abs(factor - 1) > 0.1:
        return "; check the units of both"
    return (
        f": energies in {best[0]} with forces in {best[1]}? eV and eV/A are expected "
        "(tdn-data convert --energy-unit, --force-unit)"
    )
