"""Learning rate as a function of the step."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tdn.config import TrainConfig


@dataclass(frozen=True)
class Schedule:
    """Linear warm-up to the peak, then down to the minimum.

    Parameters
    ----------
    peak, minimum : learning rates
    warmup : steps of warm-up
    total : steps of the whole run
    shape : cosine, linear or constant
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
        if self.shape == "constant":
            share = 1.0
        elif self.shape == "linear":
            share = 1 - progress
        else:
            share = 0.5 * (1 + math.cos(math.pi * progress))
        return self.minimum + (self.peak - self.minimum) * share
