"""LMDB files, opened for reading with checks that the library leaves out."""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterator
from pathlib import Path

import lmdb

from tdn.system.errors import TDNError

# the magic number of LMDB (0xBEEFC0DE), after the 16 bytes of a page's header
_MAGIC = bytes.fromhex("dec0efbe")


def is_lmdb(path: Path) -> bool:
    """Whether a file is an LMDB environment, whatever its name."""
    try:
        with open(path, "rb") as file:
            return file.read(20)[16:] == _MAGIC
    except OSError:
        return False


class LmdbFile:
    """One LMDB file for reading; the system's page cache holds what was read, not the process.

    An instance may be used in forked worker processes: nothing in it is written, and no lock file
    is needed. `LmdbFile.open` gives one instance per file and process, as the library demands.

    Raises
    ------
    TDNError
        If the file is missing, no LMDB file or cut short.
    """

    _opened: weakref.WeakValueDictionary[str, LmdbFile] = weakref.WeakValueDictionary()

    def __init__(self, path: Path) -> None:
        self.path = path
        self.signature = _signature(path)
        try:
            self._env = lmdb.open(
                str(path),
                subdir=False,
                readonly=True,
                lock=False,
                readahead=False,
                meminit=False,
            )
        except lmdb.Error as error:
            raise TDNError(f"{path} cannot be opened as LMDB ({error})") from None
        needed = (self._env.info()["last_pgno"] + 1) * self._env.stat()["psize"]
        if path.stat().st_size < needed:
            # reading beyond the end of a mapped file would kill the process
            self._env.close()
            raise TDNError(
                f"{path} is cut short: {path.stat().st_size} of {needed} bytes; copy it again"
            )
        self._txn = self._env.begin()

    @classmethod
    def open(cls, path: str | Path) -> LmdbFile:
        """The file's one instance in this process."""
        path = Path(path)
        if not path.is_file():
            raise TDNError(f"file {path} not found")
        name = os.path.realpath(path)
        found = cls._opened.get(name)
        if found is not None and found.signature != _signature(path):
            found.close()  # it was replaced by another file
            found = None
        if found is None:
            found = cls(path)
            cls._opened[name] = found
        return found

    def __reduce__(self):
        return LmdbFile.open, (self.path,)

    def close(self) -> None:
        """Close the file; whatever still refers to it becomes unusable."""
        self._env.close()

    @property
    def entries(self) -> int:
        """Number of keys."""
        return self._env.stat()["entries"]

    def get(self, key: bytes) -> bytes | None:
        """The value of a key; a copy, which outlives the file."""
        return self._txn.get(key)

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """All keys and values in the order of the keys."""
        yield from self._txn.cursor().iternext()


def _signature(path: Path) -> tuple[int, int, int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
