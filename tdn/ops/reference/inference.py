"""Reference of `tdn.ops.inference` in plain PyTorch."""

import torch
from torch import Tensor

from tdn.ops.sorted_edges import Edges


def edge_functions(
    edge_vec: Tensor,
    species: Tensor,
    table: Tensor,
    r_max: float,
    stretch: float,
    l_max: int,
    num_channels: int,
    edges: Edges,
) -> tuple[Tensor, Tensor]:
    """Spherical harmonics [E, D] and radial weights [E, L, C] of edges, from a table."""
    from e3nn.o3 import spherical_harmonics  # only who computes without the library needs it

    r = torch.linalg.vector_norm(edge_vec, dim=1)
    # NaN for atoms at the same place, as the kernels give; e3nn would make a zero vector of it
    direction = edge_vec / r.unsqueeze(1)
    sh = spherical_harmonics(
        list(range(l_max + 1)), direction, normalize=False, normalization="component"
    ).to(table.dtype)
    intervals, order = table.size(2), table.size(5) - 1
    x = intervals * (1.0 + stretch) * r / (r + stretch * r_max)
    interval = x.detach().to(torch.int64).clamp(0, intervals - 1)
    s = (2.0 * (x - interval) - 1.0).to(table.dtype).view(-1, 1, 1, 1)
    rows = table[species[edges.center], species[edges.neighbor], interval]
    w = rows[:, :, :, order]  # [E, blocks, L, 16]
    for k in range(order):
        w = w * s + rows[:, :, :, order - 1 - k]
    w = w.transpose(1, 2).flatten(2)[:, :, :num_channels]
    inside = (r < r_max).to(table.dtype).view(-1, 1, 1)
    return sh, w * inside


def _sum_edges(terms: Tensor, edges: Edges) -> Tensor:
    shape = list(terms.shape)
    shape[0] = edges.center_ptr.size(0) - 1
    return terms.new_zeros(shape).index_add(0, edges.center, terms)


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
    """See :func:`tdn.ops.convolution`."""
    l_max = round(input2.size(0) ** 0.5) - 1
    y, w = edge_functions(edge_vec, species, table, r_max, stretch, l_max, x.size(2), edges)
    parts = []
    if table.size(4) == 1:
        parts.append(y @ input2)
    else:
        for l in range(l_max + 1):
            components = slice(l * l, (l + 1) * (l + 1))
            parts.append(y[:, components] @ input2[components])
    coupling = torch.matmul(torch.stack(parts, 2), w)  # [E, R, C]
    u = torch.matmul(input1.t(), x)
    return torch.matmul(output, _sum_edges(coupling * u[edges.neighbor], edges))


def density(
    edge_vec: Tensor,
    species: Tensor,
    table: Tensor,
    r_max: float,
    stretch: float,
    num_channels: int,
    edges: Edges,
) -> Tensor:
    """See :func:`tdn.ops.density`."""
    degrees = table.size(4)
    y, w = edge_functions(
        edge_vec, species, table, r_max, stretch, degrees - 1, num_channels, edges
    )
    terms = []
    for l in range(degrees):
        terms.append(y[:, l * l : (l + 1) * (l + 1)].unsqueeze(2) * w[:, l : l + 1])
    return _sum_edges(torch.cat(terms, 1), edges)
