"""Sums over the neighbors of each atom, and rows of ghost atoms: doors to ``torch.ops.tdn``.

Thin and scriptable; differentiable to any order.
"""

import torch
from torch import Tensor

from . import loading, reference
from .sorted_edges import Edges


def cp_message(u: Tensor, b: Tensor, w: Tensor, edges: Edges) -> Tensor:
    """Sum the messages of a Clebsch-Gordan product in CP form over the neighbors of each atom.

    ``a_i[r, c] = sum_j (sum_l b_ij[l, r] w_ij[l, c]) u_j[r, c]``

    Everything else of the product acts on nodes (the factors move out of the sum over edges), so
    this is the whole work per edge. Differentiable to any order in ``u``, ``b`` and ``w``.

    Parameters
    ----------
    u : Tensor [num_nodes, R, C]
        Neighbor features in rank space.
    b : Tensor [E, L, R]
        Spherical harmonics of the edges in rank space, one row per degree. Harmonics [E, D] as they
        are stand for the product with scalars: see :func:`scalar_message`.
    w : Tensor [E, L, C]
        Radial weights per degree and channel; ``L = 1`` shares them over the degrees.
    edges : Edges
        From :func:`sort_edges`.

    Returns
    -------
    Tensor [num_centers, R, C]

    Raises
    ------
    ValueError
        If shapes, types or devices do not fit together.
    """
    if not torch.jit.is_scripting():
        if loading.reference_forced():
            return reference.cp_message(u, b, w, edges)
    return torch.ops.tdn.cp_message(
        u,
        b,
        w,
        edges.center,
        edges.neighbor,
        edges.center_ptr,
        edges.by_neighbor,
        edges.neighbor_ptr,
    )


def scalar_message(x: Tensor, harmonics: Tensor, w: Tensor, edges: Edges) -> Tensor:
    """Sum the messages of neighbors that have scalars only, which need no CP factors.

    ``a_i[(l, m), c] = sum_j Y_ij[l, m] w_ij[l, c] x_j[c]``

    Differentiable to any order in ``x``, ``harmonics`` and ``w``.

    Parameters
    ----------
    x : Tensor [num_nodes, 1, C]
    harmonics : Tensor [E, D]
        Spherical harmonics of the edges, ``D = (l_max + 1)^2``.
    w : Tensor [E, L, C]
        Radial weights per degree and channel; ``L = 1`` shares them over the degrees.
    edges : Edges
        From :func:`sort_edges`.

    Returns
    -------
    Tensor [num_centers, D, C]

    Raises
    ------
    ValueError
        If shapes, types or devices do not fit together.
    """
    return cp_message(x, harmonics, w, edges)


def edge_product(
    source: Tensor, target: Tensor, matrix: Tensor, w: Tensor, edges: Edges
) -> tuple[Tensor, Tensor]:
    """Products of an edge's matrix with the features of its two atoms, weighted by channel.

    ``z_ij[k, c] = w_ij[c] sum_a K_ij[k, a] (x_j[a, c] + y_i[a, c])``

    The matrix is the coupling tensor contracted with the harmonics of the edge, made once for all
    channels and layers. Differentiable to any order in all tensors.

    Parameters
    ----------
    source : Tensor [num_nodes, D, C]
        x, of neighbors.
    target : Tensor [num_centers, D, C]
        y, of centers.
    matrix : Tensor [E, D, D]
        K.
    w : Tensor [E, C]
    edges : Edges
        From :func:`sort_edges`.

    Returns
    -------
    Tensor [E, C], Tensor [E, D - 1, C]
        The scalar component and the others, apart: the gradient of a slice would be zero elsewhere,
        and to fill and add that costs more than the product.

    Raises
    ------
    ValueError
        If shapes, types or devices do not fit together.
    """
    if not torch.jit.is_scripting():
        if loading.reference_forced():
            return reference.edge_product(source, target, matrix, w, edges)
    return torch.ops.tdn.edge_product(
        source,
        target,
        matrix,
        w,
        edges.center,
        edges.neighbor,
        edges.center_ptr,
        edges.by_neighbor,
        edges.neighbor_ptr,
    )


def edge_message(scalars: Tensor, rest: Tensor, matrix: Tensor, w: Tensor, edges: Edges) -> Tensor:
    """Sum the products of edges' matrices with features of the edges over the neighbors.

    ``y_i[k, c] = sum_j sum_a K_ij[k, a] x_ij[a, c] w_ij[l, c]``, where l is 0 for the scalar
    component a = 0 and the last one for the others. Differentiable to any order in all tensors.

    Parameters
    ----------
    scalars, rest : Tensor [E, C], Tensor [E, D - 1, C]
        x, the scalar component and the others.
    matrix : Tensor [E, D, D]
        K.
    w : Tensor [E, 1 or 2, C]
        One weight for all components, or one for scalars and one for the rest.
    edges : Edges
        From :func:`sort_edges`.

    Returns
    -------
    Tensor [num_centers, D, C]

    Raises
    ------
    ValueError
        If shapes, types or devices do not fit together.
    """
    if not torch.jit.is_scripting():
        if loading.reference_forced():
            return reference.edge_message(scalars, rest, matrix, w, edges.center, edges.center_ptr)
    return torch.ops.tdn.edge_message(scalars, rest, matrix, w, edges.center, edges.center_ptr)


def exchange(x: Tensor, num_all: int) -> Tensor:
    """Bring the rows of ghost atoms from the processes that own them.

    A molecular dynamics code sets the transport (``csrc/exchange/exchange.h``); without one this is
    a copy and ``num_all`` must equal ``num_local``. Its adjoint adds gradients of ghost rows to the
    rows of their owners. With a transport it is collective: every process must call it equally
    often.

    Parameters
    ----------
    x : Tensor [num_local, ...]
    num_all : int
        Local atoms and ghosts.

    Returns
    -------
    Tensor [num_all, ...]

    Raises
    ------
    ValueError
        If ``num_all`` differs from ``num_local`` and no transport is set.
    """
    if not torch.jit.is_scripting():
        if loading.reference_forced():
            return reference.exchange(x, num_all)
    return torch.ops.tdn.exchange(x, num_all)
