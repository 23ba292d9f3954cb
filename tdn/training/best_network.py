"""Which network of a run is kept in ``model.pt``.

The lowest of many validation losses is partly luck where validation frames are few and the learning
rate is large: the few frames with large errors decide, and errors of all others may be twice those
at the end of the run. So the lowest loss counts in the first half of the schedule; in the second
half, where the learning rate falls, the newest network whose loss is about as low.
"""

from __future__ import annotations

import copy
import math
from typing import Any

import torch

from .run.resume import Progress

# part by which the loss of a newer network may be above the lowest one
TOLERANCE = 0.1


class BestNetwork:
    """The network to keep, and what its file says about it.

    Parameters
    ----------
    model : network that is trained
    validated : there are validation frames; without them the newest network is the one to keep

    Attributes
    ----------
    model : a copy with the weights to keep
    metadata : of these weights; None: nothing new since they were written
    """

    def __init__(self, model: torch.nn.Module, validated: bool) -> None:
        self.model = copy.deepcopy(model)
        self.validated = validated
        self.metadata: dict[str, Any] | None = None

    def wants(self, loss: float, progress: Progress, falling: bool) -> bool:
        """Whether the present network is the one to keep; takes note of the lowest loss.

        Parameters
        ----------
        loss : of the validation frames, with the weights of the terms at the end of the run
        falling : the second half of the schedule is reached
        """
        if self.validated:
            bound = (1 + TOLERANCE) * progress.best if falling else progress.best
            wanted = loss < bound
        else:
            wanted = math.isfinite(loss)
        if wanted:
            progress.best = min(progress.best, loss)
            progress.best_epoch = progress.epoch
        return wanted

    def take(self, model: torch.nn.Module, metadata: dict[str, Any]) -> None:
        """Keep the weights that are in the model now."""
        self.model.load_state_dict(model.state_dict())
        self.metadata = metadata
