"""Several networks in one file: their mean, their deviation, and what they must share."""

from __future__ import annotations

from pathlib import Path

import ase.io
import numpy as np
import pytest
import torch
from ase.calculators.singlepoint import SinglePointCalculator
from structures import CONFIGS, STRUCTURES, random_model

from tdn import TDNCalculator
from tdn.config import ModelConfig
from tdn.graph import collate, graph_from_atoms
from tdn.inference.compiled_model import load_compiled
from tdn.network.build import build_model
from tdn.network.checkpoint import save_model
from tdn.network.potential import Potential, stress_of_virial
from tdn.system.errors import TDNError, UsageError
from tdn_export import ExportReport, export_model
from tdn_export.cli import main
from tdn_export.verify import compare

pytestmark = pytest.mark.usefixtures("plain")

MEMBERS = [("default", 1), ("default", 2), ("l1", 3)]  # of different sizes and depths


def models() -> list:
    return [random_model(name, seed) for name, seed in MEMBERS]


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory) -> list[Path]:
    folder = tmp_path_factory.mktemp("committee")
    paths = [folder / f"{k}.pt" for k in range(len(MEMBERS))]
    for path, model in zip(paths, models()):
        save_model(path, model, {"name": path.name})
    return paths


@pytest.fixture(scope="module")
def report(checkpoints) -> ExportReport:
    # without tables, so that only rounding is between members and their checkpoints
    return export_model(checkpoints, checkpoints[0].with_name("committee.tdn.pth"), fused=False)


@pytest.mark.parametrize("name", list(STRUCTURES))
def test_mean_and_deviations(report, name):
    """Against the definition, from the eager networks one by one."""
    atoms = STRUCTURES[name]()
    graph = graph_from_atoms(atoms, [1, 8], 4.0)
    alone = [Potential(model)(graph) for model in models()]
    energies = np.array([r["energy"].item() for r in alone])
    forces = np.stack([r["forces"].numpy() for r in alone])  # [n, N, 3]
    deviation = np.sqrt(np.mean(np.sum((forces - forces.mean(axis=0)) ** 2, axis=2), axis=0))
    # rounding of a few hundred operations on numbers of these sizes
    size = np.abs(forces).max()
    atoms.calc = TDNCalculator(report.path, device="cpu")
    assert atoms.get_potential_energy() == pytest.approx(energies.mean(), rel=1e-13)
    assert np.abs(atoms.get_forces() - forces.mean(axis=0)).max() <= 1e-11 * size
    results = atoms.calc.results
    assert results["energy_std"] == pytest.approx(energies.std(), rel=1e-9)
    assert results["forces_std"].shape == (len(atoms),)
    assert np.abs(results["forces_std"] - deviation).max() <= 1e-11 * size
    assert results["forces_std"].min() > 1e-3 * size  # random networks do not agree
    if atoms.pbc.any():
        virials = torch.stack([r["virial"] for r in alone])
        stress = stress_of_virial(virials.mean(dim=0), graph.volume)[0].numpy()
        error = np.abs(atoms.get_stress(voigt=False) - stress).max()
        assert error <= 1e-11 * np.abs(stress).max()


def test_contract(report):
    compiled = load_compiled(report.path)
    graph = graph_from_atoms(STRUCTURES["cluster"](), [1, 8], 4.0)
    inputs = graph.species, graph.edge_index, graph.edge_vec, graph.num_atoms
    energies, gradients = compiled.evaluate_members(*inputs)
    assert energies.shape == (3, graph.num_atoms)
    assert gradients.shape == (3, graph.edge_vec.shape[0], 3)
    mean = compiled.evaluate_edges(*inputs)
    assert torch.equal(mean[0], energies.mean(dim=0))
    assert torch.equal(mean[1], gradients.mean(dim=0))
    for k, model in enumerate(models()):
        expected = Potential(model)(graph)["atom_energy"]
        assert torch.allclose(energies[k], expected, rtol=1e-13, atol=0)
    none = torch.zeros(2, 0, dtype=torch.int64), torch.zeros(0, 3, dtype=torch.float64)
    energies, gradients = compiled.evaluate_members(graph.species[:1], *none, 1)
    assert energies.shape == (3, 1) and gradients.shape == (3, 0, 3)


def test_batch(report):
    compiled = load_compiled(report.path)
    graphs = [graph_from_atoms(make(), [1, 8], 4.0) for make in STRUCTURES.values()]
    together = compiled(collate(graphs))
    assert together["energy_std"].shape == (len(graphs),)
    for i, graph in enumerate(graphs):
        alone = compiled(graph)["energy_std"].item()
        assert together["energy_std"][i].item() == pytest.approx(alone, rel=1e-10)


def test_metadata(report, capsys):
    metadata = report.metadata
    assert metadata["committee"] == 3
    assert metadata["format_version"] == 1  # its mean is what a single network gives
    assert metadata["num_layers"] == 3
    assert metadata["receptive_field"] == 12.0
    assert metadata["l_max"] is None and metadata["architecture"] == "convolution"
    assert [m["l_max"] for m in metadata["members"]] == [2, 2, 1]
    assert [m["training"]["name"] for m in metadata["members"]] == ["0.pt", "1.pt", "2.pt"]
    counts = [sum(p.numel() for p in model.parameters()) for model in models()]
    assert metadata["num_parameters"] == sum(counts)
    assert main(["--inspect", str(report.path)]) == 0
    assert "3 networks; results are means" in capsys.readouterr().out
    assert main(["--check", str(report.path)]) == 0


def test_single_files_have_no_deviation(export):
    atoms = STRUCTURES["cluster"]()
    atoms.calc = TDNCalculator(export().path, device="cpu")
    atoms.get_forces()
    assert "forces_std" not in atoms.calc.results


def test_members_in_another_order_are_noticed(report):
    """The mean stays the same then; only the comparison member by member can see it."""
    compiled = load_compiled(report.path)
    networks = models()
    cluster = {"cluster": STRUCTURES["cluster"]()}
    assert all(d.passed for d in compare(networks, compiled, cluster))
    assert not any(d.passed for d in compare(networks[::-1], compiled, cluster))


@pytest.mark.slow
def test_command_line(checkpoints, tmp_path, capsys):
    output = tmp_path / "c.tdn.pth"
    names = [str(p) for p in checkpoints]
    assert main(names) == 2
    assert "-o committee.tdn.pth" in capsys.readouterr().err
    assert main([*names[:2], "-o", str(output), "--dtype", "float32"]) == 0
    assert "2 networks" in capsys.readouterr().out
    assert main([*names, "--backend", "aotinductor", "-o", str(tmp_path / "c.tdn.pt2")]) == 2
    assert "a committee needs the backend torchscript" in capsys.readouterr().err


@pytest.mark.parametrize(
    "changes, expected",
    [
        ({"r_max": 4.5}, "need the same r_max: .* has 4.5, .* has 4.0"),
        ({"species": ("O", "H")}, "need the same species: .* has O H, .* has H O"),
        ({"name": "attention"}, "need the same architecture"),
    ],
)
def test_members_that_do_not_fit(checkpoints, tmp_path, changes, expected):
    values = {"name": "default", "species": ("H", "O"), "r_max": 4.0} | changes
    config = vars(CONFIGS[values.pop("name")]) | values | {"avg_num_neighbors": 12.0}
    save_model(tmp_path / "b.pt", build_model(ModelConfig(**config)), {})
    with pytest.raises(TDNError, match=expected):
        export_model([checkpoints[0], tmp_path / "b.pt"], tmp_path / "c.tdn.pth")
    assert not (tmp_path / "c.tdn.pth").exists()


def test_precisions_that_differ(export, checkpoints, tmp_path):
    other = export("default", "float32").checkpoint
    with pytest.raises(TDNError, match="differ in precision; choose one with --dtype"):
        export_model([checkpoints[0], other], tmp_path / "c.tdn.pth")
    with pytest.raises(UsageError, match="no checkpoint given"):
        export_model([], tmp_path / "c.tdn.pth")


@pytest.fixture(scope="module")
def labeled(tmp_path_factory) -> Path:
    """Frames whose labels are those of the members' mean plus errors of known size."""
    path = tmp_path_factory.mktemp("labeled") / "frames.xyz"
    generator = np.random.default_rng(0)
    networks = [Potential(model) for model in models()]
    frames = []
    for name in ("cluster", "triclinic"):
        for _ in range(10):
            atoms = STRUCTURES[name]()
            atoms.positions += 0.05 * generator.normal(size=atoms.positions.shape)
            graph = graph_from_atoms(atoms, [1, 8], 4.0)
            alone = [network(graph) for network in networks]
            forces = np.stack([r["forces"].numpy() for r in alone])
            mean = forces.mean(axis=0)
            sigma = np.sqrt(((forces - mean) ** 2).sum(axis=2).mean(axis=0))[:, None]
            error = 2.5 * sigma / np.sqrt(3) * generator.normal(size=mean.shape)
            energies = np.array([r["energy"].item() for r in alone])
            energy = energies.mean() + 0.4 * energies.std() * generator.normal()
            atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=mean + error)
            frames.append(atoms)
    ase.io.write(path, frames)
    return path


@pytest.mark.slow
def test_factors_between_deviations_and_errors_are_stored(checkpoints, labeled, capsys, tmp_path):
    output = tmp_path / "calibrated.tdn.pth"
    command = [*map(str, checkpoints), "-o", str(output), "--no-fused"]
    assert main([*command, "--calibrate", str(labeled)]) == 0
    assert "deviations" in capsys.readouterr().out
    factors = load_compiled(output).metadata["deviation_factors"]
    atoms = ase.io.read(labeled)
    total = sum(len(a) for a in ase.io.read(labeled, ":"))
    # a root mean square of 3 M normal numbers is known to 1 / sqrt(6 M); weights by sigma^2 leave
    # fewer effective ones, a tenth at the very least: four standard errors
    assert factors["forces"] == pytest.approx(2.5, rel=4 / np.sqrt(0.6 * total))
    assert factors["energy"] == pytest.approx(0.4, rel=4 / np.sqrt(0.2 * 20))
    atoms.calc = TDNCalculator(output, device="cpu")
    atoms.get_forces()
    for name, factor in factors.items():
        deviation, error = (atoms.calc.results[f"{name}_{kind}"] for kind in ("std", "error"))
        assert np.array_equal(error, factor * deviation)


@pytest.mark.slow
def test_calibration_needs_a_committee_and_labels(checkpoints, tmp_path):
    with pytest.raises(UsageError, match="several checkpoints"):
        export_model(checkpoints[0], tmp_path / "a.tdn.pth", calibrate="frames.xyz")
    bare = tmp_path / "bare.xyz"
    ase.io.write(bare, STRUCTURES["cluster"]())
    with pytest.raises(TDNError, match="no frame has an energy or forces"):
        export_model(checkpoints, tmp_path / "a.tdn.pth", calibrate=bare)
    assert not (tmp_path / "a.tdn.pth").exists()
