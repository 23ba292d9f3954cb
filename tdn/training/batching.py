"""Which frames make a step of the optimizer: batches by frames or by edges, accumulated."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from tdn.config import TrainConfig
from tdn.data.dataset.subset import Subset


@dataclass(frozen=True)
class Batches:
    """The steps of any epoch, from seed and number of the epoch alone.

    A step takes ``accumulate`` batches, whose gradients are summed before the weights change. It is
    the same step as one batch of all their frames, with the memory of one of them.

    Parameters
    ----------
    num_frames : training frames
    batch_size : frames per batch, where edges do not decide
    accumulate : batches per step
    seed : of the order
    edges : number of edges of each frame, needed for ``max_edges``
    max_edges : batches are filled up to this number of edges; a larger frame is a batch of its own
    """

    num_frames: int
    batch_size: int
    accumulate: int = 1
    seed: int = 0
    edges: Sequence[int] | None = None
    max_edges: int | None = None

    @classmethod
    def from_config(cls, config: TrainConfig, frames: Subset) -> Batches:
        limit = config.max_edges_per_batch
        count = frames.num_edges_estimate
        edges = None if limit is None else [count(i) for i in range(len(frames))]
        return cls(len(frames), config.batch_size, config.accumulate, config.seed, edges, limit)

    @property
    def steps_per_epoch(self) -> int:
        """Steps of an epoch; with ``max_edges`` of the first one, later ones differ slightly."""
        if self.max_edges is not None:
            return len(self.steps(0))
        return math.ceil(math.ceil(self.num_frames / self.batch_size) / self.accumulate)

    def order(self, epoch: int) -> list[int]:
        """A permutation of the frames."""
        generator = torch.Generator().manual_seed((self.seed * 1_000_003 + epoch) % 2**63)
        return torch.randperm(self.num_frames, generator=generator).tolist()

    def steps(self, epoch: int) -> list[list[list[int]]]:
        """For each step its batches, for each batch its frames."""
        order = self.order(epoch)
        if self.max_edges is None:
            starts = range(0, len(order), self.batch_size)
            batches = [order[start : start + self.batch_size] for start in starts]
        else:
            batches = self._packed(order)
        starts = range(0, len(batches), self.accumulate)
        return [batches[start : start + self.accumulate] for start in starts]

    def _packed(self, order: list[int]) -> list[list[int]]:
        """Fill one batch after the other in the given order."""
        batches: list[list[int]] = []
        total = 0
        for frame in order:
            edges = self.edges[frame]
            if batches and total + edges <= self.max_edges:
                batches[-1].append(frame)
                total += edges
            else:
                batches.append([frame])
                total = edges
        return batches
