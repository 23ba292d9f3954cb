"""Where the compiled plugin lives. Imports nothing heavy: every start of ``lmp`` runs this."""

from __future__ import annotations

import os
import sys
from pathlib import Path

PLUGIN_NAME = "tdnplugin.so"
STAMP_NAME = "tdnplugin.json"


def library_dir() -> Path:
    """Folder of TDN's compiled libraries; the same rule as `tdn.ops.build.library_dir`.

    Written out here since importing `tdn.ops` loads torch, which would add seconds to the start
    of every ``lmp`` on every rank.
    """
    chosen = os.environ.get("TDN_LIB_DIR")
    if chosen:
        return Path(chosen).expanduser().absolute()
    prefix = Path(sys.prefix) / "lib" / "tdn"
    existing = next(folder for folder in (prefix, *prefix.parents) if folder.exists())
    if os.access(existing, os.W_OK):
        return prefix
    data = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(data) / "tdn"


def plugin_dir() -> Path:
    """Folder that LAMMPS searches for ``*plugin.so``."""
    return library_dir() / "lammps"
