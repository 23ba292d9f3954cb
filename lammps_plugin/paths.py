"""Where the compiled plugin lives. Imports nothing heavy: every start of ``lmp`` runs this."""

from __future__ import annotations

import os
import sys
from pathlib import Path

PLUGIN_NAME = "tdnplugin.so"
OPS_LIBRARY_NAME = "libtdn_ops.so"
STAMP_NAME = "tdnplugin.json"


def library_dir() -> Path:
    """Folder of TDN's compiled libraries; the same rule as `tdn.ops.build.library_dir`.

    Written out here since importing `tdn.ops` loads torch, which would add seconds to the start
    of every ``lmp`` on every rank.
    """
    chosen = os.environ.get("TDN_LIB_DIR")
    if chosen:
        return Path(chosen).expanduser().resolve()
    in_environment = Path(sys.prefix) / "lib" / "tdn"
    existing = next(p for p in (in_environment, *in_environment.parents) if p.exists())
    if (in_environment / OPS_LIBRARY_NAME).is_file() or os.access(existing, os.W_OK):
        return in_environment
    data = os.environ.get("XDG_DATA_HOME")
    return (Path(data) if data else Path.home() / ".local" / "share") / "tdn"


def plugin_dir() -> Path:
    """Folder that LAMMPS searches for ``*plugin.so``."""
    return library_dir() / "lammps"
