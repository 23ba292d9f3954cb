"""Reference of `tdn.ops.nodes` in plain PyTorch."""

import torch
from torch import Tensor


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
    """See :func:`tdn.ops.node_product`."""
    sizes = torch.arange(left.size(2), device=m.device)
    degree = torch.repeat_interleave(sizes, 2 * sizes + 1)
    out = linear.size(1) * linear.size(1)
    y = m[:, :out] * linear[:, degree[:out]][species]
    power = m
    for o in range(left.size(0)):
        p = torch.matmul(input1.t(), power * left[o][:, degree][species])
        q = torch.matmul(input2.t(), m * right[o][:, degree][species])
        power = torch.matmul(output, p * q)
        y = y + power[:, :out] * weight[o][:, degree[:out]][species]
    return y


def degree_linear(x: Tensor, weight: Tensor) -> Tensor:
    """See :func:`tdn.ops.degree_linear`."""
    parts = []
    for l in range(weight.size(0)):
        parts.append(x[:, l * l : (l + 1) * (l + 1)] @ weight[l])
    return torch.cat(parts, dim=1)


def component_linear(x: Tensor, matrix: Tensor) -> Tensor:
    """See :func:`tdn.ops.component_linear`."""
    return torch.matmul(matrix, x)


def gate(x: Tensor, weight: Tensor, scale: float) -> Tensor:
    """See :func:`tdn.ops.gate`."""
    scalars = x[:, 0]
    parts = [scale * torch.nn.functional.silu(scalars).unsqueeze(1)]
    degrees = 1 + weight.size(1) // max(1, weight.size(0))
    if degrees > 1:
        gates = 2 * torch.sigmoid(scalars @ weight).view(x.size(0), degrees - 1, x.size(2))
        for l in range(1, degrees):
            parts.append(x[:, l * l : (l + 1) * (l + 1)] * gates[:, l - 1 : l])
    return torch.cat(parts, dim=1)


def gate_with_scalars(x: Tensor, weight: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """See :func:`tdn.ops.gate_with_scalars`."""
    y = gate(x, weight, scale)
    return y, y[:, 0]
