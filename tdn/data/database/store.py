"""The project's own database of frames: an LMDB file that is read frame by frame.

Keys and values:

    frame<uint64, big-endian>          one frame (`tdn.data.database.record`), counted from zero
    index:atoms:<uint32>               int32: atoms of 65,536 frames
    index:split:<name>:<uint32>        int64: numbers of 65,536 frames of a part
    metadata                           JSON: counts, elements, labels, units, hash, origin

The process keeps next to nothing of it in memory: the file is mapped, so the system's page cache
holds what is used and drops what is not.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from tdn.data.bad_frames import Problems
from tdn.data.frames import Frame
from tdn.system.errors import TDNError
from tdn.system.printable import printable

from .lmdb_file import LmdbFile
from .record import decode_frame

FORMAT = "tdn-frames"
FORMAT_VERSION = 1
CHUNK = 65536
# chunks of indices that are kept in memory, 0.25 or 0.5 MiB each
MAX_CHUNKS = 32
METADATA_KEY = b"metadata"


def frame_key(index: int) -> bytes:
    """The key of a frame, counted from zero."""
    return b"frame" + index.to_bytes(8, "big")


def index_key(name: str, chunk: int) -> bytes:
    """The key of one chunk of an index: ``atoms`` or ``split:train`` and so on."""
    return f"index:{name}:".encode() + chunk.to_bytes(4, "big")


class FrameStore:
    """A database of frames, opened for reading; see the module for its layout.

    Instances may be copied to worker processes.

    Raises
    ------
    TDNError
        If the file is missing, damaged or of another kind.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._file = LmdbFile.open(self.path)
        self.metadata: dict[str, Any] = _read_metadata(self._file, self.path)
        self._length = int(self.metadata["frames"])
        self._chunks: OrderedDict[tuple[str, int], np.ndarray] = OrderedDict()

    @staticmethod
    def recognizes(path: str | Path) -> bool:
        """Whether an LMDB file is a database of this kind."""
        value = LmdbFile.open(path).get(METADATA_KEY)
        return value is not None and value[:1] == b"{" and FORMAT.encode() in value[:200]

    def __len__(self) -> int:
        return self._length

    def frame(self, index: int) -> Frame:
        """One frame, counted from zero.

        Raises
        ------
        TDNError
            If its record is missing or damaged.
        """
        data = self._file.get(frame_key(index))
        if data is None:
            raise TDNError(f"frame {index + 1} of {self.path.name} is missing; write it again")
        frame = decode_frame(data, index + 1, self.path.name)
        if frame.neighbors is None:
            return frame
        neighbors = replace(frame.neighbors, cutoff=self.metadata["cutoff"])
        return replace(frame, neighbors=neighbors)

    def num_atoms(self, index: int) -> int:
        """Atoms of a frame, without reading it."""
        return int(self._chunk("atoms", index // CHUNK, "<i4")[index % CHUNK])

    def _chunk(self, name: str, chunk: int, dtype: str) -> np.ndarray:
        found = self._chunks.get((name, chunk))
        if found is None:
            data = self._file.get(index_key(name, chunk))
            if data is None:
                raise TDNError(f"{self.path} lacks a part of its index; write it again")
            found = self._chunks[name, chunk] = np.frombuffer(data, dtype)
            if len(self._chunks) > MAX_CHUNKS:
                self._chunks.popitem(last=False)
        self._chunks.move_to_end((name, chunk))
        return found

    @property
    def splits(self) -> dict[str, int]:
        """Frames of each part that the file names; empty if it names none."""
        return dict(self.metadata["splits"])

    def split(self, name: str) -> StoredIndex:
        """The numbers of the frames of a part, in increasing order."""
        return StoredIndex(self, name, self.splits.get(name, 0))

    def iterate(self, problems: Problems | None = None) -> Iterator[Frame]:
        """All frames in order, with the part that each belongs to.

        Raises
        ------
        TDNError
            For a damaged record, unless ``problems`` skips those.
        """
        problems = problems or Problems()
        codes = np.zeros(len(self), dtype=np.int8)
        names = list(self.splits)
        for code, name in enumerate(names, start=1):
            for block in self.split(name).blocks():
                codes[block] = code
        for index in range(len(self)):
            try:
                frame = self.frame(index)
            except TDNError as error:
                problems.add("damaged record", str(error))
                continue
            part = names[codes[index] - 1] if codes[index] else None
            yield frame if frame.split == part else replace(frame, split=part)


class StoredIndex(Sequence[int]):
    """A list of frame numbers that stays in the file."""

    def __init__(self, store: FrameStore, name: str, length: int) -> None:
        self._store, self._name, self._length = store, name, length

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, position: int) -> int:
        position = int(position)
        if not 0 <= position < self._length:
            raise IndexError(position)
        return int(self._block(position // CHUNK)[position % CHUNK])

    def _block(self, chunk: int) -> np.ndarray:
        return self._store._chunk(f"split:{self._name}", chunk, "<i8")

    def blocks(self) -> Iterator[np.ndarray]:
        """The numbers, 65,536 at a time."""
        for chunk in range(-(-self._length // CHUNK)):
            yield self._block(chunk)


def _read_metadata(file: LmdbFile, path: Path) -> dict[str, Any]:
    value = file.get(METADATA_KEY)
    try:
        metadata = json.loads(value or b"null")
    except ValueError:
        metadata = None
    if not (isinstance(metadata, dict) and metadata.get("format") == FORMAT):
        raise TDNError(f"{path} is no database of frames; tdn-data convert writes one")
    if metadata.get("format_version") != FORMAT_VERSION:
        raise TDNError(
            f"{path} has format version {printable(metadata.get('format_version'))}, this program "
            f"reads {FORMAT_VERSION}; convert the original data again"
        )
    return metadata
