"""Exponential moving average of weights."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


class WeightAverage:
    r"""Average of weights over the last 1 / (1 - decay) steps, free of bias from its start.

    The average after t steps is that of all weights so far with weights decay^(t - s),

    .. math:: a_t = \frac{1 - d}{1 - d^t} \sum_{s=1}^{t} d^{\,t-s} p_s ,

    (the bias correction of Adam, arXiv 1412.6980), computed as a running mean.

    Parameters
    ----------
    weights : what is averaged
    decay : d in [0, 1); 0 keeps the last weights
    """

    def __init__(self, weights: Iterable[Tensor], decay: float) -> None:
        self.decay = decay
        self.steps = 0
        self._parameters = list(weights)
        self._average = [p.detach().clone() for p in self._parameters]

    @torch.no_grad()
    def update(self) -> None:
        """Take the present weights into the average."""
        self.steps += 1
        # share of the newest weights, 1 for the first step
        share = (1 - self.decay) / (1 - self.decay**self.steps)
        for average, parameter in zip(self._average, self._parameters, strict=True):
            average.lerp_(parameter, share)

    def restart(self) -> None:
        """Forget all weights so far: the next ones begin the average anew."""
        self.steps = 0
        for average, parameter in zip(self._average, self._parameters, strict=True):
            average.copy_(parameter.detach())

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Put the average into the model within a block."""
        kept = [p.detach().clone() for p in self._parameters]
        self._set(self._average)
        try:
            yield
        finally:
            self._set(kept)

    @torch.no_grad()
    def _set(self, values: list[Tensor]) -> None:
        for parameter, value in zip(self._parameters, values, strict=True):
            parameter.copy_(value)

    def state_dict(self) -> dict[str, object]:
        """Plain values and tensors."""
        return {"steps": self.steps, "average": [a.clone() for a in self._average]}

    @torch.no_grad()
    def load_state_dict(self, state: dict) -> None:
        """The inverse of `state_dict`."""
        self.steps = state["steps"]
        for average, stored in zip(self._average, state["average"], strict=True):
            average.copy_(stored)
