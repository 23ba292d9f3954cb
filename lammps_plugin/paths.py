"""Names of the compiled plugin. Imports nothing heavy: every start of ``lmp`` runs this."""

from __future__ import annotations

from pathlib import Path

from tdn.system.paths import library_dir

PLUGIN_NAME = "tdnplugin.so"
STAMP_NAME = "tdnplugin.json"


def plugin_dir() -> Path:
    """Folder that LAMMPS searches for ``*plugin.so``."""
    return library_dir() / "lammps"
