"""Adding frames to a database one by one, each safe on the disk before the next."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
from ase.data import chemical_symbols

from tdn.data.frames import Frame
from tdn.data.statistics import is_isolated_atom
from tdn.system.atomic_files import check_writable
from tdn.system.errors import TDNError
from tdn.system.version import __version__

from .record import decode_frame, encode_frame
from .store import CHUNK, FORMAT, FORMAT_VERSION, METADATA_KEY, frame_key, index_key
from .writer import EXAMPLES, MAP_SIZE, SMALLEST_CUTOFF


class StoreAppender:
    """A database of frames that grows; other programs read it as any other.

    Every frame is a transaction of LMDB of its own, synchronized with the disk: a process that is
    killed at any time leaves all frames that `append` returned for, and no half of one. One
    process writes at a time.

    The hash in the metadata is a chain here, hash_n = H(hash_(n-1), record_n), which needs no
    earlier record.

    Parameters
    ----------
    path : is created unless it is there
    origin : what the metadata of a new file say about where the frames come from
    """

    def __init__(self, path: str | Path, origin: dict[str, Any] | None = None) -> None:
        self.path = Path(path)
        check_writable(self.path)
        try:
            self._env = lmdb.open(str(self.path), subdir=False, lock=False, map_size=MAP_SIZE)
        except lmdb.Error as error:
            raise TDNError(f"{self.path} cannot be opened as LMDB ({error})") from None
        stored = self.get(METADATA_KEY)
        self.metadata = _empty(origin or {}) if stored is None else json.loads(stored)
        if self.metadata.get("format") != FORMAT:
            raise TDNError(f"{self.path} is no database of frames; choose another name")

    def __len__(self) -> int:
        return int(self.metadata["frames"])

    def __enter__(self) -> StoreAppender:
        return self

    def __exit__(self, *_: object) -> None:
        self._env.close()

    def get(self, key: bytes) -> bytes | None:
        """The value of any key."""
        with self._env.begin() as transaction:
            return transaction.get(key)

    def items(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Keys that begin with ``prefix``, and their values."""
        with self._env.begin() as transaction:
            cursor = transaction.cursor()
            if cursor.set_range(prefix):
                for key, value in cursor:
                    if not key.startswith(prefix):
                        return
                    yield key, value

    def frame(self, index: int) -> Frame:
        """One frame, counted from zero."""
        return decode_frame(self.get(frame_key(index)), index + 1, self.path.name)

    def put(self, key: bytes, value: bytes) -> None:
        """Store a value beside the frames; its key must not begin like theirs."""
        self._write([(key, value)])

    def append(self, frame: Frame, beside: dict[bytes, bytes] | None = None) -> int:
        """Add a frame and, in the same transaction, values beside it.

        Returns
        -------
        int
            Its number, counted from zero.

        Raises
        ------
        TDNError
            If it cannot be written (a full disk); the file is then as before.
        """
        index, data = len(self), encode_frame(frame)
        metadata = _with_frame(self.metadata, frame, index, data)
        entries = [(frame_key(index), data), (METADATA_KEY, json.dumps(metadata).encode())]
        numbers = [("atoms", "<i4", index, len(frame.atoms))]
        if frame.split is not None:
            position = metadata["splits"][frame.split] - 1
            numbers.append((f"split:{frame.split}", "<i8", position, index))
        for name, dtype, position, value in numbers:
            key = index_key(name, position // CHUNK)
            earlier = self.get(key) if position % CHUNK else None
            entries.append((key, (earlier or b"") + np.array([value], dtype).tobytes()))
        self._write([*entries, *(beside or {}).items()])
        self.metadata = metadata
        return index

    def _write(self, entries: list[tuple[bytes, bytes]]) -> None:
        try:
            with self._env.begin(write=True) as transaction:
                for key, value in entries:
                    transaction.put(key, value)
        except lmdb.Error as error:
            raise TDNError(f"cannot write {self.path}: {error}; disk full?") from None


def _empty(origin: dict[str, Any]) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "tdn_version": __version__,
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "units": {"energy": "eV", "length": "angstrom", "stress": "eV/angstrom^3"},
        "frames": 0,
        "atoms": 0,
        "trajectories": 0,
        "elements": {},
        "labels": {"energy": 0, "forces": 0, "stress": 0},
        "periodicity": {},
        "single_atoms": [],
        "splits": {},
        "cutoff": None,
        "neighbors_per_atom": None,
        "hash": "",
        "origin": origin,
    }


def _with_frame(metadata: dict[str, Any], frame: Frame, index: int, data: bytes) -> dict[str, Any]:
    """The metadata with one frame more."""
    new = json.loads(json.dumps(metadata))
    atoms = frame.atoms
    new["frames"] += 1
    new["atoms"] += len(atoms)
    new["trajectories"] += 1
    for number, count in zip(*np.unique(atoms.numbers, return_counts=True), strict=True):
        entry = new["elements"].setdefault(
            chemical_symbols[number], {"atoms": 0, "frames": 0, "examples": []}
        )
        entry["atoms"] += int(count)
        entry["frames"] += 1
        entry["examples"] = [*entry["examples"], index][:EXAMPLES]
    for name in new["labels"]:
        new["labels"][name] += getattr(frame, name) is not None
    axes = "".join("abc"[i] for i in range(3) if atoms.pbc[i]) or "none"
    new["periodicity"][axes] = new["periodicity"].get(axes, 0) + 1
    if is_isolated_atom(frame, SMALLEST_CUTOFF):
        new["single_atoms"].append(index)
    if frame.split is not None:
        new["splits"][frame.split] = new["splits"].get(frame.split, 0) + 1
    new["hash"] = hashlib.blake2b(new["hash"].encode() + data, digest_size=16).hexdigest()
    return new
