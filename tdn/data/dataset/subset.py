"""Frames and graphs of one part of the data: training, validation or test."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from tdn.data.frames import Frame
from tdn.graph import Graph

from .lazy import LazyGraphs
from .permutation import EpochOrder


@dataclass
class Subset:
    """Frames and their graphs, in the same order; those of a streaming set are made when needed.

    Attributes
    ----------
    frames, graphs : sequences of the same length
    total : frames of the whole set, of which a streaming set takes a part in each epoch
    sample : some frames of a set that is too large to be evaluated as a whole
    """

    frames: Sequence[Frame]
    graphs: Sequence[Graph]
    total: int | None = None
    sample: Subset | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        self.total = len(self.frames) if self.total is None else self.total

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def report(self) -> Subset:
        """The subset that errors are reported of: the sample if there is one, else the whole."""
        return self if self.sample is None else self.sample

    def graph(self, position: int) -> Graph:
        """One graph."""
        return self.graphs[position]

    def num_atoms(self, position: int) -> int:
        """Atoms of a frame; of a streaming set without reading it."""
        if isinstance(self.graphs, LazyGraphs):
            return self.graphs.num_atoms(position)
        return self.graphs[position].num_atoms

    def num_edges_estimate(self, position: int) -> int:
        """Edges of a graph; of a streaming set an estimate that does not build it."""
        if isinstance(self.graphs, LazyGraphs):
            return self.graphs.num_edges_estimate(position)
        return self.graphs[position].num_edges

    @property
    def may_have_stress(self) -> bool:
        """Whether a graph has a stress; a streaming set, which is not searched, may."""
        if isinstance(self.graphs, LazyGraphs):
            return True
        return any(g.stress is not None and bool(g.stress.isfinite().any()) for g in self.graphs)

    def start_epoch(self, epoch: int) -> None:
        """Go to the frames of an epoch; without effect where every epoch takes all of them."""
        numbers = getattr(self.frames, "numbers", None)
        if isinstance(numbers, EpochOrder):
            numbers.epoch = epoch
