"""Storage of CP factors: npz files without pickle, shipped folder, user cache, lock."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from tdn.system.atomic_files import atomic_write
from tdn.system.errors import TDNError

try:
    import fcntl
except ImportError:  # Windows: atomic renames still keep files whole, work may be done twice
    fcntl = None

FILE_FORMAT = "tdn-cp-factors"
FILE_VERSION = 1
ARRAYS = ("input1", "input2", "output", "path_coefficients")
SHIPPED = Path(__file__).parent / "shipped"


def cache_folder() -> Path:
    """``$TDN_CACHE_DIR`` or ``~/.cache/tdn``."""
    custom = os.environ.get("TDN_CACHE_DIR")
    return Path(custom).expanduser() if custom else Path.home() / ".cache" / "tdn"


def write_npz(path: Path, arrays: dict[str, np.ndarray], metadata: dict) -> None:
    """Write arrays and JSON metadata; the file appears whole or not at all."""
    record = {"format": FILE_FORMAT, "format_version": FILE_VERSION, **metadata}
    with atomic_write(path) as temporary, open(temporary, "wb") as stream:
        np.savez_compressed(
            stream, metadata=np.array(json.dumps(record)), **{k: arrays[k] for k in ARRAYS}
        )


def read_npz(path: Path) -> tuple[dict[str, np.ndarray], dict]:
    """Read what :func:`write_npz` wrote.

    Raises
    ------
    TDNError
        If the file is missing, damaged, of another kind or of another version.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            metadata = json.loads(str(archive["metadata"]))
            arrays = {name: archive[name] for name in ARRAYS}
    except FileNotFoundError:
        raise TDNError(f"CP factor file {path} does not exist") from None
    except Exception as error:  # numpy and zipfile raise many kinds for a damaged file
        raise TDNError(
            f"{path} is not a readable file of CP factors ({error}); delete it to solve again"
        ) from error
    found = (metadata.get("format"), metadata.get("format_version"))
    if found != (FILE_FORMAT, FILE_VERSION):
        raise TDNError(
            f"{path} has format {found[0]} version {found[1]}, expected {FILE_FORMAT} version "
            f"{FILE_VERSION}; delete it to solve again"
        )
    return arrays, metadata


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock for ``path`` so that only one process solves for it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path.with_name(path.name + ".lock"), "w") as stream:
        if fcntl is not None:
            fcntl.flock(stream, fcntl.LOCK_EX)
        yield  # closing the file releases the lock, also when the process dies
