"""Several MPI ranks give what one rank gives: what test_matrix.py leaves out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from .conftest import LammpsRunner, Measured, Structure, setup, thermo_rows
from .test_closed_form import TILTED, random_structure

FIELDS = ("forces", "atom_energy", "pressure", "atom_stress", "centroid_stress")


def slab() -> Structure:
    """Atoms in one end of a long cell, so that ranks at the other end have none."""
    structure = random_structure(11, 20, np.diag([6.0, 6.0, 6.0]))
    return Structure(structure.species, structure.positions, np.diag([6.0, 6.0, 60.0]))


def structures() -> list[Structure]:
    return [
        random_structure(3, 60, np.diag([12.0, 9.5, 10.0])),
        random_structure(6, 25, TILTED),
        random_structure(4, 3, np.diag([2.6, 3.1, 3.9])),
        slab(),
    ]


def assert_same(found: Measured, want: Measured) -> None:
    assert found.energy == pytest.approx(want.energy, rel=1e-12)
    for name in FIELDS:
        scale = np.abs(getattr(want, name)).max()
        np.testing.assert_allclose(
            getattr(found, name), getattr(want, name), rtol=0, atol=1e-11 * scale, err_msg=name
        )


def test_float32_features(measure: Callable) -> None:
    cases = structures()[:1]
    alone = measure(cases, "toy2f.tdn.pth")[0]
    together = measure(cases, "toy2f.tdn.pth", ranks=2)[0]
    np.testing.assert_allclose(together.forces, alone.forces, rtol=0, atol=2e-5)


DYNAMICS = """
velocity all create 1500 99
neighbor 0.3 bin
neigh_modify delay 0 every 5 check no
fix 1 all nve
timestep 0.001
thermo 30
thermo_style custom step pe etotal press
thermo_modify format float %.17g
run 30
"""


def test_trajectories_agree(lmp: LammpsRunner, tmp_path: Path) -> None:
    """Atoms change ranks and lists are rebuilt; rounding errors grow, but not this far."""
    grid = np.stack(np.meshgrid(*[np.arange(4) * 2.6] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    rng = np.random.default_rng(5)
    jitter = rng.normal(scale=0.05, size=grid.shape)
    structure = Structure(rng.integers(0, 2, 64), grid + jitter + 0.5, np.eye(3) * 10.4)
    structure.write(tmp_path / "data.start")
    rows = []
    for ranks, newton in [(1, "on"), (2, "on"), (2, "off")]:
        script = f"newton {newton}\n" + setup(structure, "data.start")
        output = lmp(script + "pair_coeff * * toy2.tdn.pth H O\n" + DYNAMICS, ranks=ranks)
        rows.append(thermo_rows(output)[-1])
    np.testing.assert_allclose(rows[1:], [rows[0]] * 2, rtol=1e-9)
