"""Files of earlier releases and from other machines."""

from __future__ import annotations

import json
import math
import shutil
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from archives import rewrite
from structures import STRUCTURES, TRAINED_MODEL

from tdn import TDNCalculator
from tdn.graph import graph_from_atoms
from tdn.inference.compiled_file import FORMAT_VERSION
from tdn.inference.compiled_model import load_compiled, read_extra_files
from tdn.network.checkpoint import load_model
from tdn.network.potential import Potential
from tdn_export import check, export_model, inspect
from tdn_export.cli import main
from tdn_export.description import weight_hash

# written by the first release from water_small.pt; never to be written again
FIRST_RELEASE = TRAINED_MODEL.with_name("compiled_format_1.tdn.pth")
# energies in eV that the first release gave for structures of the tests
FIRST_ENERGIES = {
    "cluster": -552.12662,
    "triclinic": -441.74751,
}

pytestmark = pytest.mark.usefixtures("plain")


def test_file_of_the_first_release():
    metadata, reference = read_extra_files(FIRST_RELEASE)
    assert metadata["format_version"] == 1
    assert "forces" not in metadata and "fused" not in metadata
    deviations, tolerance = check(FIRST_RELEASE)
    assert set(deviations) == {"energy", "forces", "virial"}
    assert all(deviations[name] <= tolerance[name] for name in deviations)
    model = load_compiled(FIRST_RELEASE)
    inputs = (reference[name] for name in ("species", "edge_index"))
    edge_vec = torch.tensor(reference["edge_vec"], dtype=torch.float64)
    energy, _ = model.evaluate_edges(*map(torch.tensor, inputs), edge_vec, reference["num_local"])
    # float32: rounding of about 1e-6 of the energies of interaction, a few eV
    error = energy - torch.tensor(reference["atom_energy"], dtype=torch.float64)
    assert error.abs().max() < 5e-5


@pytest.mark.parametrize("name", list(FIRST_ENERGIES))
def test_first_release_agrees_with_this_one(name):
    """The same weights in the network of today, in float32: relative rounding of 1e-5."""
    atoms = STRUCTURES[name]()
    atoms.calc = TDNCalculator(FIRST_RELEASE, device="cpu")
    assert atoms.get_potential_energy() == pytest.approx(FIRST_ENERGIES[name], abs=2e-4)
    model = load_model(TRAINED_MODEL)[0]
    expected = Potential(model)(graph_from_atoms(atoms, model.atomic_numbers, model.r_max))
    forces = expected["forces"].numpy()
    assert np.abs(atoms.get_forces() - forces).max() <= 2e-5 * np.abs(forces).max()


def test_first_release_on_the_command_line(capsys):
    assert main(["--inspect", str(FIRST_RELEASE)]) == 0
    assert "(format 1)" in capsys.readouterr().out
    assert main(["--inspect", str(FIRST_RELEASE), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == inspect(FIRST_RELEASE)
    assert main(["--check", str(FIRST_RELEASE)]) == 0


def test_writers_give_the_oldest_version(export):
    """Version 3 is for tables and the function from positions (see docs/compiled_file.md)."""
    metadata = export().report.metadata
    newer = metadata["radial_table_error"] is not None
    assert metadata["format_version"] == (3 if newer else 1) <= FORMAT_VERSION


def test_no_paths_of_the_machine_that_wrote_a_file(export):
    """Tables from code to its source would name the folders of this package."""
    root = str(Path(__file__).parents[2]).encode()
    for path in (export().path, FIRST_RELEASE):
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                assert not name.endswith(".debug_pkl")
                assert root not in archive.read(name)


def test_checkpoint_of_the_first_release(tmp_path):
    """water_small.pt is of the first format and has the weights of the compiled file."""
    content = torch.load(TRAINED_MODEL, weights_only=True)
    assert content["format_version"] == 1
    model = load_model(TRAINED_MODEL)[0]
    report = export_model(TRAINED_MODEL, tmp_path / "m.tdn.pth")
    assert report.metadata["weight_hash"] == weight_hash(model)
    # the compiled file also counted the frequencies of the Bessel functions among the weights
    n = torch.arange(1, model.config.num_radial + 1, dtype=torch.float64)
    state = {**model.state_dict(), "basis.frequencies": (n * math.pi / model.r_max).float()}
    earlier = SimpleNamespace(state_dict=lambda: state)
    assert weight_hash(earlier) == inspect(FIRST_RELEASE)["weight_hash"]


def test_checkpoint_of_a_gpu_on_a_machine_without(tmp_path):
    """Storages that say cuda:0, as `torch.save` writes them for tensors on a GPU."""
    path = tmp_path / "model.pt"
    cpu, cuda = b"X\x03\x00\x00\x00cpu", b"X\x06\x00\x00\x00cuda:0"

    def change(member: str, content: bytes) -> bytes:
        assert member != "data.pkl" or content.count(cpu) == 1  # later ones refer to it
        return content.replace(cpu, cuda) if member == "data.pkl" else content

    rewrite(TRAINED_MODEL, path, change)
    if not torch.cuda.is_available():
        with pytest.raises(RuntimeError, match="deserialize object on a CUDA device"):
            torch.load(path, weights_only=True)
    model = load_model(path)[0]
    assert model.embedding.device.type == "cpu"
    report = export_model(path, tmp_path / "m.tdn.pth")
    assert report.metadata["weight_hash"] == weight_hash(load_model(TRAINED_MODEL)[0])


def test_a_moved_and_renamed_file(export, tmp_path):
    """A file is known by its contents, not by its name."""
    path = shutil.copy(export("scalars").path, tmp_path / "potential")
    assert TDNCalculator(path, device="cpu").metadata["dtype"] == "float64"
