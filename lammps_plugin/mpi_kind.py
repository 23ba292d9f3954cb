"""Which MPI a LAMMPS uses and which one its plugin would be compiled with: they must be the same.

Handles such as communicators are numbers in MPICH and its relatives and pointers in Open MPI. A
plugin of the other kind ends the run with a segmentation fault.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

from tdn.system.errors import TDNError

OPEN_MPI, MPICH = "Open MPI", "MPICH"
# where a build of LAMMPS leaves what it has made
BUILT = ("build*/lmp*", "build*/liblammps*.so*", "src/lmp_*", "src/liblammps*.so*")


def linked_mpi(program: Path) -> str:
    """The kind of MPI that a program or library is linked with; empty if there is none."""
    found = subprocess.run(["ldd", str(program)], capture_output=True, text=True).stdout
    if re.search(r"\blibmpi(_cxx)?\.so\.(20|40)\b|\blibopen-(rte|pal)", found):
        return OPEN_MPI
    return MPICH if re.search(r"\blibmpi(ch|cxx)?\.so\.\d+", found) else ""


def compiled_mpi() -> tuple[str, str]:
    """The compiler for MPI that CMake finds, and the kind of its MPI; empty where unknown."""
    compiler = shutil.which("mpicxx") or shutil.which("mpic++")
    if compiler is None:
        return "", ""
    command = [compiler, "-E", "-dM", "-x", "c++", "-include", "mpi.h", "/dev/null"]
    macros = subprocess.run(command, capture_output=True, text=True).stdout
    if re.search(r"^#define OPEN_MPI\b", macros, flags=re.MULTILINE):
        return compiler, OPEN_MPI
    return compiler, MPICH if re.search(r"^#define MPICH", macros, flags=re.MULTILINE) else ""


def check_mpi(source: str | Path, program: str | Path | None = None) -> None:
    """Raise unless the LAMMPS of a source tree uses the MPI that its plugin is compiled with.

    Parameters
    ----------
    source : the tree; what was built in it is looked at
    program : the ``lmp`` or ``liblammps.so`` to look at instead

    Raises
    ------
    TDNError
        If the program does not exist, or uses another kind of MPI.
    """
    if program is not None:
        candidates = [Path(program).expanduser()]
        if not candidates[0].is_file():
            raise TDNError(f"--lmp: {program} not found; name the lmp program or liblammps.so")
    else:
        candidates = [path for pattern in BUILT for path in sorted(Path(source).glob(pattern))]
    compiler, ours = compiled_mpi()
    for path in candidates:
        theirs = linked_mpi(path)
        if ours and theirs and ours != theirs:
            raise TDNError(
                f"{path} uses {theirs}, but {compiler} compiles with {ours}; put the mpicxx of "
                f"that {theirs} first on PATH (a virtual environment may bring its own)"
            )
