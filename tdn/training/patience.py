"""Early stopping: back to the best weights, and what is left of the schedule from there.

Some data can be learned by heart long before the end of a run: validation losses then fall for some
epochs and rise for the rest. To stop at the lowest one is not enough, since learning rate and
weight of the energy are still those of the beginning, which costs a factor of two in the errors.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .loss import RAMP_START
from .optimizer.weight_average import WeightAverage
from .run.resume import Progress

# epochs to the lowest loss for each epoch of cooling down
COOLING = 4


def last_epoch(progress: Progress, max_epochs: int) -> int:
    """Epochs of the run, as far as is known now."""
    if progress.cooling_from:
        return min(max_epochs, progress.cooling_from + progress.cooling_epochs)
    return max_epochs


def schedule_epoch(progress: Progress, epoch: float, max_epochs: int) -> float:
    """Where in the schedule an epoch is: the second half of it goes into the cooling down."""
    if not progress.cooling_from:
        return epoch
    share = min(1.0, (epoch - progress.cooling_from) / progress.cooling_epochs)
    return max_epochs * (RAMP_START + (1 - RAMP_START) * share)


class Patience:
    """Watches validation losses in the first part of a run, and ends it when they only rise.

    Later the falling learning rate and the growing weight of the energy decide on the losses.

    Parameters
    ----------
    weights : flat weights of the network
    average : of these weights, which is what is validated
    limit : epochs without a lower loss; None: nothing is done
    max_epochs : of the run
    """

    def __init__(
        self,
        weights: list[torch.nn.Parameter],
        average: WeightAverage,
        limit: int | None,
        max_epochs: int,
    ) -> None:
        self.weights, self.average = weights, average
        self.limit, self.max_epochs = limit, max_epochs
        self.best: list[Tensor] = []

    def watch(self, loss: float, progress: Progress) -> str | None:
        """Take note of a validation loss; a line for the user when the run cools down from here.

        The averaged weights of the lowest loss are in the network then.

        Parameters
        ----------
        loss : with the weights of the terms at the start of the run, so that epochs compare
        """
        if self.limit is None or progress.cooling_from:
            return None
        if progress.epoch > RAMP_START * self.max_epochs:
            self.best = []
            return None
        if loss < progress.lowest:
            progress.lowest, progress.lowest_epoch = loss, progress.epoch
            with self.average.applied():
                self.best = [w.detach().clone() for w in self.weights]
        waited = progress.epoch - progress.lowest_epoch
        if waited < self.limit or not self.best:
            return None
        progress.cooling_from = progress.epoch
        # faster than the weights got there: what small steps learn is learned by heart again
        progress.cooling_epochs = max(1, progress.lowest_epoch // COOLING)
        with torch.no_grad():
            for weight, best in zip(self.weights, self.best, strict=True):
                weight.copy_(best)
        self.average.restart()
        self.best = []
        return (
            f"no lower validation loss in {waited} epochs (train.patience): back to the weights of "
            f"epoch {progress.lowest_epoch}; the second half of the schedule follows and the run "
            f"ends after epoch {last_epoch(progress, self.max_epochs)}"
        )

    def state_dict(self) -> dict[str, list[Tensor]]:
        """Plain tensors."""
        return {"best": [tensor.clone() for tensor in self.best]}

    def load_state_dict(self, state: dict[str, list[Tensor]]) -> None:
        """The inverse of `state_dict`."""
        self.best = state["best"]
