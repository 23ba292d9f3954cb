"""Where compiled libraries live.

No module of this package that loads torch may be imported here: every start of ``lmp``, on every
rank, runs this to find the plugin.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from .wheel import LIBRARIES, torch_misfit, wheel

OPS_LIBRARY = "libtdn_ops.so"


def library_dir() -> Path:
    """Folder of the compiled operators.

    ``$TDN_LIB_DIR`` if set, else that of the wheel if it was built for this PyTorch, else
    :func:`build_output_dir`.
    """
    return LIBRARIES if uses_wheel() else build_output_dir()


def uses_wheel() -> bool:
    """Whether the operators in use are those of the wheel."""
    return not os.environ.get("TDN_LIB_DIR") and wheel() is not None and not torch_misfit()


def build_output_dir() -> Path:
    """Folder of libraries that are compiled here; the plugin for LAMMPS has one inside.

    ``$TDN_LIB_DIR`` if set, else ``lib/tdn`` of the Python environment, else (where that is not
    writable) ``tdn`` in the user's data folder.
    """
    configured = os.environ.get("TDN_LIB_DIR")
    if configured:
        return Path(configured).expanduser().resolve()
    in_environment = Path(sys.prefix) / "lib" / "tdn"
    if (in_environment / OPS_LIBRARY).is_file() or _writable(in_environment):
        return in_environment
    data = os.environ.get("XDG_DATA_HOME")
    return (Path(data) if data else Path.home() / ".local" / "share") / "tdn"


def _writable(directory: Path) -> bool:
    while not directory.exists():
        directory = directory.parent
    return os.access(directory, os.W_OK)
