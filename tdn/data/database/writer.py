"""Writing the project's database of frames (`tdn.data.database.store`) in one pass."""

from __future__ import annotations

import hashlib
import json
import random
from array import array
from collections import defaultdict
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
from ase.data import chemical_symbols

from tdn.data.frames import Frame, StoredNeighbors
from tdn.data.statistics import is_isolated_atom
from tdn.graph import neighbor_list
from tdn.system.atomic_files import atomic_write
from tdn.system.errors import TDNError
from tdn.system.version import __version__

from .record import encode_frame
from .store import CHUNK, FORMAT, FORMAT_VERSION, METADATA_KEY, frame_key, index_key

# frames per transaction; pages that are not yet on the disk stay in memory until then
COMMIT_FRAMES = 4096
# address space reserved for the file; the file itself is only as long as its content
MAP_SIZE = 2**42
# an atom with images closer than this (angstrom) is isolated for no model, unless it is named so
SMALLEST_CUTOFF = 2.0
# frames remembered per element, so that samples of a large file contain every element
EXAMPLES = 16


class _Index:
    """A growing list of numbers that is written in chunks."""

    def __init__(self, put, name: str, dtype: str) -> None:
        self._put, self._name, self._dtype = put, name, dtype
        self._pending = array("q")
        self._chunks = 0
        self.length = 0

    def append(self, value: int) -> None:
        self._pending.append(value)
        self.length += 1
        if len(self._pending) == CHUNK:
            self.flush()

    def flush(self) -> None:
        if self._pending:
            data = np.array(self._pending, dtype=self._dtype).tobytes()
            self._put(index_key(self._name, self._chunks), data)
            self._chunks += 1
            del self._pending[:]


class StoreWriter:
    """Write frames to a new database; use it as a context manager.

    Nothing is left at ``path`` unless the block succeeds.

    Parameters
    ----------
    path : the file to write
    cutoff : store the neighbour list within this distance (angstrom) with every frame
    trajectory_split : fractions of trajectories for training and validation, the rest for tests,
        chosen as the authors of PubChemQCR do (Python's shuffle with seed 42)
    origin : what the metadata say about where the frames come from
    """

    def __init__(
        self,
        path: str | Path,
        cutoff: float | None = None,
        trajectory_split: tuple[float, float] | None = None,
        origin: dict[str, Any] | None = None,
    ) -> None:
        self.path = Path(path)
        self.cutoff = cutoff
        self.trajectory_split = trajectory_split
        self.origin = origin or {}
        self.count = 0
        self._atoms = 0
        self._edges = 0
        self._elements: dict[int, list] = {}  # atoms, frames, examples
        self._labels = {"energy": 0, "forces": 0, "stress": 0}
        self._periodicity: dict[str, int] = defaultdict(int)
        self._single: list[int] = []
        self._group: str | None = None
        self._starts = array("q")  # first frame of every trajectory
        self._splits: dict[str, _Index] = {}
        self._hash = hashlib.blake2b(digest_size=16)
        self._stack = ExitStack()

    def __enter__(self) -> StoreWriter:
        temporary = self._stack.enter_context(atomic_write(self.path))
        self._env = lmdb.open(
            str(temporary), subdir=False, lock=False, map_size=MAP_SIZE, sync=False, metasync=False
        )
        self._txn = self._env.begin(write=True)
        self._num_atoms = _Index(self._put, "atoms", "<i4")
        return self

    def __exit__(self, kind, error, trace) -> bool | None:
        with self._stack:  # renames the file, or removes it if an exception passes through
            try:
                if kind is None:
                    self._finish()
            finally:
                self._env.close()  # also gives up what was not committed
            if error is not None:
                raise error
        return None

    def _put(self, key: bytes, value: bytes) -> None:
        try:
            self._txn.put(key, value)
        except Exception as error:  # lmdb's errors: a full disk, a map that is too small
            raise TDNError(f"cannot write {self.path}: {error}") from None

    def add(self, frame: Frame) -> None:
        """Write one frame.

        Raises
        ------
        TDNError
            If it cannot be written, or its neighbour list cannot be built.
        """
        atoms, index = frame.atoms, self.count
        neighbors = None
        if self.cutoff is not None:
            edges, shift = neighbor_list(atoms.positions, atoms.cell.array, atoms.pbc, self.cutoff)
            if len(shift) and np.abs(shift).max() > np.iinfo(np.int16).max:
                raise TDNError(f"{frame.where}: an atom is too far outside its cell; wrap it")
            neighbors = StoredNeighbors(edges, shift, self.cutoff)
            self._edges += edges.shape[1]
        data = encode_frame(frame, neighbors)
        self._put(frame_key(index), data)
        self._hash.update(data)
        self._num_atoms.append(len(atoms))
        self._count(frame, index)
        self.count += 1
        if self.count % COMMIT_FRAMES == 0:
            self._commit()

    def _commit(self) -> None:
        self._txn.commit()
        self._txn = self._env.begin(write=True)

    def _count(self, frame: Frame, index: int) -> None:
        atoms = frame.atoms
        self._atoms += len(atoms)
        for number, count in zip(*np.unique(atoms.numbers, return_counts=True), strict=True):
            entry = self._elements.setdefault(int(number), [0, 0, []])
            entry[0] += int(count)
            entry[1] += 1
            if len(entry[2]) < EXAMPLES:
                entry[2].append(index)
        for name in self._labels:
            self._labels[name] += getattr(frame, name) is not None
        self._periodicity["".join("abc"[i] for i in range(3) if atoms.pbc[i]) or "none"] += 1
        if is_isolated_atom(frame, SMALLEST_CUTOFF):
            self._single.append(index)
        if frame.group is None or frame.group != self._group:
            self._starts.append(index)
            self._group = frame.group
        if self.trajectory_split is None and frame.split is not None:
            self._split(frame.split).append(index)

    def _split(self, name: str) -> _Index:
        if name not in self._splits:
            self._splits[name] = _Index(self._put, f"split:{name}", "<i8")
        return self._splits[name]

    def _finish(self) -> None:
        if not self.count:
            raise TDNError(f"no frame is left to write; {self.path} was not written")
        if self.trajectory_split is not None:
            self._split_trajectories(*self.trajectory_split)
        for index in (self._num_atoms, *self._splits.values()):
            index.flush()
        metadata = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "tdn_version": __version__,
            "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "units": {"energy": "eV", "length": "angstrom", "stress": "eV/angstrom^3"},
            "frames": self.count,
            "atoms": self._atoms,
            "trajectories": len(self._starts),
            "elements": {
                chemical_symbols[number]: {"atoms": a, "frames": f, "examples": examples}
                for number, (a, f, examples) in sorted(self._elements.items())
            },
            "labels": self._labels,
            "periodicity": dict(self._periodicity),
            "single_atoms": self._single,
            "splits": {name: index.length for name, index in self._splits.items()},
            "cutoff": self.cutoff,
            "neighbors_per_atom": self._edges / self._atoms if self.cutoff else None,
            "hash": self._hash.hexdigest(),
            "origin": self.origin,
        }
        self._put(METADATA_KEY, json.dumps(metadata).encode())
        self._txn.commit()
        self._env.sync(True)

    def _split_trajectories(self, train: float, valid: float) -> None:
        """Whole trajectories to each part, in the way of the authors of PubChemQCR."""
        ends = [*self._starts[1:], self.count]
        part = trajectory_parts(len(ends), train, valid)
        for start, end, name in zip(self._starts, ends, part, strict=True):
            index = self._split(name)
            for number in range(start, end):
                index.append(number)


def trajectory_parts(count: int, train: float, valid: float, seed: int = 42) -> Sequence[str]:
    """The part that each trajectory belongs to, as the code of PubChemQCR's paper assigns it.

    The numbers of all trajectories are shuffled by Python's generator with the seed 42; the first
    80 % are for training, the next 10 % for validation, the rest for tests.

    Source: divelab/AIRS, OpenMol/TDN, ``initialize_datasets``; arXiv 2506.23008.
    """
    order = list(range(count))
    random.Random(seed).shuffle(order)
    num_train, num_valid = int(train * count), int(valid * count)
    parts = ["test"] * count
    for position, trajectory in enumerate(order[: num_train + num_valid]):
        parts[trajectory] = "train" if position < num_train else "valid"
    return parts
