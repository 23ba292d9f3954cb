"""Reference of `tdn.ops.edges` in plain PyTorch."""

import math

import torch
from torch import Tensor

from tdn.ops.sorted_edges import Edges


def edge_pointers(
    edge_index: Tensor, num_centers: int, num_nodes: int
) -> tuple[Tensor, Tensor, Tensor]:
    """``center_ptr``, ``by_neighbor`` and ``neighbor_ptr`` of :class:`Edges`.

    Raises
    ------
    ValueError
        If ``edge_index`` is not an int64 tensor [2, E], if its first row is not sorted, or if an
        index is out of range.
    """
    if edge_index.dim() != 2 or edge_index.size(0) != 2 or edge_index.dtype != torch.int64:
        raise ValueError(
            f"sort_edges: edge_index must be an int64 tensor [2, E], found shape "
            f"{list(edge_index.shape)} and {edge_index.dtype}"
        )
    if num_centers < 0 or num_nodes < 0:
        raise ValueError(
            f"sort_edges: num_centers and num_nodes must not be negative, found {num_centers} "
            f"and {num_nodes}"
        )
    center, neighbor = edge_index[0], edge_index[1]
    if center.numel() > 0:
        if bool((center[1:] < center[:-1]).any()):
            raise ValueError(
                "sort_edges: edge_index[0] (centers) must be non-decreasing; sort the edges by "
                "center first"
            )
        if int(center[0]) < 0 or int(center[-1]) >= num_centers:
            raise ValueError(
                f"sort_edges: centers must lie in 0..{num_centers - 1}, found "
                f"{int(center[0])}..{int(center[-1])}"
            )
        if int(neighbor.min()) < 0 or int(neighbor.max()) >= num_nodes:
            raise ValueError(
                f"sort_edges: neighbors must lie in 0..{num_nodes - 1}, found "
                f"{int(neighbor.min())}..{int(neighbor.max())}"
            )
    by_neighbor = torch.argsort(neighbor, dim=0, stable=True)
    zero = torch.zeros([1], dtype=torch.int64, device=edge_index.device)
    center_ptr = torch.cat([zero, torch.bincount(center, minlength=num_centers).cumsum(0)])
    neighbor_ptr = torch.cat([zero, torch.bincount(neighbor, minlength=num_nodes).cumsum(0)])
    return center_ptr, by_neighbor, neighbor_ptr


def sort_edges(edge_index: Tensor, num_centers: int, num_nodes: int) -> Edges:
    """See :func:`tdn.ops.sort_edges`."""
    center_ptr, by_neighbor, neighbor_ptr = edge_pointers(edge_index, num_centers, num_nodes)
    return Edges(edge_index[0], edge_index[1], center_ptr, by_neighbor, neighbor_ptr)


def edge_geometry(edge_vec: Tensor, l_max: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """See :func:`tdn.ops.edge_geometry`."""
    from e3nn.o3 import spherical_harmonics  # only who computes without the library needs it

    vectors = edge_vec.to(dtype)
    harmonics = spherical_harmonics(
        list(range(l_max + 1)), vectors, normalize=True, normalization="component"
    )
    return torch.linalg.vector_norm(vectors, dim=1), harmonics


def polynomial_envelope(r: Tensor, r_max: float, power: int) -> Tensor:
    """Smooth cutoff u(r / r_max), see :class:`tdn.network.radial.PolynomialEnvelope`."""
    x = r / r_max
    p = float(power)
    a, b, c = (p + 1) * (p + 2) / 2, p * (p + 2), p * (p + 1) / 2
    u = 1 - torch.pow(x, power) * (a - x * (b - x * c))
    return torch.where(x < 1, u, torch.zeros_like(u))


def bessel_basis(r: Tensor, num_radial: int, r_max: float) -> Tensor:
    """b_n(r) = sqrt(2) sin(n pi r / r_max) r_max / (2 r), n = 1..B, [E] -> [E, B].

    Gasteiger et al., arXiv 2003.03123, eq. 7, scaled to unit mean square over [0, r_max]. All
    functions vanish at the cutoff.
    """
    n = torch.arange(1, num_radial + 1, dtype=r.dtype, device=r.device)
    r = r.unsqueeze(-1)
    return math.sqrt(2.0) * torch.sin(r * (n * (math.pi / r_max))) * (0.5 * r_max / r)


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
    """See :func:`tdn.ops.radial`."""
    basis = bessel_basis(r, widths[0], r_max)
    hidden = basis * polynomial_envelope(r, r_max, power).unsqueeze(1)
    offset = 0
    for i in range(len(widths) - 1):
        size = widths[i] * widths[i + 1]
        matrix = weights[offset : offset + size].view(widths[i], widths[i + 1])
        offset += size
        if i == 1:
            hidden = hidden * scale.index_select(0, pair)
        if i > 0:
            hidden = torch.nn.functional.silu(hidden)
            matrix = matrix * silu_scale
        hidden = hidden @ matrix
    return hidden
