"""The operators on nodes: thin, scriptable doors to ``torch.ops.tdn``.

With first and second derivatives with respect to features and weights, as losses on forces need.
"""

import torch
from torch import Tensor

from . import loading, reference


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
    """Products of a node's features with themselves, fused (`tdn.network.node_product`).

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
    """Mix channels with one matrix per degree: y[n, (l, m), :] = x[n, (l, m), :] W_l.

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


def component_linear(x: Tensor, matrix: Tensor) -> Tensor:
    """A constant matrix on the components: y[n, r, :] = sum_k matrix[r, k] x[n, k, :].

    Parameters
    ----------
    x : Tensor [N, D, C]
    matrix : Tensor [R, D]

    Returns
    -------
    Tensor [N, R, C]
    """
    if not torch.jit.is_scripting():
        if loading.reference_forced():
            return reference.component_linear(x, matrix)
    return torch.ops.tdn.component_linear(x, matrix)


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


def gate_with_scalars(x: Tensor, weight: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """`gate` with a copy of the scalars beside it, ``(y, y[:, 0])``.

    Who needs the scalars alone takes the copy: the gradient of a slice is zero elsewhere, and to
    fill and add that costs more than the gate.

    Parameters
    ----------
    x : Tensor [N, L^2, C]
    weight : Tensor [C, (L - 1) C]
    scale : float

    Returns
    -------
    Tensor [N, L^2, C], Tensor [N, C]
    """
    if not torch.jit.is_scripting():
        if loading.reference_forced():
            return reference.gate_with_scalars(x, weight, scale)
    return torch.ops.tdn.gate_with_scalars(x, weight, scale)
