"""The operators for inference: thin, scriptable doors to ``torch.ops.tdn``.

Their derivatives are those that forces need: first ones, with respect to features and edge vectors.
Tables and factors are constant. Training uses `tdn.ops.cp_message`, which has all derivatives.
"""

import torch
from torch import Tensor

from . import loading, reference
from .sorted_edges import Edges


def convolution(
    x: Tensor,
    edge_vec: Tensor,
    species: Tensor,
    table: Tensor,
    r_max: float,
    stretch: float,
    input1: Tensor,
    input2: Tensor,
    output: Tensor,
    edges: Edges,
) -> Tensor:
    """Equivariant convolution from features and edge vectors to messages, in one pass.

    ``m_i[k, c] = sum_r output[k, r] sum_j (sum_l b_ij[l, r] w_ij[l, c]) u_j[r, c]`` with
    ``u_j[r, c] = sum_k input1[k, r] x_j[k, c]``, ``b_ij[l, r] = sum_m input2[(l, m), r] Y_lm`` and
    radial weights ``w_ij`` from a table. Nothing of the size edges x channels is stored.

    Parameters
    ----------
    x : Tensor [num_nodes, D_in, C]
        Features of the neighbors.
    edge_vec : Tensor [E, 3], float64
        From center to neighbor, angstrom.
    species : Tensor [num_nodes], int64
    table : Tensor [S, S, K, blocks, L, order + 1, 16]
        From :func:`tdn.inference.radial_table.tabulate`; ``L = 1`` shares it over the degrees.
    r_max, stretch : float
        Cutoff in angstrom, and how the intervals of the table are spread.
    input1, input2, output : Tensor [D_in, R], [D, R], [D_out, R]
        CP factors.
    edges : Edges
        From :func:`tdn.ops.sort_edges`.

    Returns
    -------
    Tensor [num_centers, D_out, C]

    Raises
    ------
    ValueError
        If shapes, types or devices do not fit together.
    """
    if not torch.jit.is_scripting():
        if loading.reference_forced():
            return reference.convolution(
                x, edge_vec, species, table, r_max, stretch, input1, input2, output, edges
            )
    return torch.ops.tdn.convolution(
        x,
        edge_vec,
        species,
        table,
        r_max,
        stretch,
        input1,
        input2,
        output,
        edges.center,
        edges.neighbor,
        edges.center_ptr,
        edges.by_neighbor,
        edges.neighbor_ptr,
    )


def density(
    edge_vec: Tensor,
    species: Tensor,
    table: Tensor,
    r_max: float,
    stretch: float,
    num_channels: int,
    edges: Edges,
) -> Tensor:
    """The convolution of features that depend on the species alone, which the table includes.

    ``A_i[(l, m), c] = sum_j Y_lm(r_ij) w_ij[l, c]``; parameters as in :func:`convolution`.

    Returns
    -------
    Tensor [num_centers, L^2, C]
    """
    if not torch.jit.is_scripting():
        if loading.reference_forced():
            return reference.density(edge_vec, species, table, r_max, stretch, num_channels, edges)
    return torch.ops.tdn.density(
        edge_vec,
        species,
        table,
        r_max,
        stretch,
        num_channels,
        edges.center,
        edges.neighbor,
        edges.center_ptr,
        edges.by_neighbor,
        edges.neighbor_ptr,
    )
