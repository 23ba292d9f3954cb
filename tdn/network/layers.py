"""Building blocks that keep equivariance: channel mixing per degree, gate, readout.

Features are ``[N, D, C]``: component-major with D = (l_max + 1)^2 and channels contiguous. Nothing
here has a bias, so that an atom without neighbors keeps features of exactly zero.
"""

import math

import torch
from torch import Tensor, nn

from tdn.ops import degree_linear, gate_with_scalars

# silu(x) * SILU_SCALE has unit second moment for a standard normal x
SILU_SCALE = 1.6765


def scaled_silu(x: Tensor, scale: float = SILU_SCALE) -> Tensor:
    """silu with unit second moment; a function, since TorchScript knows no global numbers."""
    return scale * nn.functional.silu(x)


def num_components(l_max: int) -> int:
    """Number D of spherical components up to degree ``l_max``."""
    return (l_max + 1) * (l_max + 1)  # TorchScript takes a power for a float


def degree_of_component(l_max: int) -> Tensor:
    """The degree l of each of the D components, int64 [D]."""
    return torch.cat([torch.full((2 * l + 1,), l) for l in range(l_max + 1)])


class DegreeLinear(nn.Module):
    """Mix channels with one matrix per degree: y[n, lm, :] = x[n, lm, :] W_l.

    Parameters
    ----------
    num_in, num_out : channels
    l_max : highest degree of input and output
    """

    def __init__(self, num_in: int, num_out: int, l_max: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(l_max + 1, num_in, num_out) / math.sqrt(num_in))
        self.l_max = l_max

    def forward(self, x: Tensor) -> Tensor:  # [N, D, C_in] -> [N, D, C_out]
        return degree_linear(x, self.weight)


class DegreeScale(nn.Module):
    """Scale channels by weights per species and degree: y[n, lm, c] = x[n, lm, c] s[z_n, l, c].

    Parameters
    ----------
    mean, spread : mean and standard deviation of the initial weights
    """

    degree: Tensor

    def __init__(
        self, num_species: int, num_channels: int, l_max: int, mean: float, spread: float
    ) -> None:
        super().__init__()
        shape = (num_species, l_max + 1, num_channels)
        self.weight = nn.Parameter(mean + spread * torch.randn(shape))
        self.register_buffer("degree", degree_of_component(l_max), persistent=False)

    def forward(self, x: Tensor, species: Tensor) -> Tensor:  # [N, D, C], [N] -> [N, D, C]
        by_component = self.weight[:, self.degree].flatten(1)  # [S, D C]
        return x * nn.functional.embedding(species, by_component).view(x.shape)


class Gate(nn.Module):
    """silu on the scalars; every higher degree is scaled by a sigmoid of them."""

    def __init__(self, num_channels: int, l_max: int) -> None:
        super().__init__()
        self.scale = SILU_SCALE
        self.gates = nn.Parameter(
            torch.randn(num_channels, l_max * num_channels) / math.sqrt(num_channels)
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """[N, D, C] -> [N, D, C], and its scalars [N, C] on their own."""
        return gate_with_scalars(x, self.gates, self.scale)


class NoGate(nn.Module):
    """In the place of a `Gate`: features as they are, and their scalars."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """[N, D, C] -> [N, D, C], [N, C]."""
        return x, x[:, 0]


class LinearReadout(nn.Module):
    """Energy of an atom as a linear function of its scalars."""

    def __init__(self, num_channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(num_channels) / num_channels)

    def forward(self, scalars: Tensor) -> Tensor:  # [N, C] -> [N]
        return scalars @ self.weight


class MLPReadout(nn.Module):
    """Energy of an atom from its scalars through one hidden layer."""

    def __init__(self, num_channels: int, hidden: int) -> None:
        super().__init__()
        self.mixing = nn.Parameter(torch.randn(num_channels, hidden) / math.sqrt(num_channels))
        self.weight = nn.Parameter(torch.randn(hidden) / hidden)

    def forward(self, scalars: Tensor) -> Tensor:  # [N, C] -> [N]
        hidden = scaled_silu(scalars @ self.mixing)
        return hidden @ self.weight
