"""Radial dependence of messages: polynomial envelope, radial network."""

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


def falling_weights(like: Tensor, power: float) -> Tensor:
    """n^-power for the rows n = 1..B of a matrix [B, m], scaled to unit mean square, [B, 1]."""
    n = torch.arange(1, like.size(0) + 1, dtype=like.dtype, device=like.device)
    scale = n.pow(-power)
    return (scale / scale.square().mean().sqrt()).unsqueeze(1)


class RadialNetwork(nn.Module):
    """Weights of the messages as functions of the distance, one set per layer.

    A network without biases on (Bessel basis x polynomial envelope): its outputs vanish at the
    cutoff together with their first and second derivatives, because its input does and its
    activation has a zero at zero. Center and neighbor species scale the first hidden layer.

    Parameters
    ----------
    r_max : cutoff radius in angstrom
    power : of the envelope
    num_radial : size B of the basis
    hidden : widths of the hidden layers
    num_degrees : number L of radial degrees; one when shared
    num_channels : channels C
    num_species : number S of elements
    decay : initial weights of basis function n are proportional to n^-decay; with 1 a new network
        depends smoothly on distances, and takes up fast functions only where the data ask for them
    smoothness : weights of basis function n are scaled by n^-smoothness (unit mean square over n),
        at the start and in training: a step of the optimizer changes slow functions more and fast
        ones less, so smooth ones are preferred all along
    """

    def __init__(
        self,
        r_max: float,
        power: int,
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
        self.r_max = r_max
        self.power = power
        self.widths = widths
        self.silu_scale = SILU_SCALE
        self.num_degrees = num_degrees
        self.num_channels = num_channels
        self.num_species = num_species
        self.smoothness = smoothness

    def _first(self, weight: Tensor) -> Tensor:
        """The first matrix as it is used: row n is scaled by n^-smoothness."""
        if self.smoothness == 0.0:
            return weight
        return weight * falling_weights(weight, self.smoothness)

    def weights_at(self, r: Tensor, pair: Tensor) -> Tensor:
        """Distances [E] in angstrom and species pairs [E] -> weights [E, L, C].

        A pair is the index of the center's species times S plus that of the neighbor's.
        """
        matrices = []
        for i, weight in enumerate(self.weights):
            matrices.append(self._first(weight) if i == 0 else weight)
        if len(matrices) == 1:  # the operator needs a hidden layer
            envelope = polynomial_envelope(r, self.r_max, self.power)
            basis = bessel_basis(r, self.widths[0], self.r_max) * envelope.unsqueeze(1)
            w = (basis @ matrices[0]) * nn.functional.embedding(pair, self.pair_scale)
        else:
            flat = torch.cat([matrix.flatten() for matrix in matrices])
            w = radial(
                r,
                pair,
                self.pair_scale,
                flat,
                self.widths,
                self.r_max,
                self.power,
                self.silu_scale,
            )
        return w.view(-1, self.num_degrees, self.num_channels)
