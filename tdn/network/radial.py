"""Radial dependence of messages: Bessel basis, polynomial envelope, radial network."""

import math

import torch
from torch import Tensor, nn

from tdn.ops import radial
from tdn.ops.reference import bessel_basis, polynomial_envelope

from .layers import SILU_SCALE


class PolynomialEnvelope(nn.Module):
    """Smooth cutoff u(r / r_max) with u(0) = 1 and u(1) = u'(1) = u''(1) = 0.

    Gasteiger et al., arXiv 2003.03123, eq. 8. Exactly zero from ``r_max`` on.

    Parameters
    ----------
    r_max : cutoff radius in angstrom
    p : power; larger values keep the envelope near one for longer
    """

    def __init__(self, r_max: float, p: int) -> None:
        super().__init__()
        self.r_max = r_max
        self.p = p

    def forward(self, r: Tensor) -> Tensor:
        return polynomial_envelope(r, self.r_max, self.p)


class BesselBasis(nn.Module):
    """b_n(r) = sqrt(2 / r_max) sin(n pi r / r_max) / r, scaled to unit mean square over [0, r_max].

    Gasteiger et al., arXiv 2003.03123, eq. 7. All functions vanish at the cutoff.
    """

    frequencies: Tensor

    def __init__(self, r_max: float, num_radial: int) -> None:
        super().__init__()
        n = torch.arange(1, num_radial + 1, dtype=torch.float64)
        self.register_buffer("frequencies", n * math.pi / r_max)
        self.r_max = r_max

    def forward(self, r: Tensor) -> Tensor:  # [E] -> [E, B]
        return bessel_basis(r, self.frequencies, self.r_max)


def falling_weights(like: Tensor, power: float) -> Tensor:
    """n^-power for the rows n = 1..B of a matrix [B, m], scaled to unit mean square, [B, 1]."""
    n = torch.arange(1, like.size(0) + 1, dtype=like.dtype, device=like.device)
    scale = n.pow(-power)
    return (scale / scale.square().mean().sqrt()).unsqueeze(1)


class RadialNetwork(nn.Module):
    """Weights of the messages as functions of the distance, one set per layer.

    A network without biases on (Bessel basis x envelope): its outputs vanish at the cutoff together
    with their first and second derivatives, because its input does and its activation has a zero at
    zero. Centre and neighbour species scale the first hidden layer.

    Parameters
    ----------
    num_radial : size B of the basis
    hidden : widths of the hidden layers
    num_degrees : number L of radial degrees; one when shared
    num_channels : channels C
    num_species : number of elements
    decay : initial weights of basis function n are proportional to n^-decay; with 1 a new network
        depends smoothly on distances, and takes up fast functions only where the data ask for them
    smoothness : weights of basis function n count n^-smoothness times, scaled to unit mean square
        over n, at the start and in training: a step of the optimiser changes slow functions more
        and fast ones less, so smooth ones are preferred all along
    """

    def __init__(
        self,
        num_radial: int,
        hidden: tuple[int, ...],
        num_degrees: int,
        num_channels: int,
        num_species: int,
        decay: float = 0.0,
        smoothness: float = 0.0,
    ) -> None:
        super().__init__()
        widths = [num_radial, *hidden, num_degrees * num_channels]
        self.weights = nn.ParameterList(
            nn.Parameter(torch.randn(n, m) / math.sqrt(n))
            for n, m in zip(widths[:-1], widths[1:], strict=True)
        )
        first = self.weights[0]
        with torch.no_grad():  # so that they have unit mean square as they are used
            first.mul_(
                falling_weights(first, decay + smoothness) / falling_weights(first, smoothness)
            )
        self.pair_scale = nn.Parameter(1 + 0.2 * torch.randn(num_species**2, widths[1]))
        self.widths = widths
        self.num_weights = len(widths) - 1  # TorchScript cannot ask a ParameterList
        self.silu_scale = SILU_SCALE
        self.num_degrees = num_degrees
        self.num_channels = num_channels
        self.smoothness = smoothness

    def _of_basis(self, weight: Tensor) -> Tensor:
        """The first matrix as it counts: row n times n^-smoothness."""
        if self.smoothness == 0.0:
            return weight
        return weight * falling_weights(weight, self.smoothness)

    def forward(self, basis: Tensor, pair: Tensor) -> Tensor:
        """[E, B] basis times envelope and [E] species pairs -> [E, L, C] weights."""
        hidden = basis
        for i, weight in enumerate(self.weights):
            if i == 0:
                weight = self._of_basis(weight)
            if i == 1:
                hidden = hidden * nn.functional.embedding(pair, self.pair_scale)
            if i > 0:  # scaled silu, with the scale on the smaller array
                hidden = nn.functional.silu(hidden)
                weight = weight * self.silu_scale
            hidden = hidden @ weight
        if self.num_weights == 1:
            hidden = hidden * nn.functional.embedding(pair, self.pair_scale)
        return hidden.view(-1, self.num_degrees, self.num_channels)

    def of_distance(self, r: Tensor, pair: Tensor, r_max: float, power: int) -> Tensor:
        """The same from distances [E] with basis and envelope of their own, as one operator."""
        if self.num_weights == 1:
            n = torch.arange(1, self.widths[0] + 1, dtype=r.dtype, device=r.device)
            basis = bessel_basis(r, n * (math.pi / r_max), r_max)
            return self.forward(basis * polynomial_envelope(r, r_max, power).unsqueeze(1), pair)
        flat = []
        for i, weight in enumerate(self.weights):
            flat.append((self._of_basis(weight) if i == 0 else weight).flatten())
        w = radial(
            r, pair, self.pair_scale, torch.cat(flat), self.widths, r_max, power, self.silu_scale
        )
        return w.view(-1, self.num_degrees, self.num_channels)
