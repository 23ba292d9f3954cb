"""The operators for inference: thin, scriptable doors to ``torch.ops.tdn``.

Their derivatives are those that forces need: first ones, with respect to features and edge vectors.
Weights are constant. Training uses `tdn.ops.cp_message`, which has all derivatives.
"""

import torch
from torch import Tensor

from . import inference_reference as reference
from . import loading
from .reference import Edges


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
        Features of the neighbours.
    edge_vec : Tensor [E, 3], float64
        From centre to neighbour, angstrom.
    species : Tensor [num_nodes], int64
    table : Tensor [S, S, K, blocks, L, order + 1, 16]
        From :func:`tdn.tabulation.tabulate`; ``L = 1`` shares it over the degrees.
    r_max, stretch : float
        Cutoff in angstrom, and how the intervals of the table are spread.
    input1, input2, output : Tensor [D_in, R], [D, R], [D_out, R]
        CP factors.
    edges : Edges
        From :func:`tdn.ops.sort_edges`.

    Returns
    -------
    Tensor [num_centres, D_out, C]

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
        edges.centre,
        edges.neighbour,
        edges.centre_ptr,
        edges.transpose,
        edges.neighbour_ptr,
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
    Tensor [num_centres, L^2, C]
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
        edges.centre,
        edges.neighbour,
        edges.centre_ptr,
        edges.transpose,
        edges.neighbour_ptr,
    )


def node_product(
    m: Tensor,
    species: Tensor,
    linear: Tensor,
    left: Tensor,
    right: Tensor,
    weight: Tensor,
    input1: Tensor,
    input2: Tensor,
    output: Tensor,
) -> Tensor:
    """Products of a node's features with themselves (`tdn.convolution.NodeProduct`), fused.

    ``power_0 = m``, ``power_o = output ((input1^T left_o power_{o-1}) * (input2^T right_o m))``,
    ``y = linear m + sum_o weight_o power_o``, channel by channel.

    Parameters
    ----------
    m : Tensor [N, D, C]
    species : Tensor [N], int64
    linear : Tensor [S, L_out, C]
        Weights per species, degree and channel.
    left, right : Tensor [O, S, L, C]
    weight : Tensor [O, S, L_out, C]
    input1, input2, output : Tensor [D, R]
        CP factors.

    Returns
    -------
    Tensor [N, L_out^2, C]
    """
    if not torch.jit.is_scripting():
        if loading.reference_forced():
            return reference.node_product(
                m, species, linear, left, right, weight, input1, input2, output
            )
    return torch.ops.tdn.node_product(
        m, species, linear, left, right, weight, input1, input2, output
    )


def degree_linear(x: Tensor, weight: Tensor) -> Tensor:
    """Mix channels with one constant matrix per degree: y[n, (l, m), :] = x[n, (l, m), :] W_l.

    Parameters
    ----------
    x : Tensor [N, L^2, C]
    weight : Tensor [L, C, C']

    Returns
    -------
    Tensor [N, L^2, C']
    """
    if not torch.jit.is_scripting():
        if loading.reference_forced():
            return reference.degree_linear(x, weight)
    return torch.ops.tdn.degree_linear(x, weight)


def gate(x: Tensor, weight: Tensor, scale: float) -> Tensor:
    """silu on scalars; every higher degree is scaled by a sigmoid of mixed scalars.

    ``y[:, 0] = scale silu(x[:, 0])`` and ``y[:, (l, m)] = 2 sigmoid(z_l) x[:, (l, m)]`` with
    ``z = x[:, 0] weight``.

    Parameters
    ----------
    x : Tensor [N, L^2, C]
    weight : Tensor [C, (L - 1) C]
    scale : float

    Returns
    -------
    Tensor [N, L^2, C]
    """
    if not torch.jit.is_scripting():
        if loading.reference_forced():
            return reference.gate(x, weight, scale)
    return torch.ops.tdn.gate(x, weight, scale)
