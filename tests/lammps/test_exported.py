"""The whole way: a network exported to a file gives in LAMMPS what it gives in Python."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import ase
import ase.units
import numpy as np
import pytest
from shared_files import SharedFiles

from tdn.inference.calculator import TDNCalculator

from .conftest import Structure
from .test_closed_form import BAR, SYMMETRIC, TILTED, random_structure
from .test_parallel import assert_same


@pytest.fixture(scope="module", params=["l1", "attention"])
def checkpoint(request: pytest.FixtureRequest, shared_files: SharedFiles) -> Path:
    """A network of several layers in float64; its compiled file lies beside it."""
    shared_files.export(request.param)
    return shared_files.checkpoint(request.param)


def structures() -> list[Structure]:
    return [
        random_structure(1, 9, None),
        random_structure(3, 40, np.diag([9.0, 9.5, 10.0])),
        random_structure(6, 25, TILTED),
        random_structure(4, 3, np.diag([2.6, 3.1, 3.9])),
    ]


@pytest.mark.round_trip
def test_lammps_is_the_calculator(measure: Callable, checkpoint: Path) -> None:
    calculator = TDNCalculator(checkpoint, device="cpu")
    cases = structures()
    for structure, found in zip(cases, measure(cases, f"{checkpoint.stem}.tdn.pth"), strict=True):
        periodic = structure.cell is not None
        atoms = ase.Atoms(
            np.array(["H", "O"])[structure.species],
            structure.positions,
            cell=structure.cell,
            pbc=periodic,
            calculator=calculator,
        )
        assert found.energy == pytest.approx(atoms.get_potential_energy(), rel=1e-12)
        forces = atoms.get_forces()
        scale = max(1.0, np.abs(forces).max())
        np.testing.assert_allclose(found.forces, forces, rtol=0, atol=1e-10 * scale)
        if periodic:
            pressure = -np.array([atoms.get_stress(voigt=False)[k] for k in SYMMETRIC]) * BAR
            scale = np.abs(pressure).max()
            np.testing.assert_allclose(found.pressure, pressure, rtol=0, atol=1e-10 * scale)


def test_attention_on_ranks(measure: Callable, shared_files: SharedFiles) -> None:
    """As test_matrix.py for the other architecture."""
    model = shared_files.export("attention").name
    alone = measure(structures(), model)
    for newton in ("on", "off"):
        together = measure(structures(), model, ranks=2, before=f"newton {newton}")
        for want, found in zip(alone, together, strict=True):
            assert_same(found, want)
