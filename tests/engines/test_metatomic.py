"""Files for metatomic give, through its own calculator, the numbers of the ASE calculator."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module
from pathlib import Path

import forks
import numpy as np
import pytest
import torch
from ase.stress import full_3x3_to_voigt_6_stress
from structures import random_model, slab, triclinic_cell, water_cluster

import tdn_export
from tdn import TDNCalculator
from tdn.network.checkpoint import save_model
from tdn.system.errors import TDNError, UsageError
from tdn_export import export_model
from tdn_export.cli import main

pytest.importorskip("metatomic.torch", reason="needs metatomic-torch")
pytest.importorskip("metatomic_ase", reason="needs metatomic-ase")
pytestmark = pytest.mark.filterwarnings("ignore")  # of the packages that are tested with

STRUCTURES = {"crystal": triclinic_cell, "molecules": water_cluster, "slab": slab}


@pytest.fixture(params=["default", "attention"])
def files(request, shared_files) -> tuple[Path, Path]:
    """A checkpoint in float64 and what metatomic reads."""
    checkpoint = shared_files.checkpoint(request.param)

    def make(path: Path) -> None:
        export_model(checkpoint, path, backend="metatomic")

    return checkpoint, shared_files.get(f"{request.param}.metatomic.pt", make)


@pytest.mark.parametrize("structure", STRUCTURES)
def test_its_calculator_gives_the_numbers_of_ase(files, structure):
    """To 1e-8: what differs is the order of sums, and tables against radial networks."""
    from metatomic_ase import MetatomicCalculator

    checkpoint, path = files
    mine, theirs = STRUCTURES[structure](), STRUCTURES[structure]()
    mine.calc = TDNCalculator(checkpoint)
    theirs.calc = MetatomicCalculator(str(path), check_consistency=True)
    assert abs(mine.get_potential_energy() - theirs.get_potential_energy()) < 1e-8
    np.testing.assert_allclose(theirs.get_forces(), mine.get_forces(), rtol=0, atol=1e-8)
    if mine.cell.rank == 3:
        stress = theirs.get_stress(voigt=False)
        np.testing.assert_allclose(
            full_3x3_to_voigt_6_stress(stress), mine.get_stress(), rtol=0, atol=1e-9
        )


def test_energies_of_chosen_atoms_of_several_systems(files):
    """What programs with domains ask for: energies of their own atoms, neighbors of all."""
    from metatensor.torch import Labels
    from metatomic.torch import (
        ModelEvaluationOptions,
        ModelOutput,
        load_atomistic_model,
        systems_to_torch,
    )
    from vesin.metatomic import compute_requested_neighbors

    checkpoint, path = files
    model = load_atomistic_model(path)
    structures = [triclinic_cell(), water_cluster()]
    systems = systems_to_torch(structures, dtype=torch.float64)
    compute_requested_neighbors(systems, "angstrom", model)
    chosen = Labels(["system", "atom"], torch.tensor([[1, 2], [0, 3], [1, 0]], dtype=torch.int32))
    expected = []
    for atoms in structures:
        atoms.calc = TDNCalculator(checkpoint)
        expected.append(atoms.get_potential_energies())
    for kind, wanted in (
        ("atom", [expected[1][2], expected[0][3], expected[1][0]]),
        ("system", [expected[0][3], expected[1][2] + expected[1][0]]),
    ):
        options = ModelEvaluationOptions(
            length_unit="angstrom",
            outputs={"energy": ModelOutput(unit="eV", sample_kind=kind)},
            selected_atoms=chosen,
        )
        block = model(systems, options, check_consistency=True)["energy"].block()
        np.testing.assert_allclose(block.values[:, 0].numpy(), wanted, rtol=0, atol=1e-8)


def test_a_process_without_this_package(files, tmp_path):
    """The operators come from the folder that holds them, as in programs without Python."""
    checkpoint, path = files
    code = f"""
import sys
from ase.build import molecule
from metatomic_ase import MetatomicCalculator
atoms = molecule("H2O")
atoms.calc = MetatomicCalculator({str(path)!r}, extensions_directory=sys.prefix)
print(atoms.get_potential_energy())
assert "tdn" not in sys.modules
"""
    from ase.build import molecule

    from tdn.ops import library_path

    if library_path() is None or not library_path().is_relative_to(sys.prefix):
        pytest.skip("needs compiled operators in the Python environment")
    done = subprocess.run([forks.python(), "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    atoms = molecule("H2O")
    atoms.calc = TDNCalculator(checkpoint)
    assert float(done.stdout) == pytest.approx(atoms.get_potential_energy(), abs=1e-8)


def test_command(tmp_path, shared_files, capsys):
    checkpoint = tmp_path / "model.pt"
    checkpoint.write_bytes(shared_files.checkpoint("scalars").read_bytes())
    assert main([str(checkpoint), "--backend", "metatomic"]) == 0
    assert "checks passed" in capsys.readouterr().out
    assert (tmp_path / "model.metatomic.pt").is_file()
    with pytest.raises(TDNError, match="is for programs that run models of metatomic"):
        TDNCalculator(tmp_path / "model.metatomic.pt")


def test_what_is_refused(tmp_path, shared_files, monkeypatch, capsys):
    import_module("tdn_export.metatomic")  # what is then missing
    checkpoint = shared_files.checkpoint("scalars")
    output = tmp_path / "model.metatomic.pt"
    with pytest.raises(UsageError, match="a committee needs the backend torchscript"):
        export_model([checkpoint, checkpoint], output, backend="metatomic")
    save_model(tmp_path / "direct.pt", random_model("attention", forces="direct"), {})
    with pytest.raises(UsageError, match="direct forces needs the backend torchscript"):
        export_model(tmp_path / "direct.pt", output, backend="metatomic", direct_forces=True)
    monkeypatch.delitem(sys.modules, "tdn_export.metatomic")
    monkeypatch.delattr(tdn_export, "metatomic")
    monkeypatch.setitem(sys.modules, "metatomic.torch", None)
    assert main([str(checkpoint), "-o", str(output), "--backend", "metatomic"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith('run: pip install "metatomic-torch"')
    assert not output.exists()
