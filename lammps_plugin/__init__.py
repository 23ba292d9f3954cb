"""TDN in LAMMPS: building the plugin of ``pair_style tdn`` and running LAMMPS from Python.

`lammps` and `load_mpi` make the Python module of LAMMPS work with the MPI of the environment,
`run_lmp` runs the program. Loaded on first use: LAMMPS imports this package at every start.
"""

from __future__ import annotations

__all__ = ["lammps", "load_mpi", "run_lmp"]


def __getattr__(name: str):
    if name in __all__:
        from . import runtime

        return getattr(runtime, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
