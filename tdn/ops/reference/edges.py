"""The operators on edges in plain PyTorch: the definition that the kernels are tested against.

All functions are differentiable to any order.
"""

import math

import torch
from torch import Tensor


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
