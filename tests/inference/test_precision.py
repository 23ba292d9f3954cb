"""What float32 is enough for, and what it is not: the numbers of docs/calculator.md."""

import ase
import numpy as np
import pytest
from ase.build import molecule
from ase.optimize import BFGS
from structures import TRAINED_MODEL

from tdn import TDNCalculator


def dimer(dtype: str) -> ase.Atoms:
    """Two molecules of water, not in equilibrium."""
    atoms, other = molecule("H2O"), molecule("H2O")
    other.translate([0.3, 2.8, 0.4])
    atoms += other
    atoms.rattle(0.05, seed=1)
    atoms.calc = TDNCalculator(TRAINED_MODEL, "cpu", dtype)
    return atoms


def test_forces_of_float32_are_good_to_six_digits():
    single, double = (dimer(dtype).get_forces() for dtype in ("float32", "float64"))
    deviation = np.abs(single - double).max() / np.abs(double).max()
    assert 1e-9 < deviation < 2e-6


def test_relaxation():
    """To 1e-4 eV/angstrom both end in the same minimum; float32 does not come below 1e-7."""
    relaxed = {dtype: dimer(dtype) for dtype in ("float32", "float64")}
    runs = {dtype: BFGS(atoms, logfile=None) for dtype, atoms in relaxed.items()}
    assert all(run.run(fmax=1e-4, steps=200) for run in runs.values())
    energies = [atoms.get_potential_energy() for atoms in relaxed.values()]
    assert energies[0] == pytest.approx(energies[1], abs=1e-5)
    assert runs["float64"].run(fmax=1e-7, steps=100)
    assert not runs["float32"].run(fmax=1e-7, steps=100)
