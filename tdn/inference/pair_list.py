"""Edges of a graph as the list of pairs that networks from positions take."""

import torch
from torch import Tensor

from tdn.graph import Graph


def pair_list(graph: Graph) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Edges as a list of pairs: the first arguments of `tdn.inference.positions.PositionNetwork`.

    Every edge has a row of its own, the place of its neighbor. The edges, sorted by center, may be
    longer than the cutoff of the network.
    """
    center, neighbor = graph.edge_index
    n, device = graph.num_atoms, center.device
    rows = torch.arange(n + len(center), dtype=torch.int32, device=device)
    pair_ptr = torch.searchsorted(center.contiguous(), torch.arange(n + 1, device=device))
    return (
        torch.cat([graph.positions, graph.positions[center] + graph.edge_vec]),
        rows[:n],
        pair_ptr,
        rows[n:],
        torch.cat([rows[:n], neighbor.to(torch.int32)]),
        graph.species,
    )
