"""Frames and graphs that are made when they are asked for."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch

from tdn.data.database.store import FrameStore
from tdn.data.frames import Frame
from tdn.data.graphs import graph_from_frame
from tdn.graph import Graph
from tdn.system.errors import TDNError

# bytes that a graph and its ten tensors take beside their numbers
GRAPH_OVERHEAD = 5000


class LazyFrames(Sequence[Frame]):
    """Frames of a database, read one by one.

    Parameters
    ----------
    numbers : which frames of the database, counted from zero
    """

    def __init__(self, store: FrameStore, numbers: Sequence[int]) -> None:
        self.store, self.numbers = store, numbers

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, position):
        if isinstance(position, slice):
            return [self[i] for i in range(*position.indices(len(self)))]
        if position < 0:
            position += len(self)
        return self.store.frame(int(self.numbers[position]))


class GraphCache:
    """The graphs that were used last, up to a number of bytes; one per process."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.size = 0
        self._graphs: OrderedDict[int, tuple[Graph, int]] = OrderedDict()

    def get(self, number: int) -> Graph | None:
        found = self._graphs.get(number)
        if found is None:
            return None
        self._graphs.move_to_end(number)
        return found[0]

    def put(self, number: int, graph: Graph) -> None:
        values = (value for value in vars(graph).values() if isinstance(value, torch.Tensor))
        size = GRAPH_OVERHEAD + sum(value.nbytes for value in values)
        if size > self.limit:
            return
        self._graphs[number] = (graph, size)
        self.size += size
        while self.size > self.limit:
            _, (_, freed) = self._graphs.popitem(last=False)
            self.size -= freed

    def __reduce__(self):
        return GraphCache, (self.limit,)  # another process starts with an empty one


class LazyGraphs(Sequence[Graph]):
    """Graphs of `LazyFrames`, built when they are asked for and kept while the cache has room.

    Parameters
    ----------
    atomic_numbers : of the model's species
    r_max : cutoff in angstrom
    cache_bytes : size of the cache
    neighbors_per_atom : mean, for estimates of the number of edges
    """

    def __init__(
        self,
        frames: LazyFrames,
        atomic_numbers: list[int],
        r_max: float,
        cache_bytes: int = 0,
        neighbors_per_atom: float = 1.0,
    ) -> None:
        self.frames = frames
        self.atomic_numbers, self.r_max = atomic_numbers, r_max
        self.neighbors_per_atom = neighbors_per_atom
        self._cache = GraphCache(cache_bytes)

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, position):
        if isinstance(position, slice):
            return [self[i] for i in range(*position.indices(len(self)))]
        if position < 0:
            position += len(self)
        return self.of_number(int(self.frames.numbers[position]))

    def of_number(self, number: int) -> Graph:
        """The graph of a frame of the database, counted from zero.

        Raises
        ------
        TDNError
            If its record is damaged or it has no labels at all.
        """
        graph = self._cache.get(number)
        if graph is None:
            try:
                frame = self.frames.store.frame(number)
                graph = graph_from_frame(frame, self.atomic_numbers, self.r_max)
            except TDNError as error:
                raise TDNError(
                    f"{error} (tdn-data check finds all such frames, tdn-data convert leaves "
                    "them out)"
                ) from None
            self._cache.put(number, graph)
        return graph

    def num_atoms(self, position: int) -> int:
        """Atoms of a frame, without reading it."""
        return self.frames.store.num_atoms(int(self.frames.numbers[position]))

    def num_edges_estimate(self, position: int) -> int:
        """About how many edges a graph has, without building it."""
        return round(self.num_atoms(position) * self.neighbors_per_atom)
