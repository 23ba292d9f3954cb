"""Calculators in other processes, and inside `torch.inference_mode`."""

import multiprocessing
import pickle
from pathlib import Path

import ase
import pytest
import torch
from ase.build import molecule
from structures import TRAINED_MODEL

from tdn import TDNCalculator
from tdn.network.checkpoint import load_model
from tdn.network.potential import Potential

FILES = {
    "checkpoint": TRAINED_MODEL,
    "compiled": Path(__file__).parents[1] / "files" / "compiled_format_1.tdn.pth",
}


def water(calculator: TDNCalculator) -> ase.Atoms:
    atoms = molecule("H2O")
    atoms.calc = calculator
    return atoms


@pytest.fixture(scope="module")
def expected() -> dict[str, float]:
    return {n: water(TDNCalculator(f, "cpu")).get_potential_energy() for n, f in FILES.items()}


@pytest.mark.slow
def test_spawned_processes(expected):
    """What joblib and dask do as well."""
    systems = [water(TDNCalculator(file, "cpu")) for file in FILES.values()]
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        found = pool.map_async(ase.Atoms.get_potential_energy, systems).get(timeout=300)
    assert found == pytest.approx(list(expected.values()), rel=1e-14)


@pytest.mark.parametrize("name", list(FILES))
def test_a_pickle_holds_results_and_finds_its_file(name, expected, tmp_path, monkeypatch):
    """Also from another folder than the one that a relative path began in."""
    monkeypatch.chdir(FILES[name].parent)
    atoms = water(TDNCalculator(FILES[name].name, "cpu"))
    forces = atoms.get_forces()
    text = pickle.dumps(atoms)
    monkeypatch.chdir(tmp_path)
    copy = pickle.loads(text)
    assert (copy.calc.results["forces"] == forces).all()
    copy.rotate(30, "x")
    assert copy.get_potential_energy() == pytest.approx(expected[name], rel=1e-9)


@pytest.mark.parametrize("name", list(FILES))
def test_inference_mode(name, expected):
    with torch.inference_mode():
        calculator = TDNCalculator(FILES[name], "cpu")
        inside = water(calculator).get_potential_energy()
    calculator.reset()
    outside = water(calculator).get_potential_energy()
    assert [inside, outside] == pytest.approx(2 * [expected[name]], rel=1e-14)
    with torch.inference_mode():
        loaded = load_model(TRAINED_MODEL)[0]
    assert not any(tensor.is_inference() for tensor in Potential(loaded).state_dict().values())
