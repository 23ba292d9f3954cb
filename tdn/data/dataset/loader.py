"""Batches of graphs, built by worker processes ahead of time where that pays."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence

from torch.utils.data import DataLoader

from tdn.graph import Graph, collate
from tdn.system.errors import TDNError

from .lazy import LazyGraphs

# batches that each worker prepares ahead
PREFETCH = 4


class GraphLoader:
    """Collated batches of a sequence of graphs.

    Graphs that are in memory are put together on the spot. Those of a streaming set are read and
    their neighbour lists built by ``num_workers`` processes, in the order that `plan` announces;
    the result does not depend on their number.

    Parameters
    ----------
    graphs : list or `LazyGraphs`
    num_workers : 0: everything happens in this process
    """

    def __init__(self, graphs: Sequence[Graph], num_workers: int = 0) -> None:
        self.graphs = graphs
        self.num_workers = num_workers if isinstance(graphs, LazyGraphs) else 0
        self._planned: Iterator[list[int]] = iter(())
        self._announced: deque[list[int]] = deque()
        self._results: Iterator | None = None
        self._loader: DataLoader | None = None

    def plan(self, index_lists: Iterable[Sequence[int]]) -> None:
        """Announce the batches that `get` will be asked for, in this order; older plans end."""
        if not self.num_workers:
            return
        self._planned = iter(index_lists)
        self._announced.clear()
        if self._loader is None:
            self._loader = DataLoader(
                _Source(self.graphs),
                batch_sampler=_Sampler(self),
                num_workers=self.num_workers,
                prefetch_factor=PREFETCH,
                persistent_workers=True,
                collate_fn=_as_it_is,
            )
        self._results = iter(self._loader)

    def get(self, indices: Sequence[int]) -> Graph:
        """One batch; from the workers if it is the next of the plan.

        Raises
        ------
        TDNError
            If one of its frames cannot be used.
        """
        if self._announced and self._announced[0] == list(indices):
            self._announced.popleft()
            result = next(self._results)
            if isinstance(result, TDNError):
                raise result
            return result
        return collate([self.graphs[i] for i in indices])

    def batches(self, index_lists: Iterable[Sequence[int]]) -> Iterator[tuple[list[int], Graph]]:
        """Every batch with its indices, one after the other."""
        lists = [list(indices) for indices in index_lists]
        self.plan(lists)
        for indices in lists:
            yield indices, self.get(indices)


class _Sampler:
    """Gives the plan to the data loader, and notes how far the workers are."""

    def __init__(self, loader: GraphLoader) -> None:
        self._loader = loader

    def __iter__(self) -> Iterator[list[int]]:
        loader = self._loader
        for indices in loader._planned:
            loader._announced.append(list(indices))
            # the frames of a position change from epoch to epoch, which workers do not know
            numbers = loader.graphs.frames.numbers
            yield [int(numbers[i]) for i in indices]


class _Source:
    """What the data loader asks in a worker for a batch of frame numbers."""

    def __init__(self, graphs: LazyGraphs) -> None:
        self._graphs = graphs

    def __getitems__(self, numbers: list[int]) -> Graph | TDNError:
        try:
            return collate([self._graphs.of_number(number) for number in numbers])
        except TDNError as error:  # raised in the main process, without a trace of the worker
            return error


def _as_it_is(batch):
    return batch
