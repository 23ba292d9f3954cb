"""LAMMPS with the toy potential against its closed form in numpy, over all kinds of cells."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from .conftest import Measured, Structure
from .toy import closed_form

# LAMMPS's factor from eV/A^3 to bar, as in its source
BAR = 1.6021765e6
SYMMETRIC = [(0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2)]
FULL = [*SYMMETRIC, (1, 0), (2, 0), (2, 1)]

# |E| is below 1e2 eV, forces below 1e2 eV/A, virials below 1e3 eV; sums of at most 1e4 terms in
# double precision
TOLERANCE = {"rtol": 1e-11, "atol": 1e-10}


def random_structure(
    seed: int, num_atoms: int, cell: np.ndarray | None, distance: float = 0.9
) -> Structure:
    """Random atoms, no two closer than ``distance`` (over periodic images too)."""
    rng = np.random.default_rng(seed)
    images = np.zeros((1, 3))
    if cell is not None:
        grids = np.meshgrid(*[range(-2, 3)] * 3, indexing="ij")
        images = np.stack([grid.ravel() for grid in grids], axis=1) @ cell
    box = np.eye(3) * 5.0 if cell is None else cell
    positions: list[np.ndarray] = []
    while len(positions) < num_atoms:
        new = rng.random(3) @ box
        gaps = [np.linalg.norm(new - old + images, axis=1).min() for old in positions]
        if min(gaps, default=np.inf) > distance:
            positions.append(new)
    return Structure(rng.integers(0, 2, num_atoms), np.array(positions), cell)


TILTED = np.array([[7.0, 0.0, 0.0], [3.1, 6.5, 0.0], [-2.2, 2.9, 7.5]])
CELLS = {
    "molecule": (random_structure, (1, 9, None)),
    "two_fragments": (random_structure, (2, 2, None, 4.5)),
    "box": (random_structure, (3, 40, np.diag([9.0, 9.5, 10.0]))),
    "below_cutoff": (random_structure, (4, 3, np.diag([2.6, 3.1, 3.9]))),
    "one_atom_cell": (random_structure, (5, 1, np.diag([1.9, 2.1, 2.3]))),
    "triclinic": (random_structure, (6, 25, TILTED)),
    "triclinic_below_cutoff": (random_structure, (7, 4, TILTED * 0.4)),
}


def structures() -> list[Structure]:
    return [make(*arguments) for make, arguments in CELLS.values()]


def assert_agrees(found: Measured, structure: Structure, layers: int, unit: float = 1.0) -> None:
    """Compare everything LAMMPS reports with the closed form."""
    want = closed_form(structure.species, structure.positions, structure.cell, layers=layers)
    np.testing.assert_allclose(found.atom_energy / unit, want["energy"], **TOLERANCE)
    np.testing.assert_allclose(found.energy / unit, want["energy"].sum(), **TOLERANCE)
    np.testing.assert_allclose(found.forces / unit, want["forces"], **TOLERANCE)


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("comm", ["fold", "exchange"])
def test_energies_forces_virials(measure: Callable, layers: int, comm: str) -> None:
    cases = structures()
    results = measure(cases, f"toy{layers}.tdn.pth", style=f"tdn device cpu comm {comm}")
    for name, structure, found in zip(CELLS, cases, results, strict=True):
        assert_agrees(found, structure, layers)
        want = closed_form(structure.species, structure.positions, structure.cell, layers=layers)
        volume = 60.0**3 if structure.cell is None else np.linalg.det(structure.cell)
        virial = np.array([want["virial"][k] for k in SYMMETRIC])
        np.testing.assert_allclose(
            found.pressure, virial / volume * BAR, rtol=1e-8, atol=1e-7, err_msg=name
        )

        # half of each edge's virial to each end
        edge = -want["vec"][:, :, None] * want["gradient"][:, None, :]
        edge = 0.5 * (edge + edge.transpose(0, 2, 1))
        atoms = np.zeros((len(structure.species), 3, 3))
        np.add.at(atoms, want["centre"], 0.5 * edge)
        np.add.at(atoms, want["neighbour"], 0.5 * edge)
        stress = np.stack([-atoms[:, a, b] for a, b in SYMMETRIC], axis=1) * BAR
        np.testing.assert_allclose(found.atom_stress, stress, rtol=1e-8, atol=1e-3)

        # all of it to the neighbour
        edge = -want["vec"][:, :, None] * want["gradient"][:, None, :]
        atoms = np.zeros((len(structure.species), 3, 3))
        np.add.at(atoms, want["neighbour"], edge)
        stress = np.stack([-atoms[:, a, b] for a, b in FULL], axis=1) * BAR
        np.testing.assert_allclose(found.centroid_stress, stress, rtol=1e-8, atol=1e-3)


def test_per_atom_sums_are_the_totals(measure: Callable) -> None:
    cases = structures()[2:]
    for structure, found in zip(cases, measure(cases, "toy2.tdn.pth"), strict=True):
        volume = np.linalg.det(structure.cell)
        assert found.atom_energy.sum() == pytest.approx(found.energy, rel=1e-12)
        scale = np.abs(found.atom_stress).sum()
        total = -found.pressure * volume
        np.testing.assert_allclose(found.atom_stress.sum(0), total, atol=1e-12 * scale)
        centroid = found.centroid_stress.sum(0)
        np.testing.assert_allclose(centroid[:6], total, atol=1e-12 * scale)
        np.testing.assert_allclose(centroid[6:], total[3:], atol=1e-12 * scale)
        assert np.abs(found.forces.sum(0)).max() < 1e-10


def test_pressure_is_the_derivative_by_volume(measure: Callable) -> None:
    """p = -dE/dV by central differences of uniformly scaled cells; error O(h^2) = 1e-8."""
    h = 1e-4
    for seed, cell in [(3, np.diag([9.0, 9.5, 10.0])), (6, TILTED)]:
        middle = random_structure(seed, 20, cell)
        scaled = [
            Structure(middle.species, middle.positions * (1 + s * h), cell * (1 + s * h))
            for s in (-1, 1)
        ]
        low, high, at = measure([*scaled, middle], "toy2.tdn.pth")
        volumes = [np.linalg.det(s.cell) for s in scaled]
        slope = -(high.energy - low.energy) / (volumes[1] - volumes[0]) * BAR
        assert np.mean(at.pressure[:3]) == pytest.approx(slope, rel=1e-6)


def test_real_units(measure: Callable) -> None:
    structure = random_structure(3, 40, np.diag([9.0, 9.5, 10.0]))
    metal = measure([structure])[0]
    real = measure([structure], units="real")[0]
    kcal = 23.060549  # LAMMPS's own number for 1 eV
    np.testing.assert_allclose(real.forces, kcal * metal.forces, rtol=1e-12, atol=1e-12)
    assert real.energy == pytest.approx(kcal * metal.energy, rel=1e-12)
    # bar and atmospheres; the constants of the two unit systems agree to about 1e-7
    np.testing.assert_allclose(real.pressure * 1.01325, metal.pressure, rtol=1e-5, atol=1e-3)


def test_float32_model(measure: Callable) -> None:
    cases = structures()
    results = measure(cases, "toy2f.tdn.pth")
    for structure, found in zip(cases, results, strict=True):
        want = closed_form(structure.species, structure.positions, structure.cell, layers=2)
        # 24 bits for terms of the size of 10 eV/A and some ten neighbours
        np.testing.assert_allclose(found.forces, want["forces"], atol=1e-4)
        np.testing.assert_allclose(found.atom_energy, want["energy"], atol=1e-4)


def test_ids_and_atom_order_do_not_matter(measure: Callable) -> None:
    plain = random_structure(3, 40, np.diag([9.0, 9.5, 10.0]))
    order = np.random.default_rng(0).permutation(40)
    ids = 7 + 13 * np.arange(40)  # not consecutive
    shuffled = Structure(plain.species[order], plain.positions[order], plain.cell, ids)
    first, second = measure([plain, shuffled], "toy2.tdn.pth")
    np.testing.assert_allclose(second.forces, first.forces[order], rtol=0, atol=1e-10)
    np.testing.assert_allclose(second.atom_energy, first.atom_energy[order], rtol=0, atol=1e-11)
