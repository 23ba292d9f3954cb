"""Weights side by side in one array, so that optimizer, clipping and average are single operations.

A network has some forty small weights; calling an operation for each of them costs more than the
arithmetic.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor, nn

# elements between the starts of two weights are a multiple of this: whole cache lines
ALIGNMENT = 16


class FlatParameters:
    """Makes the weights of each group views of one array, and their gradients likewise.

    Gradients stay where they are: `zero_grad` clears them, ``backward`` adds to them. The network
    itself does not notice, but must not be moved to another device or type afterwards.

    Parameters
    ----------
    groups : weights that share the settings of the optimizer; all of one type and device

    Attributes
    ----------
    tensors : one array per group that has weights, each a leaf with a gradient
    """

    def __init__(self, groups: Sequence[Sequence[nn.Parameter]]) -> None:
        self.tensors: list[nn.Parameter] = []
        self._blocks: list[list[tuple[int, torch.Size]]] = []
        for group in filter(len, groups):
            padded = [nn.functional.pad(p.detach().flatten(), (0, -p.numel() % ALIGNMENT))
                      for p in group]  # fmt: skip
            flat = nn.Parameter(torch.cat(padded))
            flat.grad = torch.zeros_like(flat)
            starts = [0, *accumulate(map(len, padded))]
            for parameter, start in zip(group, starts, strict=False):
                end = start + parameter.numel()
                parameter.data = flat.data[start:end].view_as(parameter)
                parameter.grad = flat.grad[start:end].view_as(parameter)
            self.tensors.append(flat)
            self._blocks.append([(s, p.shape) for s, p in zip(starts, group, strict=False)])

    def blocks(self, number: int) -> list[tuple[int, torch.Size]]:
        """Where the weights of a group start in their array, and their shapes.

        Parameters
        ----------
        number : of the array in ``tensors``
        """
        return self._blocks[number]

    def zero_grad(self) -> None:
        """Clear all gradients."""
        for tensor in self.tensors:
            tensor.grad.zero_()

    @torch.no_grad()
    def clip_grad_norm(self, limit: float) -> Tensor:
        """Scale all gradients so that their norm is at most ``limit``; the norm before."""
        norm = torch.stack([torch.linalg.vector_norm(t.grad) for t in self.tensors])
        norm = torch.linalg.vector_norm(norm)
        factor = (limit / (norm + 1e-6)).clamp(max=1.0)
        for tensor in self.tensors:
            tensor.grad.mul_(factor)
        return norm
