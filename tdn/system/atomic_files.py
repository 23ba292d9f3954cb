"""Writing files so that nothing is lost: to a temporary name first, then renamed."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .errors import TDNError


def check_writable(path: str | Path) -> None:
    """Raise `TDNError` if a file at ``path`` could not be written (before hours of work)."""
    folder = Path(path).expanduser().absolute().parent
    if not folder.is_dir():
        raise TDNError(f"cannot write {path}: the folder {folder} does not exist; create it first")
    path = Path(path).expanduser()
    if path.is_dir():
        raise TDNError(f"cannot write {path}: it is a folder; give the name of a file")
    if path.exists() and not path.is_file():
        # a file renamed onto a device or a pipe would replace it
        raise TDNError(f"cannot write {path}: it is a device or a pipe; give the name of a file")
    if not os.access(folder, os.W_OK):
        raise TDNError(f"cannot write {path}: no permission to write in {folder}")


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Give a temporary path beside ``path``; rename it to ``path`` when the block succeeds.

    The temporary file keeps the suffixes of ``path``, since some writers choose the format by
    them. When the block fails, the temporary file is removed and an older ``path`` stays as it
    was.

    Raises
    ------
    TDNError
        If the folder does not exist or cannot be written.
    """
    path = Path(path).expanduser()
    check_writable(path)
    if path.is_symlink():  # what it points to is replaced, not the link
        path = path.resolve()
        check_writable(path)
    try:
        handle, name = tempfile.mkstemp(
            prefix=".tmp-", suffix="-" + path.name, dir=path.absolute().parent
        )
    except OSError as error:
        raise TDNError(f"cannot write {path}: {error.strerror or error}") from error
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        os.replace(temporary, path)
    except OSError as error:
        raise TDNError(f"cannot write {path}: {error.strerror or error}") from error
    except RuntimeError as error:
        if "inline_container" not in str(error):  # how torch.save says that a write failed
            raise
        raise TDNError(f"cannot write {path}: could not write all of it; disk full?") from error
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: str | Path, values: dict[str, Any]) -> None:
    """Write plain values as indented JSON."""
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(values, indent=2) + "\n")
