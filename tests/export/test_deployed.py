"""The deployed module: gradients, modes, empty inputs, ghosts and collective operations."""

from __future__ import annotations

import pytest
import torch
from structures import STRUCTURES

import tdn.inference.network
import tdn.network.attention_model
import tdn.network.convolution_model
from tdn.graph import Graph, graph_from_atoms
from tdn.inference.compiled_model import load_compiled
from tdn_export.deployed import DeployedModel, deployed_network
from tdn_export.script import script


@pytest.fixture
def graph() -> Graph:
    return graph_from_atoms(STRUCTURES["triclinic"](), [1, 8], 4.0)


@pytest.fixture(params=["eager", "compiled"])
def module(request, export):
    made = export()
    return (
        DeployedModel(made.model) if request.param == "eager" else load_compiled(made.path).module
    )


def call(module, graph: Graph):
    return module(graph.species, graph.edge_index, graph.edge_vec, graph.num_atoms)


def test_gradient_is_the_derivative_of_the_energy(module, graph):
    """Central differences along a random direction of all edges; the error falls with h^2."""
    edge_vec = graph.edge_vec
    direction = torch.randn(edge_vec.shape, dtype=torch.float64)
    gradient = module(graph.species, graph.edge_index, edge_vec, graph.num_atoms)[1]
    slope = (gradient * direction).sum().item()
    h = 1e-5
    up, down = (
        module(graph.species, graph.edge_index, edge_vec + s * h * direction, graph.num_atoms)[0]
        for s in (1, -1)
    )
    assert (up - down).sum().item() / (2 * h) == pytest.approx(slope, rel=1e-6)


@pytest.mark.parametrize("atoms", [0, 1, 5])
def test_no_edges(module, export, atoms):
    atomic_energies = export().model.atomic_energies
    species = torch.arange(atoms) % 2
    none = torch.zeros(2, 0, dtype=torch.int64)
    energy, gradient = module(species, none, torch.zeros(0, 3, dtype=torch.float64), atoms)
    assert torch.equal(energy, atomic_energies[species])
    assert gradient.shape == (0, 3)
    assert energy.dtype == gradient.dtype == torch.float64


def test_grad_mode_of_the_caller_does_not_matter(module, graph):
    expected = call(module, graph)
    with torch.no_grad():
        found = call(module, graph)
        assert not torch.is_grad_enabled()
    for a, b in zip(expected, found, strict=True):
        assert (a - b).abs().max() <= 1e-12 * a.abs().max()  # the executor may reorder sums
        assert not b.requires_grad


def test_inference_mode_of_the_caller_does_not_matter(export, graph):
    compiled = load_compiled(export().path)
    expected = compiled(graph)
    with torch.inference_mode():
        found = compiled(graph)
    assert torch.equal(expected["forces"], found["forces"])


def test_grad_mode_is_restored_after_an_error(module, graph):
    with torch.no_grad():
        with pytest.raises((RuntimeError, ValueError, IndexError)):
            module(graph.species + 7, graph.edge_index, graph.edge_vec, graph.num_atoms)
        assert not torch.is_grad_enabled()


def test_inputs_are_left_alone(module, graph):
    edge_vec = graph.edge_vec
    kept = edge_vec.clone()
    module(graph.species, graph.edge_index, edge_vec, graph.num_atoms)
    assert torch.equal(edge_vec, kept)
    assert not edge_vec.requires_grad
    assert edge_vec.grad is None


def test_repeated_calls_with_other_sizes(module, graph):
    """The executor may rebuild its code for the sizes it saw; results must not depend on that."""
    small = graph_from_atoms(STRUCTURES["small_cell"](), [1, 8], 4.0)
    first = [call(module, g) for g in (graph, small)]
    for _ in range(3):
        again = [call(module, g) for g in (graph, small)]
        for (energy, gradient), (energy2, gradient2) in zip(first, again, strict=True):
            scale = gradient.abs().max()
            assert (gradient - gradient2).abs().max() <= 1e-12 * scale
            assert (energy - energy2).abs().max() <= 1e-12 * energy.abs().max()


def test_ghosts_of_one_layer(export):
    """With one layer ghosts are only senders: any split into local atoms and ghosts is exact."""
    module = load_compiled(export("one_layer").path).module
    graph = graph_from_atoms(STRUCTURES["cluster"](), [1, 8], 4.0)
    energy, gradient = call(module, graph)
    for num_local in (0, 5, 8):
        kept = graph.edge_index[0] < num_local
        part = module(graph.species, graph.edge_index[:, kept], graph.edge_vec[kept], num_local)
        assert torch.allclose(part[0], energy[:num_local], rtol=1e-12, atol=0)
        assert torch.allclose(part[1], gradient[kept], rtol=0, atol=1e-12 * gradient.abs().max())


class _Recorded(torch.autograd.Function):
    """`exchange` that counts how often it runs, forward and backward."""

    calls: list[str] = []

    @staticmethod
    def forward(ctx, x, num_all):
        _Recorded.calls.append("forward")
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        _Recorded.calls.append("backward")
        return gradient, None


@pytest.mark.slow
@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("name, exchanges", [("default", 1), ("l1", 2), ("attention", 2)])
def test_a_process_without_atoms_takes_part_in_every_exchange(
    export, monkeypatch, name, exchanges, fused
):
    """Exchanges are collective: a process that left one out would hang all others."""
    made = export(name)
    for module in (
        tdn.network.convolution_model,
        tdn.network.attention_model,
        tdn.inference.network,
    ):
        monkeypatch.setattr(module, "exchange", lambda x, n: _Recorded.apply(x, n))
    module = DeployedModel(deployed_network(made.model, fused)[0])
    full = graph_from_atoms(STRUCTURES["cluster"](), [1, 8], 4.0)
    none = torch.zeros(2, 0, dtype=torch.int64), torch.zeros(0, 3, dtype=torch.float64)
    sequences = []
    for species, edge_index, edge_vec in (
        (full.species, full.edge_index, full.edge_vec),
        (full.species[:0], *none),
        (full.species, *none),
    ):
        _Recorded.calls = []
        module(species, edge_index, edge_vec, species.shape[0])
        sequences.append(_Recorded.calls)
    assert sequences[0] == ["forward"] * exchanges + ["backward"] * exchanges
    assert sequences[1] == sequences[0]
    assert sequences[2] == sequences[0]


def test_compiling_keeps_the_class_annotations(export):
    """Annotations are resolved for TorchScript only while it compiles."""
    before = dict(tdn.network.convolution_model.ConvolutionModel.__annotations__)
    script(DeployedModel(export("scalars").model))
    assert tdn.network.convolution_model.ConvolutionModel.__annotations__ == before
