"""The operators on edges: thin, scriptable doors to ``torch.ops.tdn``.

Lengths, harmonics and radial weights with first and second derivatives, as losses on forces need.
"""

import torch
from torch import Tensor

from . import loading, reference
from .sorted_edges import Edges


def sort_edges(edge_index: Tensor, num_centers: int, num_nodes: int) -> Edges:
    """Check a graph's edges and find those of each atom, as all operators on messages need them.

    Parameters
    ----------
    edge_index : Tensor [2, E], int64
        Centers (row 0, non-decreasing) and neighbors (row 1).
    num_centers : int
        Atoms that receive messages.
    num_nodes : int
        Atoms that send messages (local atoms and ghosts).

    Returns
    -------
    Edges

    Raises
    ------
    ValueError
        If the centers are not sorted, or an index is out of range.
    """
    if not torch.jit.is_scripting():
        if loading.reference_forced():
            return reference.sort_edges(edge_index, num_centers, num_nodes)
    center_ptr, by_neighbor, neighbor_ptr = torch.ops.tdn.sort_edges(
        edge_index, num_centers, num_nodes
    )
    return Edges(edge_index[0], edge_index[1], center_ptr, by_neighbor, neighbor_ptr)


def edge_geometry(edge_vec: Tensor, l_max: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Lengths and spherical harmonics of edge vectors, with first and second derivatives.

    A vector of no length has no direction: its gradients are zero, and its harmonics of l > 0 mean
    nothing.

    Parameters
    ----------
    edge_vec : Tensor [E, 3], float64
    l_max : int
        Highest degree, at most 11.
    dtype : torch.dtype
        Of the results; inside all is float64.

    Returns
    -------
    r : Tensor [E]
    harmonics : Tensor [E, (l_max + 1)^2]
        Order and "component" normalization of e3nn.

    Raises
    ------
    ValueError
        If shape or type of ``edge_vec`` or ``l_max`` are not as above.
    """
    if not torch.jit.is_scripting():
        if loading.reference_forced():
            return reference.edge_geometry(edge_vec, l_max, dtype)
    return torch.ops.tdn.edge_geometry(edge_vec, l_max, dtype)


def radial(
    r: Tensor,
    pair: Tensor,
    scale: Tensor,
    weights: Tensor,
    widths: list[int],
    r_max: float,
    power: int,
    silu_scale: float,
) -> Tensor:
    """The radial network of `tdn.network.radial` from distances to weights, as one operator.

    Its derivative by the distance is computed along with its value, so that training on forces
    never differentiates the network twice. Differentiable to any order.

    Parameters
    ----------
    r : Tensor [E]
        Distances; beyond ``r_max`` everything is zero.
    pair : Tensor [E], int64
        Row of ``scale`` that multiplies the first hidden layer.
    scale : Tensor [P, H1]
    weights : Tensor
        All matrices one after the other.
    widths : list of int
        B, H1, .., K: Bessel functions, hidden layers (at least one), weights.
    r_max, power
        Of the basis and its envelope.
    silu_scale : float
        Factor on the activation.

    Returns
    -------
    Tensor [E, K]

    Raises
    ------
    ValueError
        If shapes do not fit together, or a pair is out of range.
    """
    if not torch.jit.is_scripting():
        if loading.reference_forced():
            return reference.radial(r, pair, scale, weights, widths, r_max, power, silu_scale)
    return torch.ops.tdn.radial(r, pair, scale, weights, widths, r_max, power, silu_scale)
