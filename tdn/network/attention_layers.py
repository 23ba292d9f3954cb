"""Layers of the attention network; features are ``[N, D, C]`` as everywhere.

Path-weight sharing (arXiv 2507.01131, section 3.2) goes through all of them: one matrix acts on
the channels of every degree, biases act on scalars.
"""

import math

import torch
from torch import Tensor, nn

from tdn.config import ModelConfig
from tdn.ops import Edges

from .layers import SILU_SCALE, scaled_silu


def activation_scales(config: ModelConfig) -> tuple[float, float]:
    """Factors of silu and of the sigmoids that gate: of unit variance, or one, as released."""
    return (1.0, 1.0) if config.constants == "released" else (SILU_SCALE, 2.0)


class SharedLinear(nn.Module):
    """Mix channels with one matrix for all degrees, plus a bias on the scalars."""

    def __init__(self, num_in: int, num_out: int, bias: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(num_in, num_out) / math.sqrt(num_in))
        self.bias = nn.Parameter(torch.zeros(num_out)) if bias else None

    def forward(self, x: Tensor) -> Tensor:  # [N, D, C_in] -> [N, D, C_out]
        y = x @ self.weight
        if self.bias is not None:
            y = torch.cat([y[:, :1] + self.bias, y[:, 1:]], dim=1)
        return y


class GatedLinear(nn.Module):
    """Channel mixing and gate in one: silu on the scalars, higher degrees times a sigmoid.

    A `SharedLinear` to 2 C channels whose second half is used as gates; only the scalars of that
    half are computed.

    Parameters
    ----------
    silu_scale, gate_scale : factors of silu and sigmoid (`activation_scales`)
    """

    def __init__(self, num_channels: int, silu_scale: float, gate_scale: float) -> None:
        super().__init__()
        self.silu_scale = silu_scale
        self.gate_scale = gate_scale
        self.value = SharedLinear(num_channels, num_channels)
        self.gate = nn.Parameter(torch.randn(num_channels, num_channels) / math.sqrt(num_channels))
        self.gate_bias = nn.Parameter(torch.zeros(num_channels))

    def forward(self, x: Tensor) -> Tensor:  # [N, D, C] -> [N, D, C]
        value = self.value(x)
        scalars = scaled_silu(value[:, :1], self.silu_scale)
        gate = torch.sigmoid(torch.addmm(self.gate_bias, x[:, 0], self.gate)).unsqueeze(1)
        return torch.cat([scalars, value[:, 1:] * (self.gate_scale * gate)], dim=1)

    def apart(self, scalars: Tensor, rest: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The same of scalars [E, C] and other components [E, D - 1, C], and gates not applied.

        Returns
        -------
        scalars [E, C], rest [E, D - 1, C], gates of the rest [E, C]
        """
        bias = self.value.bias
        assert bias is not None  # for TorchScript: not every linear map has one
        value = torch.addmm(bias, scalars, self.value.weight)
        gate = torch.addmm(self.gate_bias, scalars, self.gate)
        return (
            scaled_silu(value, self.silu_scale),
            rest @ self.value.weight,
            self.gate_scale * torch.sigmoid(gate),
        )


class EquivariantLayerNorm(nn.Module):
    """Divide each degree by its root mean square over components and channels, then scale.

    Scalars lose their mean over the channels first and get a bias (the separable layer norm of
    EquiformerV2, arXiv 2306.12059, per degree).

    Parameters
    ----------
    epsilon : added to the mean square. It is what keeps the norm smooth where the features of a
        degree vanish, at the cutoff or by symmetry: they may grow by 1 / sqrt(epsilon) at most.
    """

    def __init__(self, num_channels: int, l_max: int, epsilon: float) -> None:
        super().__init__()
        self.l_max = l_max
        self.epsilon = epsilon
        self.weight = nn.Parameter(torch.ones(l_max + 1, num_channels))
        self.bias = nn.Parameter(torch.zeros(num_channels))

    def forward(self, x: Tensor) -> Tensor:  # [N, D, C] -> [N, D, C]
        parts = []
        for l in range(self.l_max + 1):
            part = x[:, l * l : (l + 1) * (l + 1)]
            if l == 0:
                part = part - part.mean(dim=2, keepdim=True)
            square = part.square().mean(dim=[1, 2], keepdim=True)
            part = part * (square + self.epsilon).rsqrt() * self.weight[l]
            parts.append(part + self.bias if l == 0 else part)
        return torch.cat(parts, dim=1)


class FeedForward(nn.Module):
    """Two channel mixings with a gate between."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        num_channels = config.num_channels
        self.gated = GatedLinear(num_channels, *activation_scales(config))
        self.out = SharedLinear(num_channels, num_channels)

    def forward(self, x: Tensor) -> Tensor:  # [N, D, C] -> [N, D, C]
        return self.out(self.gated(x))


class EnergyHead(nn.Module):
    """Energy of an atom from its scalars through one hidden layer."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        num_channels = config.num_channels
        self.silu_scale, _ = activation_scales(config)
        self.mixing = nn.Parameter(
            torch.randn(num_channels, num_channels) / math.sqrt(num_channels)
        )
        self.mixing_bias = nn.Parameter(torch.zeros(num_channels))
        self.weight = nn.Parameter(torch.randn(num_channels) / num_channels)
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, scalars: Tensor) -> Tensor:  # [N, C] -> [N]
        hidden = scaled_silu(scalars @ self.mixing + self.mixing_bias, self.silu_scale)
        return hidden @ self.weight + self.bias


def smooth_leaky_relu(x: Tensor, slope: float = 0.2) -> Tensor:
    """x for large x, slope * x for very negative x, smooth between (arXiv 2206.11990).

    Written there with tanh(x / 2) = 2 sigmoid(x) - 1, which takes ten times as long.
    """
    return slope * x + (1 - slope) * nn.functional.silu(x)


def neighbor_softmax(logits: Tensor, envelope: Tensor, edges: Edges, constant: float) -> Tensor:
    """Attention weights u_ij exp(s_ij) / (constant + sum_k u_ik exp(s_ik)).

    With an envelope u and a positive constant a weight vanishes smoothly when its neighbor
    leaves, also when that is the last one. Constant 0 and u = 1 give the ordinary softmax.

    Parameters
    ----------
    logits : s, [E, H]
    envelope : u, [E]
    constant : weight of having no neighbor

    Returns
    -------
    [E, H]
    """
    num_centers, heads = edges.center_ptr.size(0) - 1, logits.size(1)
    index = edges.center.unsqueeze(1).expand(-1, heads)
    # the result does not depend on the largest logit, which only keeps exp in range: no gradient
    start = 0.0 if constant > 0 else -math.inf
    largest = torch.full((num_centers, heads), start, dtype=logits.dtype, device=logits.device)
    largest = largest.scatter_reduce(0, index, logits.detach(), "amax")
    weights = torch.exp(logits - largest[edges.center]) * envelope.unsqueeze(1)
    if constant > 0:
        total = constant * torch.exp(-largest)
    else:
        total = torch.zeros_like(largest)
    total = total.index_add(0, edges.center, weights)
    return weights / total[edges.center]


def pad_degrees(scalars: Tensor, components: int) -> Tensor:
    """Scalars [N, C] as features [N, D, C] with nothing in the higher degrees."""
    rest = scalars.new_zeros(scalars.size(0), components - 1, scalars.size(1))
    return torch.cat([scalars.unsqueeze(1), rest], dim=1)
