"""Whole networks: compiled operators against the reference ones."""

from __future__ import annotations

import pytest
import torch
from structures import CONFIGS, STRUCTURES, random_model

from tdn import ops
from tdn.graph import graph_from_atoms
from tdn.network import set_dtype

NETWORKS = [name for name, config in CONFIGS.items() if config.architecture == "convolution"]


def everything(model, graph) -> dict[str, torch.Tensor]:
    """Energies, their derivatives, and the gradient of a loss on forces by each weight."""
    edges = ops.sort_edges(graph.edge_index, graph.num_atoms, graph.num_atoms)
    edge_vec = graph.edge_vec.requires_grad_(True)
    energy = model(graph.species, edges, edge_vec, graph.num_atoms)
    (gradient,) = torch.autograd.grad(energy.sum(), edge_vec, create_graph=True)
    loss = gradient.square().mean() + energy.square().mean()
    named = [(n, p) for n, p in model.named_parameters() if p.numel()]  # last gates have none
    names, weights = zip(*named, strict=True)
    slopes = torch.autograd.grad(loss, weights, allow_unused=True)
    result = {
        "energy": energy - model.atomic_energies[graph.species],
        "gradient": gradient,
        "virial": edge_vec.T @ gradient,
    }
    result |= {f"by {n}": s for n, s in zip(names, slopes, strict=True) if s is not None}
    return {name: value.detach() for name, value in result.items()}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("where", list(STRUCTURES))
@pytest.mark.parametrize("name", NETWORKS)
def test_networks_agree(name, where, dtype):
    """To 1e-12 and 1e-5 of the largest entry (weights: four times that): sums in another order."""
    model = set_dtype(random_model(name), dtype).requires_grad_(True)
    graph = graph_from_atoms(STRUCTURES[where](), model.atomic_numbers, model.r_max)
    found = everything(model, graph)
    with ops.use_reference():
        expected = everything(model, graph)
    assert len(found) > 3 + 5 and found.keys() == expected.keys()
    tolerance = 1e-12 if dtype == torch.float64 else 1e-5
    for key, value in expected.items():
        size = value.abs().max()
        if size > 0:
            # a gradient by weights squares the condition of forces: both factors are rounded
            allowed = 4 * tolerance if key.startswith("by ") else tolerance
            assert (found[key] - value).abs().max() <= allowed * size, key
        else:
            assert not found[key].any(), key
