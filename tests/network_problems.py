"""Everything that training asks of a network, for comparisons."""

from __future__ import annotations

import torch

from tdn import ops
from tdn.graph import Graph


def everything(model: torch.nn.Module, graph: Graph) -> dict[str, torch.Tensor]:
    """Energies, their derivatives, and the gradient of a loss on forces by each weight."""
    edges = ops.sort_edges(graph.edge_index, graph.num_atoms, graph.num_atoms)
    edge_vec = graph.edge_vec.detach().requires_grad_(True)
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


def assert_networks_agree(
    found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], tolerance: float
) -> None:
    """To ``tolerance`` of the largest entry, gradients by weights to four times that.

    Sums in another order differ by rounding; a gradient by weights squares the condition of forces,
    since both factors are rounded.
    """
    assert len(found) > 3 + 5 and found.keys() == expected.keys()
    for key, value in expected.items():
        size = value.abs().max()
        if size > 0:
            allowed = 4 * tolerance if key.startswith("by ") else tolerance
            assert (found[key] - value).abs().max() <= allowed * size, key
        else:
            assert not found[key].any(), key
