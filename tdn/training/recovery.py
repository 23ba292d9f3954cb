"""Trouble on the way: batches without a finite loss, an average of weights that blew up."""

from __future__ import annotations

import copy
from typing import Any

import torch

from tdn.system.errors import TDNError

from .optimizer.build import OptimizerPair
from .optimizer.weight_average import WeightAverage
from .run.resume import Progress

# batches in a row with a non-finite loss before the last good weights come back, and how often
# they come back before the run gives up
MAX_SKIPPED = 3
MAX_RESTORES = 5


class Recovery:
    """Keeps the last good weights, optimizer and average, and brings them back.

    Parameters
    ----------
    model, optimizer, average : of the run; their present state counts as good
    max_jump : a validation loss above this times the last good one is trouble; 0: it never is
    """

    def __init__(
        self,
        model: torch.nn.Module,
        optimizer: torch.optim.Optimizer | OptimizerPair,
        average: WeightAverage,
        max_jump: float,
    ) -> None:
        self.parts = {"weights": model, "optimizer": optimizer, "average": average}
        self.max_jump = max_jump
        self.good: dict[str, Any] = {}
        self.keep()

    def keep(self) -> None:
        """Take the present state as good."""
        self.good = {name: copy.deepcopy(part.state_dict()) for name, part in self.parts.items()}

    def jumped(self, metric: float, progress: Progress) -> bool:
        """Whether a finite validation loss says that the weights have blown up.

        After several such jumps losses of this run are known to vary that much, and are left alone.
        """
        limit = self.max_jump * progress.good_metric
        return progress.jumps < MAX_RESTORES and 0 < limit < metric

    def restore(self, progress: Progress, reason: str, model_file: object) -> str:
        """Bring the good state back and halve the learning rate; a line for the user.

        Raises
        ------
        TDNError
            If losses that are not finite made this necessary too often.
        """
        progress.skipped = 0
        progress.restores += 1
        if progress.restores > MAX_RESTORES:
            raise TDNError(
                f"{reason}; the last good weights were brought back {MAX_RESTORES} times in vain. "
                "Lower train.learning_rate or train.clip_norm, or use train.dtype=float64; "
                f"the best model so far is {model_file}"
            )
        return self._back(progress, reason)

    def restore_after_jump(self, progress: Progress, metric: float) -> str:
        """The same after a validation loss for which `jumped` is true; never fatal."""
        progress.jumps += 1
        return self._back(
            progress,
            f"the validation loss jumped from {progress.good_metric:.3g} to {metric:.3g} after "
            f"epoch {progress.epoch} (more than train.max_loss_jump = {self.max_jump:g} times)",
        )

    def _back(self, progress: Progress, reason: str) -> str:
        progress.rate_factor *= 0.5
        for name, part in self.parts.items():
            part.load_state_dict(copy.deepcopy(self.good[name]))
        return (
            f"{reason}: last good weights brought back, learning rate times "
            f"{progress.rate_factor:g} from here"
        )
