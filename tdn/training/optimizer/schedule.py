"""Learning rate as a function of the step, and of the validation loss."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tdn.config import TrainConfig
from tdn.training.run.resume import Progress


@dataclass(frozen=True)
class Schedule:
    """Linear warm-up to the peak, then down to the minimum.

    Parameters
    ----------
    peak, minimum : learning rates
    warmup : steps of warm-up
    total : steps of the whole run
    shape : cosine, linear, constant, or plateau, which is constant but for `lower_on_plateau`
    """

    peak: float
    minimum: float
    warmup: int
    total: int
    shape: str = "cosine"

    @classmethod
    def from_config(cls, config: TrainConfig, steps_per_epoch: int) -> Schedule:
        return cls(
            peak=config.learning_rate,
            minimum=min(config.min_learning_rate, config.learning_rate),
            warmup=round(config.warmup_epochs * steps_per_epoch),
            total=config.max_epochs * steps_per_epoch,
            shape=config.schedule,
        )

    def __call__(self, step: float) -> float:
        """Learning rate of a step, counted from zero; between steps where epochs vary in length."""
        if step < self.warmup:
            return self.peak * (step + 1) / (self.warmup + 1)
        progress = min(1.0, (step - self.warmup) / max(1, self.total - 1 - self.warmup))
        if self.shape in ("constant", "plateau"):
            share = 1.0
        elif self.shape == "linear":
            share = 1 - progress
        else:
            share = 0.5 * (1 + math.cos(math.pi * progress))
        return self.minimum + (self.peak - self.minimum) * share


# part by which a loss has to be below the lowest so far to count as lower, and what a plateau makes
# of the rate: those of torch.optim.lr_scheduler.ReduceLROnPlateau
THRESHOLD = 1e-4
REDUCTION = 0.1


def lower_on_plateau(progress: Progress, loss: float, config: TrainConfig) -> None:
    """Take the loss of a validation: after several that are not lower the learning rate falls.

    Parameters
    ----------
    progress : its ``plateau_best``, ``plateau_waited`` and ``rate_factor`` change
    """
    if loss < progress.plateau_best * (1 - THRESHOLD):
        progress.plateau_best, progress.plateau_waited = loss, 0
        return
    progress.plateau_waited += 1
    if progress.plateau_waited >= config.plateau_epochs:
        lowest = min(1.0, config.min_learning_rate / max(config.learning_rate, 1e-300))
        factor = max(REDUCTION * progress.rate_factor, lowest)
        progress.rate_factor, progress.plateau_waited = min(factor, progress.rate_factor), 0
