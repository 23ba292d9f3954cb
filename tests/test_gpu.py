"""Whole networks on a GPU against the CPU: training, inference, the calculator. Needs a GPU."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from cuda_problems import DEVICE, NETWORKS, check_positions, is_there, require_gpu
from network_problems import assert_networks_agree, everything
from structures import CONVOLUTION, STRUCTURES, TRAINED_MODEL, evaluate, random_model

from tdn import TDNCalculator, ops
from tdn.graph import graph_from_atoms
from tdn.inference.compiled_model import load_compiled
from tdn.inference.network import inference_network
from tdn.inference.torchscript import plain_execution
from tdn.network.base import set_dtype
from tdn.network.checkpoint import load_model
from tdn.network.potential import Potential
from tdn_export import export_model
from tdn_export.deployed import deployed_module
from tdn_export.script import script

pytestmark = pytest.mark.gpu

TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5}
QUANTITIES = ("atom_energy", "forces", "virial")


@pytest.fixture(scope="module", autouse=True)
def gpu() -> None:
    require_gpu()


def network(name: str) -> torch.nn.Module:
    if name == "trained":
        return load_model(TRAINED_MODEL, dtype="float64")[0]
    return random_model(name)


def assert_close(found, expected, model, atoms, tolerance: float) -> None:
    """Energies without E0, forces and virials; forces cancel by two digits at most."""
    species = [model.atomic_numbers.index(n) for n in atoms.numbers]
    for key in QUANTITIES:
        assert is_there(found[key])
        value = expected[key].cpu()
        size = value - (model.atomic_energies[species].cpu() if key == "atom_energy" else 0)
        error = (found[key].cpu() - value).abs().max()
        assert error <= 30 * tolerance * size.abs().max(), key


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("where", list(STRUCTURES))
@pytest.mark.parametrize("name", CONVOLUTION)
def test_training_agrees(name, where, dtype):
    """Ten times what separates kernels from reference operators on the CPU."""
    model = set_dtype(random_model(name), dtype).requires_grad_(True)
    graph = graph_from_atoms(STRUCTURES[where](), model.atomic_numbers, model.r_max)
    expected = everything(model, graph)
    found = everything(copy.deepcopy(model).to(DEVICE), graph.to(DEVICE))
    assert all(map(is_there, found.values()))
    found = {key: value.cpu() for key, value in found.items()}
    assert_networks_agree(found, expected, 10 * TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("name", [*CONVOLUTION, "trained"])
def test_fused_networks_agree(name, dtype):
    """Energies, forces and virials, of the module and of what is in a compiled file."""
    model = inference_network(network(name), dtype)
    there = copy.deepcopy(model).to(DEVICE)
    scripted = script(deployed_module([copy.deepcopy(there)]))
    for make in STRUCTURES.values():
        atoms = make()
        expected = evaluate(model, atoms)
        graph = graph_from_atoms(atoms, model.atomic_numbers, model.r_max).to(DEVICE)
        found = Potential(there)(graph)
        assert_close(found, expected, model, atoms, TOLERANCE[dtype])
        again = Potential(there)(graph)
        edges = graph.species, graph.edge_index, graph.edge_vec, graph.num_atoms
        with plain_execution():
            energy, gradient = scripted(*edges)
            energy_again, gradient_again = scripted(*edges)
        # kernels give the same bits every time; forces of the potential are sums of PyTorch's
        assert torch.equal(found["atom_energy"], again["atom_energy"])
        assert torch.equal(energy, energy_again) and torch.equal(gradient, gradient_again)
        size = (expected["atom_energy"] - model.atomic_energies[graph.species.cpu()]).abs().max()
        error = (energy.cpu() - expected["atom_energy"]).abs().max()
        assert error <= 30 * TOLERANCE[dtype] * size


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("case", NETWORKS, ids=str)
def test_positions_to_forces_agree(case, dtype):
    """Energies, forces and virials by the explicit adjoint, and the same bits every time."""
    check_positions(case, dtype, DEVICE)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_file_in_the_calculator_agrees(tmp_path, dtype):
    path = export_model(TRAINED_MODEL, tmp_path / "model.tdn.pth", dtype=dtype, device=DEVICE).path
    assert load_compiled(path, DEVICE).takes_positions
    tolerance = 30 * TOLERANCE[getattr(torch, dtype)]
    for make in STRUCTURES.values():
        results = []
        for device in ("cpu", DEVICE):
            atoms = make()
            atoms.calc = TDNCalculator(path, device=device)
            stress = atoms.get_stress() if atoms.cell.rank == 3 else np.zeros(6)
            results.append((atoms.get_forces(), stress, atoms.get_potential_energies()))
        for expected, found in zip(*results, strict=True):
            assert np.abs(found - expected).max() <= tolerance * max(1.0, np.abs(expected).max())


@pytest.mark.parametrize("count, side", [(20000, 60.0), (300, 12.0), (40, 1e7), (1, 1.0)])
def test_pairs_are_found_there(count, side):
    """The same in the same order as on the CPU, of atoms and of some images of them."""
    generator = torch.Generator().manual_seed(1)
    positions = side * torch.rand(count, 3, dtype=torch.float64, generator=generator)
    for num_centers in (count, count // 2):
        expected = torch.ops.tdn.find_pairs(positions, num_centers, 5.0)
        found = torch.ops.tdn.find_pairs(positions.to(DEVICE), num_centers, 5.0)
        assert all(is_there(x) for x in found)
        assert all(torch.equal(x.cpu(), y) for x, y in zip(found, expected, strict=True))


def test_edges_are_sorted_there():
    atoms = STRUCTURES["triclinic"]()
    graph = graph_from_atoms(atoms, [1, 8], 4.0)
    expected = ops.sort_edges(graph.edge_index, graph.num_atoms, graph.num_atoms)
    graph = graph.to(DEVICE)
    found = ops.sort_edges(graph.edge_index, graph.num_atoms, graph.num_atoms)
    assert all(is_there(x) for x in found)
    assert all(torch.equal(x.cpu(), y) for x, y in zip(found, expected, strict=True))
