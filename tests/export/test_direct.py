"""Networks with direct forces: exported on request only, and nowhere with a virial."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from ase.calculators.calculator import PropertyNotImplementedError
from structures import STRUCTURES, random_model

from tdn import TDNCalculator
from tdn.graph import graph_from_atoms
from tdn.inference.compiled_model import check_reference, load_compiled, read_extra_files
from tdn.network.checkpoint import save_model
from tdn.network.potential import Potential
from tdn.system.errors import TDNError
from tdn_export import ExportReport, export_model
from tdn_export.cli import main
from tdn_export.verify import check_symmetries

pytestmark = pytest.mark.usefixtures("plain")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("direct") / "model.pt"
    save_model(path, random_model("attention", forces="direct"), {})
    return path


@pytest.fixture(scope="module")
def report(checkpoint) -> ExportReport:
    with pytest.warns(UserWarning, match="direct forces are no gradient") as caught:
        result = export_model(checkpoint, direct_forces=True)
    assert len(caught) == 1
    return result


def test_refused_without_the_flag(checkpoint, tmp_path, capsys):
    output = tmp_path / "m.tdn.pth"
    assert main([str(checkpoint), "-o", str(output)]) == 1
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert "predicts forces directly" in message
    assert "--direct-forces" in message
    assert not output.exists()


def test_flag_without_direct_forces(export, tmp_path):
    with pytest.raises(TDNError, match="leave out --direct-forces"):
        export_model(export("scalars").checkpoint, tmp_path / "m.tdn.pth", direct_forces=True)


def test_contract(report):
    metadata, reference = read_extra_files(report.path)
    assert metadata["forces"] == "direct"
    assert metadata["format_version"] == 2  # the first release would take forces for gradients
    assert reference["virial"] is None
    assert set(reference["tolerance"]) == {"energy", "forces"}
    graph = graph_from_atoms(STRUCTURES["cluster"](), [1, 8], 4.0)
    module = load_compiled(report.path).module
    energy, forces = module(graph.species, graph.edge_index, graph.edge_vec, graph.num_atoms)
    assert energy.dtype == forces.dtype == torch.float64
    assert forces.shape == (graph.num_atoms, 3)
    assert not energy.requires_grad and not forces.requires_grad
    none = torch.zeros(2, 0, dtype=torch.int64), torch.zeros(0, 3, dtype=torch.float64)
    for count in (0, 1, 2):
        energy, forces = module(graph.species[:count], *none, count)
        assert energy.shape == (count,) and forces.shape == (count, 3)
        assert forces.count_nonzero() == 0


@pytest.mark.parametrize("name", list(STRUCTURES))
def test_agrees_with_the_network(checkpoint, report, name):
    """Same operations in another order: some hundred roundings of float64."""
    atoms = STRUCTURES[name]()
    network = random_model("attention", forces="direct")
    graph = graph_from_atoms(atoms, network.atomic_numbers, network.r_max)
    expected = Potential(network)(graph)
    compiled = load_compiled(report.path)(graph)
    assert compiled["virial"].isnan().all() and compiled["virial"].shape == (1, 3, 3)
    scale = expected["forces"].abs().max()
    assert (compiled["forces"] - expected["forces"]).abs().max() <= 1e-11 * scale
    for path in (checkpoint, report.path):
        atoms.calc = TDNCalculator(path, device="cpu")
        assert atoms.get_potential_energy() == pytest.approx(expected["energy"].item(), rel=1e-12)
        error = np.abs(atoms.get_forces() - expected["forces"].numpy()).max()
        assert error <= 1e-11 * scale


def test_no_stress(checkpoint, report):
    for path in (checkpoint, report.path):
        atoms = STRUCTURES["triclinic"]()
        atoms.calc = TDNCalculator(path, device="cpu")
        assert "stress" not in atoms.calc.implemented_properties
        with pytest.raises(PropertyNotImplementedError, match="predicts forces directly"):
            atoms.get_stress()
        atoms.get_forces()
        assert "stress" not in atoms.calc.results
    assert "stress" in TDNCalculator.implemented_properties  # of all other networks


@pytest.mark.slow
@pytest.mark.filterwarnings("always:direct forces")
def test_command_line(checkpoint, tmp_path, capsys):
    output = str(tmp_path / "m.tdn.pth")
    assert main([str(checkpoint), "-o", output, "--direct-forces", "--dtype", "float32"]) == 0
    captured = capsys.readouterr()
    warned = [line for line in captured.err.splitlines() if line.startswith("warning: direct")]
    assert len(warned) == 1 and "does not conserve energy" in warned[0]
    assert "direct: no gradient of the energy" in captured.out
    assert "virial: at most" not in captured.out
    assert main(["--check", output]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[:-1]] == [
        "energy",
        "forces",
    ]
    assert main(["--inspect", output]) == 0
    assert "energy is not conserved" in capsys.readouterr().out


def test_a_changed_network_is_noticed(report):
    compiled = load_compiled(report.path)
    weight = compiled.module.model.force_head.weight
    with torch.no_grad():
        weight[0] *= 1.001  # of forces alone
    with pytest.raises(TDNError, match="reference forces differs"):
        check_reference(compiled, "changed")


def test_broken_rotation_is_noticed(report):
    """Forces whose components are scaled differently do not turn with the structure."""
    compiled = load_compiled(report.path)
    network = random_model("attention", forces="direct")
    assert all(d.passed for d in check_symmetries([network], compiled))
    module = compiled.module

    def stretched(*arguments):
        energy, forces = module(*arguments)
        return energy, forces * torch.tensor([1.0, 1.0, 1.0 + 1e-8], dtype=torch.float64)

    compiled.module = stretched
    failed = [d.name for d in check_symmetries([network], compiled) if not d.passed]
    assert failed == ["rotation"]
