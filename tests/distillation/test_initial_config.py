"""What is planned for a structure: temperatures, displacements, the cutoff."""

from __future__ import annotations

from pathlib import Path

import ase
import numpy as np
import pytest
import yaml
from ase.build import bulk, graphene, molecule

from tdn.system.errors import TDNError
from tdn.training.distillation.initial_config import initial_config

# squares of distances over the square of half the lattice constant, rock salt
SHELLS = np.array([1, 2, 3, 4, 5, 6, 8, 9])


def planned(folder: Path, atoms: ase.Atoms) -> dict:
    atoms.write(folder / "structure.extxyz")
    return yaml.safe_load(
        initial_config([str(folder / "structure.extxyz")], "a:B", None, "run", folder)
    )


@pytest.mark.parametrize("length", [4.25, 4.8, 5.2, 5.5, 5.64, 5.69, 6.3])
def test_no_shell_of_a_crystal_is_about_the_cutoff_if_another_one_has_none(tmp_path, length):
    plan = planned(tmp_path, bulk("NaCl", "rocksalt", a=length, cubic=True))
    found = plan["student"]["model"]["r_max"]
    distances = 0.5 * length * np.sqrt(SHELLS)

    def free(cutoff: float) -> bool:
        return not ((distances > 0.92 * cutoff) & (distances < 1.02 * cutoff)).any()

    counts = np.cumsum([6, 12, 8, 6, 24, 24, 12, 30])
    first = next(c for c in (4.5, 5.0, 5.5, 6.0) if counts[(distances < c).nonzero()[0][-1]] >= 20)
    choices = [c for c in (first, first + 0.25, first + 0.5) if free(c)]
    assert found == (choices or [first])[0]


def test_the_demo_sees_the_third_shell(tmp_path):
    """Of rock salt as SevenNet-0 has it: at 4.93 angstrom, where 5 would leave nothing of it."""
    plan = planned(tmp_path, bulk("NaCl", "rocksalt", a=5.69, cubic=True))
    assert plan["student"]["model"]["r_max"] == 5.5


def test_without_order_the_smallest_cutoff_is_taken(tmp_path):
    rng = np.random.default_rng(0)
    # 26, 25 and 25 neighbors within these, 18 within the ones before
    for side, wanted in ((12.0, 4.5), (13.5, 5.0), (15.0, 5.5)):
        gas = ase.Atoms("Cu120", rng.random((120, 3)) * side, cell=[side] * 3, pbc=True)
        assert planned(tmp_path, gas)["student"]["model"]["r_max"] == wanted


def test_layers_in_a_periodic_cell_neither_melt_nor_shrink(tmp_path):
    layer = graphene(vacuum=8.0)
    layer.pbc = True
    plan = planned(tmp_path, layer)
    rounds = plan["rounds"]
    assert rounds["melt"] is None and rounds["pressures"] == []
    assert max(rounds["temperatures"]) == 1500.0  # a layer of carbon is no molecule
    assert "stress_weight" not in plan["student"]["train"]
    plan = planned(tmp_path, bulk("C", "diamond", a=3.57, cubic=True))
    assert plan["rounds"]["melt"] == 2000.0 and plan["rounds"]["pressures"] == [0.0]
    assert plan["student"]["train"]["stress_weight"] == 10


def test_solid_argon_stays_about_its_melting_point(tmp_path):
    rounds = planned(tmp_path, bulk("Ar", "fcc", a=5.26, cubic=True))["rounds"]
    low, *_, high = rounds["temperatures"]
    assert low < 0.5 * 83.8 and 83.8 < high < 1.3 * 83.8 < rounds["melt"] < 2 * 83.8


def test_displacements_follow_from_the_shortest_distance(tmp_path):
    water = molecule("H2O")
    assert planned(tmp_path, water)["seeds"]["rattle"] == pytest.approx(0.09 * 0.97, abs=5e-3)
    copper = bulk("Cu", "fcc", a=3.6)  # one atom in the cell: distances of its images
    expected = 0.09 * 3.6 / np.sqrt(2)
    assert planned(tmp_path, copper)["seeds"]["rattle"] == pytest.approx(expected, abs=5e-3)


def test_a_single_atom_is_refused(tmp_path):
    with pytest.raises(TDNError, match="a single atom has no neighbors"):
        planned(tmp_path, ase.Atoms("Ar"))
