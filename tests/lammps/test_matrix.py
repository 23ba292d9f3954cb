"""Ranks, decompositions, cells, newton and hybrid, each with each: all give the same numbers.

Every number of ranks is one launch of LAMMPS, which goes through its cases with ``clear`` between.
The network is the smallest that exchanges features twice per pass (three layers), in float64.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import ase
import numpy as np
import pytest
import torch
from shared_files import SharedFiles
from structures import CONFIGS

from tdn.inference.calculator import TDNCalculator
from tdn.inference.compiled_file import read_extra_files
from tdn.inference.network import inference_network
from tdn.network.checkpoint import load_model
from tdn_export import script
from tdn_export.deployed import DeployedModel

from .conftest import MEASURE, Measured, Structure, read_measured, run_script, thermo_rows
from .test_closed_form import BAR, SYMMETRIC, TILTED, random_structure
from .toy import all_edges

NETWORK = "l1"
MODEL = "l1_1.tdn.pth"
SPECTATORS = 4  # atoms of a type that only a style without forces knows


def in_vacuum(structure: Structure, cell: np.ndarray) -> Structure:
    return replace(structure, cell=cell)


def gas() -> Structure:
    """A few atoms together at one end, then single ones beyond the cutoff of each other."""
    cluster = random_structure(12, 6, np.diag([5.0, 5.0, 5.0]))
    positions = [[2.0 + 5.0 * (k % 2), 3.0, 10.0 + 6.0 * k] for k in range(10)]
    species = np.concatenate([cluster.species, np.arange(10) % 2])
    cell = np.diag([10.0, 10.0, 72.0])
    return Structure(species, np.concatenate([cluster.positions, positions]), cell)


# vacuum beyond the cutoff: whether that direction is periodic does not matter
CELLS = {
    "orthogonal": random_structure(3, 40, np.diag([12.0, 9.5, 10.0])),
    "triclinic": random_structure(6, 25, TILTED),
    "below_cutoff": random_structure(4, 3, np.diag([2.6, 3.1, 3.9])),
    "slab": in_vacuum(random_structure(11, 20, np.diag([6.0, 6.0, 6.0])), np.diag([6.0, 6.0, 40])),
    "molecule": in_vacuum(random_structure(1, 9, None), np.diag([20.0, 20.0, 20.0])),
    "gas": gas(),
}
BOUNDARY = {"slab": "p p f", "molecule": "f f f"}


@dataclass(frozen=True)
class Case:
    cell: str
    decomposition: str
    newton: str
    hybrid: bool

    def script(self, name: str, ranks: int, model: str = MODEL) -> str:
        """Commands that compute everything of this case and dump it as ``name``.dump."""
        lines = [
            "clear",
            "units metal",
            f"newton {self.newton}",
            "comm_style tiled" if self.decomposition == "tiled" else "",
            f"processors * * {ranks}" if self.decomposition == "row" else "",
            f"boundary {BOUNDARY.get(self.cell, 'p p p')}",
            f"read_data {self.cell}.{'hybrid' if self.hybrid else 'plain'}.data",
            "neighbor 0.3 bin",
        ]
        if self.hybrid:
            lines += [
                "pair_style hybrid tdn zero 4.0",
                f"pair_coeff * * tdn {model} H O NULL",
                "pair_coeff * 3 zero",
            ]
        else:
            lines += ["pair_style tdn", f"pair_coeff * * {model} H O"]
        if self.decomposition == "tiled":
            lines.append("balance 1.0 rcb")
        return "\n".join(lines) + "\n" + MEASURE.format(dump=f"{name}.dump")


# all ranks behind each other along z, and tiles of equal numbers of atoms; LAMMPS has no tiles
# where the halo is wider than the cell
CASES = [
    Case(cell, decomposition, *options)
    for cell, decomposition in product(CELLS, ("brick", "row", "tiled"))
    if (cell, decomposition) != ("below_cutoff", "tiled")
    for options in product(("on", "off"), (False, True))
]


def export_edges_only(checkpoint: Path, compiled: Path, path: Path) -> None:
    """The compiled file of a checkpoint as writers of format version 2 made it."""
    module = DeployedModel(inference_network(load_model(checkpoint)[0], torch.float64))
    metadata, reference = read_extra_files(compiled)
    assert metadata["format_version"] == 3
    files = {"metadata.json": metadata | {"format_version": 2}, "reference.json": reference}
    texts = {name: json.dumps(content) for name, content in files.items()}
    path.write_bytes(script.save_bytes(script.script(module), texts))


def with_spectators(structure: Structure) -> Structure:
    """The structure with some atoms of a third type in it, wherever they are."""
    rng = np.random.default_rng(7)
    extra = rng.random((SPECTATORS, 3)) @ structure.cell
    return replace(
        structure,
        species=np.concatenate([structure.species, np.full(SPECTATORS, 2)]),
        positions=np.concatenate([structure.positions, extra]),
        masses=(*structure.masses, 39.9),
    )


@pytest.fixture(scope="module")
def checkpoint(shared_files: SharedFiles) -> Path:
    assert shared_files.export(NETWORK).name == MODEL
    return shared_files.checkpoint(NETWORK)


@pytest.fixture(scope="module")
def run_cases(
    plugin: Path, models: Path, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable:
    """Function that runs cases in one launch; results are of the atoms the network knows."""
    folder = tmp_path_factory.mktemp("matrix")
    for name, structure in CELLS.items():
        structure.write(folder / f"{name}.plain.data")
        with_spectators(structure).write(folder / f"{name}.hybrid.data")

    def run(cases: list[Case], ranks: int, model: str = MODEL) -> dict[Case, Measured]:
        script = "".join(case.script(f"case{k}", ranks, model) for k, case in enumerate(cases))
        thermo = thermo_rows(run_script(script, folder, models, ranks=ranks, time_limit=600))
        assert len(thermo) == len(cases)
        return {
            case: read_measured(folder / f"case{k}.dump", row, len(CELLS[case.cell].species))
            for k, (case, row) in enumerate(zip(cases, thermo, strict=True))
        }

    return run


@pytest.fixture(scope="module")
def alone(run_cases: Callable) -> dict[Case, Measured]:
    """Results of one rank."""
    return run_cases(CASES, 1)


def assert_close(found: Measured, want: Measured, case: Case, tolerance: float) -> None:
    for field in vars(want):
        expected = np.asarray(getattr(want, field))
        atol = tolerance * np.abs(expected).max()
        np.testing.assert_allclose(
            getattr(found, field), expected, rtol=0, atol=atol, err_msg=f"{case} {field}"
        )


def assert_sums(found: Measured, case: Case) -> None:
    """Per-atom quantities make up the global ones; both kinds of virials."""
    total = -found.pressure * np.linalg.det(CELLS[case.cell].cell)
    atol = 1e-10 * np.abs(found.atom_stress).sum()
    centroid = found.centroid_stress.sum(0)
    assert found.atom_energy.sum() == pytest.approx(found.energy, rel=1e-10), case
    for values in (found.atom_stress.sum(0), centroid[:6], centroid[[0, 1, 2, 6, 7, 8]]):
        np.testing.assert_allclose(values, total, rtol=0, atol=atol, err_msg=str(case))


def test_one_rank_is_the_calculator(alone: dict[Case, Measured], checkpoint: Path) -> None:
    calculator = TDNCalculator(checkpoint, device="cpu")
    want = {}
    for name, structure in CELLS.items():
        symbols = np.array(["H", "O"])[structure.species]
        atoms = ase.Atoms(symbols, structure.positions, cell=structure.cell, pbc=True)
        atoms.calc = calculator
        stress = atoms.get_stress(voigt=False)
        want[name] = (
            atoms.get_potential_energies(),
            atoms.get_forces(),
            -np.array([stress[k] for k in SYMMETRIC]) * BAR,
        )
    for case, found in alone.items():
        energies, forces, pressure = want[case.cell]
        np.testing.assert_allclose(found.atom_energy, energies, rtol=1e-8, err_msg=str(case))
        assert found.energy == pytest.approx(energies.sum(), rel=1e-8)
        for values, expected in [(found.forces, forces), (found.pressure, pressure)]:
            atol = 1e-8 * np.abs(expected).max()
            np.testing.assert_allclose(values, expected, rtol=0, atol=atol, err_msg=str(case))
        assert_sums(found, case)


@pytest.mark.parametrize("ranks", [2, 3, 4, 8])
def test_ranks_agree(run_cases: Callable, alone: dict[Case, Measured], ranks: int) -> None:
    for case, found in run_cases(CASES, ranks).items():
        assert found.energy == pytest.approx(alone[case].energy, rel=1e-12), case
        assert_close(found, alone[case], case, 1e-11)
        assert_sums(found, case)


@pytest.mark.parametrize("ranks", [1, 3])
def test_edges_give_the_same(
    run_cases: Callable, alone: dict[Case, Measured], models: Path, checkpoint: Path, ranks: int
) -> None:
    """A file without the function from positions, of format version 2: another way altogether."""
    edges_only = models / "edges_only.tdn.pth"
    if not edges_only.exists():
        export_edges_only(checkpoint, models / MODEL, edges_only)
    for case, found in run_cases(CASES[:: 1 if ranks == 1 else 5], ranks, edges_only.name).items():
        assert found.energy == pytest.approx(alone[case].energy, rel=1e-12), case
        assert_close(found, alone[case], case, 1e-12 if ranks == 1 else 1e-11)


@pytest.mark.parametrize("ranks", [2, 3, 4, 8])
def test_gas_leaves_ranks_with_atoms_but_no_edges(ranks: int) -> None:
    """What the cell is for, with the ranks behind each other along z."""
    structure = CELLS["gas"]
    rank_of_atom = (structure.positions[:, 2] / structure.cell[2, 2] * ranks).astype(int)
    centres = all_edges(structure.positions, structure.cell, 4.0)[0]
    assert set(rank_of_atom) == set(range(ranks))
    assert 0 < len(set(rank_of_atom[centres])) < ranks


def test_exchanges_of_features_and_gradients(
    run_cases: Callable, plugin: Path, models: Path, tmp_path: Path
) -> None:
    """The first layer knows its neighbors' elements; each later one needs their features once.

    The gradients of the messages of all layers go the same way, and nothing comes back.

    The halo is one cutoff (and the skin) wide, whatever the number of layers.
    """
    CELLS["orthogonal"].write(tmp_path / "orthogonal.plain.data")
    script = Case("orthogonal", "brick", "on", False).script("case", 2)
    # LAMMPS names the width of the halo beside the lists that it makes
    script = script.replace("pair_style tdn", "pair_style tdn neighbors lammps")
    output = run_script(script + "run 3\n", tmp_path, models, ranks=2)
    (line,) = re.findall("TDN communication per step: .*", output)
    layers = CONFIGS[NETWORK].num_layers
    assert layers == 3
    found = re.search(r"(\d+) forward .* with (\d+) bytes .*, (\d+) reverse with (\d+) bytes", line)
    forward, forward_bytes, reverse, reverse_bytes = (int(number) for number in found.groups())
    assert forward == 2 * layers - 1
    assert reverse == reverse_bytes == 0
    components = (CONFIGS[NETWORK].l_max + 1) ** 2
    assert forward_bytes == 8 * forward * components * CONFIGS[NETWORK].num_channels  # doubles
    assert "ghost atom cutoff = 4.3" in output
    ghosts = [int(n) for n in re.search(r"at most (\d+) ghosts of other ranks and", line).groups()]
    histogram = re.search(r"Nghost: +\S+ ave +(\d+) max", output)
    # images of a rank's own atoms, here those along y and z, stay where they are
    assert 0 < ghosts[0] < int(histogram[1])
    megabytes = float(re.search(r"([\d.]+) MB per rank", line)[1])
    assert megabytes == pytest.approx(1e-6 * ghosts[0] * forward_bytes, abs=0.0005 + 1e-9)
