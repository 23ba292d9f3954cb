"""Radial part of the attention network: trainable Gaussians and a network with layer norms."""

import math

import torch
from torch import Tensor, nn

from .layers import SILU_SCALE


class GaussianBasis(nn.Module):
    """Normal densities of the reduced distance a r / r_max + b with trainable means and widths.

    The basis of Graphormer (Ying et al., arXiv 2106.05234), which arXiv 2507.01131 uses: means
    start uniform in [0, 1], widths uniform in [1 / B, 1]. Does not vanish at the cutoff.

    Parameters
    ----------
    r_max : cutoff radius in angstrom
    num_gaussians : number B of functions
    """

    def __init__(self, r_max: float, num_gaussians: int) -> None:
        super().__init__()
        self.r_max = r_max
        narrowest = 1 / num_gaussians
        self.mean = nn.Parameter(torch.rand(num_gaussians))
        self.width = nn.Parameter(narrowest + (1 - narrowest) * torch.rand(num_gaussians))
        self.slope = nn.Parameter(torch.ones(1))
        self.shift = nn.Parameter(torch.zeros(1))

    def forward(self, r: Tensor) -> Tensor:  # [E] -> [E, B]
        x = self.slope * (r / self.r_max).unsqueeze(-1) + self.shift
        width = self.width.abs() + 1e-5
        return torch.exp(-0.5 * ((x - self.mean) / width).square()) / (
            math.sqrt(2 * math.pi) * width
        )


class RadialProfile(nn.Module):
    """One weight per channel as a function of the distance, shared by all degrees and paths.

    Linear maps, each but the last followed by layer norm and silu, and an offset (the radial
    profile of Equiformer, Liao and Smidt, arXiv 2206.11990).

    Parameters
    ----------
    num_basis : size B of the basis
    hidden : widths of the hidden layers
    num_channels : channels C
    """

    def __init__(self, num_basis: int, hidden: tuple[int, ...], num_channels: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        last = num_basis
        for width in hidden:
            layers += [nn.Linear(last, width), nn.LayerNorm(width), nn.SiLU()]
            last = width
        self.hidden = nn.Sequential(*layers)
        self.weight = nn.Parameter(SILU_SCALE * torch.randn(last, num_channels) / math.sqrt(last))
        self.offset = nn.Parameter((2 * torch.rand(num_channels) - 1) / math.sqrt(last))

    def forward(self, basis: Tensor) -> Tensor:  # [E, B] -> [E, C]
        return self.hidden(basis) @ self.weight + self.offset
