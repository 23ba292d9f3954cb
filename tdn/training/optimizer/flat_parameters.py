"""Weights side by side in one array, so that optimiser, clipping and average are single operations.

A network has some forty small weights; calling an operation for each of them costs more than the
arithmetic.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

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
    model : the network; its trained weights must be those of the groups
    groups : weights that share the settings of the optimiser; all of one type and device

    Attributes
    ----------
    tensors : one array per group that has weights, each a leaf with a gradient
    """

    def __init__(self, model: nn.Module, groups: Sequence[Sequence[nn.Parameter]]) -> None:
        # of older files
        self._order = [id(p) for p in model.parameters() if p.requires_grad]
        self._groups = [list(group) for group in groups if len(group)]
        self.tensors: list[nn.Parameter] = []
        for group in self._groups:
            flat = nn.Parameter(self.join(group))
            flat.grad = torch.zeros_like(flat)
            for parameter, start in zip(group, self._starts(group), strict=True):
                end = start + parameter.numel()
                parameter.data = flat.data[start:end].view_as(parameter)
                parameter.grad = flat.grad[start:end].view_as(parameter)
            self.tensors.append(flat)

    @staticmethod
    def _starts(group: Sequence[Tensor]) -> list[int]:
        starts, end = [], 0
        for parameter in group:
            starts.append(end)
            end += -(-parameter.numel() // ALIGNMENT) * ALIGNMENT
        return starts

    @classmethod
    @torch.no_grad()
    def join(cls, group: Sequence[Tensor]) -> Tensor:
        """One array with copies of tensors in the order of the group, zero between them."""
        starts = cls._starts(group)
        last = group[-1].numel()
        flat = group[0].new_zeros(starts[-1] + -(-last // ALIGNMENT) * ALIGNMENT)
        for tensor, start in zip(group, starts, strict=True):
            flat[start : start + tensor.numel()] = tensor.flatten()
        return flat

    def blocks(self, number: int) -> list[tuple[int, torch.Size]]:
        """Where the weights of a group start in their array, and their shapes.

        Parameters
        ----------
        number : of the array in ``tensors``
        """
        group = self._groups[number]
        return [(s, p.shape) for s, p in zip(self._starts(group), group, strict=True)]

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

    def optimizer_state(self, state: dict[str, Any]) -> dict[str, Any]:
        """State of an optimiser of the single weights as one of the arrays; others as they are."""
        if len(state.get("state", ())) <= len(self.tensors):
            return state
        joined: dict[int, dict[str, Any]] = {}
        groups = []
        old_groups = [group for group in state["param_groups"] if group["params"]]
        for number, group in enumerate(old_groups):
            old = [state["state"][index] for index in group["params"]]
            joined[number] = {
                key: self.join([entry[key] for entry in old]) if value.dim() else value
                for key, value in old[0].items()
            }
            # a step counter has the same value for all
            groups.append({**group, "params": [number]})
        return {"state": joined, "param_groups": groups}

    def average_state(self, state: dict[str, Any]) -> dict[str, Any]:
        """The same for the state of `tdn.training.optimizer.weight_average.WeightAverage`."""
        if len(state["average"]) <= len(self.tensors):
            return state
        by_identity = dict(zip(self._order, state["average"], strict=True))
        return {
            **state,
            "average": [self.join([by_identity[id(p)] for p in group]) for group in self._groups],
        }
