"""The inputs of examples/lammps run, shortened, and print what they promise."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from tdn.network.checkpoint import load_model, save_model
from tdn_export import export_model

from .conftest import run_script, thermo_rows

EXAMPLES = Path(__file__).parents[2] / "examples"
GALLERY = EXAMPLES / "lammps"
WATER_MODEL = GALLERY / "water.pt"
DIAMOND_MODEL = Path(__file__).parents[1] / "files" / "diamond_small.pt"
INPUTS = ("nvt", "npt", "diffusion", "molecule", "slab", "zbl", "stress", "committee", "diamond")


@pytest.fixture(scope="module")
def water(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("water") / "water.tdn.pth"
    export_model(WATER_MODEL, path)
    return path


@pytest.fixture(scope="module")
def committee(water: Path) -> Path:
    """Beside the network itself, two with weights one percent off instead of two trainings."""
    checkpoints = [WATER_MODEL]
    for seed in (2, 3):
        model, _ = load_model(WATER_MODEL)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for weight in model.parameters():
                weight *= 1 + 0.01 * torch.randn(weight.shape, generator=generator)
        checkpoints.append(water.with_name(f"seed{seed}.pt"))
        save_model(checkpoints[-1], model, {})
    path = water.with_name("committee.tdn.pth")
    export_model(checkpoints, path)
    return path


@pytest.fixture(scope="module")
def diamond(water: Path) -> Path:
    path = water.with_name("diamond.tdn.pth")
    export_model(DIAMOND_MODEL, path)
    return path


@pytest.fixture
def run(plugin: Path, water: Path, tmp_path: Path) -> Callable[..., np.ndarray]:
    """Function that runs an input and gives its thermodynamic output of the last run."""
    for path in GALLERY.glob("*"):
        shutil.copy(path, tmp_path)

    def run(name: str, steps: int, ranks: int = 1, **variables: float) -> np.ndarray:
        script = (tmp_path / f"in.{name}").read_text()
        arguments = ["-var", "steps", str(steps)]
        for variable, value in variables.items():
            arguments += ["-var", variable, repr(value)]
        output = run_script(script, tmp_path, water.parent, ranks=ranks, arguments=arguments)
        rows = thermo_rows(output)
        start = max(k for k, row in enumerate(rows) if row[0] == 0)
        return np.array(rows[start:])

    return run


def test_all_inputs_are_here() -> None:
    assert {path.name for path in GALLERY.glob("in.*")} == {f"in.{name}" for name in INPUTS}


@pytest.mark.parametrize("ranks", [1, 2])
def test_nvt(run: Callable[..., np.ndarray], tmp_path: Path, ranks: int) -> None:
    rows = run("nvt", 20, ranks)
    # 96 atoms at 300 K have 3.7 eV of kinetic energy
    assert rows[-1, 0] == 20 and abs(np.ptp(rows[:, 4])) < 0.02
    distribution = np.loadtxt(tmp_path / "rdf.dat", skiprows=4)
    first_peak = distribution[np.argmax(distribution[:, 2]), 1]
    assert 2.5 < first_peak < 3.1  # angstrom, between the oxygen atoms of neighbours


def test_npt(run: Callable[..., np.ndarray]) -> None:
    rows = run("npt", 20)
    assert rows[-1, 5] != rows[0, 5]
    assert 0.9 < rows[-1, 6] < 1.1  # g/cm^3


def test_diffusion(run: Callable[..., np.ndarray]) -> None:
    rows = run("diffusion", 40)
    assert abs(np.ptp(rows[:, 3])) < 0.02
    assert rows[-1, 4] > 0


def test_molecule(run: Callable[..., np.ndarray], tmp_path: Path) -> None:
    rows = run("molecule", 100)
    assert abs(np.ptp(rows[:, 4])) < 1e-3
    first, second = (tmp_path / "molecule.dat").read_text().split()[1:3]
    assert first == second and 0.94 < float(first) < 0.99


def test_slab(run: Callable[..., np.ndarray], tmp_path: Path) -> None:
    rows = run("slab", 20)
    assert abs(np.ptp(rows[:, 3])) < 0.03
    profile = np.loadtxt(tmp_path / "profile.dat", skiprows=4)
    height = np.abs(profile[:, 1] - 9.8555 / 2)  # over the middle of the film
    assert 0.8 < profile[height < 4, 3].mean() < 1.3  # g/cm^3
    assert profile[height > 10, 3].max() == 0


def test_zbl(run: Callable[..., np.ndarray]) -> None:
    rows = run("zbl", 200)
    assert np.all(rows[:, 2] < 5e-4)  # the time step is that of a fast atom
    assert rows[0, 5] == 0  # nothing is closer than a bond at first
    assert abs(np.ptp(rows[:, 6])) < 0.1


def test_stress(run: Callable[..., np.ndarray], tmp_path: Path) -> None:
    rows = run("stress", 50)
    assert rows[-1, 2] > rows[0, 2]
    np.testing.assert_allclose(rows[:, 4], rows[:, 5], rtol=1e-9)
    assert len(np.loadtxt(tmp_path / "stress.dat", skiprows=4)) == 10


def test_committee(run: Callable[..., np.ndarray], committee: Path, tmp_path: Path) -> None:
    """Runs to its end with a high limit, and stops at once with the deviation of the first step."""
    rows = run("committee", 20, limit=1e6)
    assert rows[-1, 0] == 20
    assert 0 < rows[0, 4] < rows[0, 3]  # mean and largest deviation
    found = np.loadtxt(tmp_path / "deviation.dat", ndmin=2)
    np.testing.assert_array_equal(found[:, 0], [0, 10, 20])

    run("committee", 20, limit=0.5 * float(found[1, 1]))
    assert (tmp_path / "uncertain.dump").read_text().splitlines()[1] == "10"  # its step
    atoms = np.loadtxt(tmp_path / "uncertain.dump", skiprows=9)
    assert len(atoms) == 96
    assert atoms[:, 5].max() == pytest.approx(found[1, 1], rel=1e-4)  # six digits are written


def read_table(path: Path) -> dict[str, float]:
    """Quantities and values of a CSV file with these two columns."""
    rows = [line.split(",") for line in path.read_text().split()[1:]]
    return {name: float(value) for name, value in rows}


def test_diamond(run: Callable[..., np.ndarray], diamond: Path, tmp_path: Path) -> None:
    """Lattice and elastic constants are near those of the method that labelled the data."""
    rows = run("diamond", 40)
    assert rows[-1, 0] == 40 and 1000 < rows[-1, 1] < 2200
    found = read_table(tmp_path / "diamond.csv")
    want = read_table(EXAMPLES / "diamond" / "reference.csv")
    assert found["lattice"] == pytest.approx(want["lattice"], rel=2e-3)
    for name in ("C11", "C12", "C44"):
        assert found[name] == pytest.approx(want[name], abs=0.1 * want["C11"])
