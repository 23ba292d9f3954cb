"""Several MPI ranks give what one rank gives: what test_matrix.py leaves out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from .conftest import LammpsRunner, Measured, Structure, setup, thermo_rows
from .test_closed_form import TILTED, random_structure

FIELDS = ("forces", "atom_energy", "pressure", "atom_stress", "centroid_stress")


def slab() -> Structure:
    """Atoms in one end of a long cell, so that ranks at the other end have none."""
    structure = random_structure(11, 20, np.diag([6.0, 6.0, 6.0]))
    return Structure(structure.species, structure.positions, np.diag([6.0, 6.0, 60.0]))


def lattice() -> Structure:
    """Atoms near the points of a lattice, none close to another."""
    grid = np.stack(np.meshgrid(*[np.arange(4) * 2.6] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    rng = np.random.default_rng(5)
    jitter = rng.normal(scale=0.05, size=grid.shape)
    return Structure(rng.integers(0, 2, 64), grid + jitter + 0.5, np.eye(3) * 10.4)


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


def test_strictly_local_preset(measure: Callable, models: Path) -> None:
    """`nano` on ranks, beside the calculator; test_python_on_ranks.py counts its messages."""
    from ase import Atoms

    from tdn import TDNCalculator
    from tdn.config import model_config_from_dict
    from tdn.network.build import build_model
    from tdn.network.checkpoint import save_model
    from tdn_export import export_model

    values = {"preset": "nano", "species": ["H", "O"], "r_max": 4.0, "avg_num_neighbors": 12.0}
    model = build_model(model_config_from_dict(values), seed=3).requires_grad_(False)
    model.set_statistics(torch.tensor([-13.6, -432.1]), torch.tensor([0.7, 1.3]))
    save_model(models / "nano.pt", model, {})
    path = export_model(models / "nano.pt", models / "nano.tdn.pth", dtype="float64").path
    cases = structures()
    alone = measure(cases, path.name)
    for ranks in (2, 4):
        for found, want in zip(measure(cases, path.name, ranks=ranks), alone, strict=True):
            assert_same(found, want)
    for case, found in zip(cases, alone, strict=True):
        symbols = [("H", "O")[k] for k in case.species]
        atoms = Atoms(symbols, case.positions, cell=case.cell, pbc=True)
        atoms.calc = TDNCalculator(models / "nano.pt", dtype="float64")
        assert found.energy == pytest.approx(atoms.get_potential_energy(), rel=1e-12)
        forces = atoms.get_forces()
        scale = np.abs(forces).max()
        np.testing.assert_allclose(found.forces, forces, rtol=0, atol=1e-8 * scale)


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
    structure = lattice()
    structure.write(tmp_path / "data.start")
    rows = []
    for ranks, newton in [(1, "on"), (2, "on"), (2, "off")]:
        script = f"newton {newton}\n" + setup(structure, "data.start")
        output = lmp(script + "pair_coeff * * toy2.tdn.pth H O\n" + DYNAMICS, ranks=ranks)
        rows.append(thermo_rows(output)[-1])
    np.testing.assert_allclose(rows[1:], [rows[0]] * 2, rtol=1e-9)
