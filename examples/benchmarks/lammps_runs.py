"""Short molecular dynamics with ``lmp``, and LAMMPS's own table of where the time went."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from systems import SPECIES, write_data

from tdn.system.errors import TDNError

TIME_LIMIT = 3600.0  # seconds for one start of lmp
# LAMMPS's sections; the last one collects the others
SECTIONS = ("Pair", "Neigh", "Comm", "Other")

SCRIPT = """\
units           metal
atom_style      atomic
boundary        p p p
read_data       {data}
pair_style      tdn {options}
pair_coeff      * * {model} {elements}
velocity        all create 300 1 loop geom
timestep        0.0002
neighbor        1.0 bin
neigh_modify    every 1 delay 0 check yes
fix             move all nve/limit 0.02
thermo          1000000
run             {warm_up}
"""


@dataclass
class Loop:
    """One timed run, in microseconds per atom and step.

    Attributes
    ----------
    total : wall time
    sections : parts of it, by `SECTIONS`
    rebuilds : how often neighbour lists were built
    """

    total: float
    sections: dict[str, float]
    rebuilds: int


def run_dynamics(folder: Path, model: Path, material: str, num_atoms: int, **settings: Any) -> Loop:
    """`run_box` for a box of `systems.write_data`, which is kept in the folder."""
    data = folder / f"{material}_{num_atoms}.data"
    if not data.exists():
        write_data(data, material, num_atoms)
    return run_box(data, model, SPECIES[material], **settings)


def run_box(
    data: Path,
    model: Path,
    elements: Sequence[str],
    *,
    steps: int,
    runs: int = 3,
    warm_up: int = 2,
    threads: int = 1,
    **settings: Any,
) -> Loop:
    """The fastest of some runs that follow each other in one start of LAMMPS.

    From 300 K, 0.2 fs, and the skin of the demo; the time for starting and for the
    ``warm_up`` steps is not counted.

    Parameters
    ----------
    data : file with the atoms; the script is written beside it
    elements : of its types
    settings : ranks, environment, program and arguments of `run_script`

    Raises
    ------
    TDNError
        If LAMMPS or the plugin is missing, or LAMMPS stops with an error, whose line is shown.
    """
    text = SCRIPT.format(
        data=data.resolve(),
        options="",
        model=model.resolve(),
        elements=" ".join(elements),
        warm_up=warm_up,
    )
    # the atoms stand where the last run left them, so nothing has to be set up again
    script = data.with_name(f"in.{data.stem}")
    script.write_text(text + f"run             {steps} pre no\n" * runs)
    loops = read_loops(run_script(script, threads=threads, **settings))[-runs:]
    return min(loops, key=lambda loop: loop.total)


def run_script(
    script: Path,
    ranks: int = 1,
    threads: int | None = None,
    environment: dict[str, str] | None = None,
    program: Path | None = None,
    arguments: Sequence[str] = (),
) -> str:
    """What ``lmp`` prints, run in the folder of a script.

    ``environment`` holds changes to that of LAMMPS, which is ``program`` with these arguments, or
    the one that is installed.

    Raises
    ------
    TDNError
        If LAMMPS or the plugin is missing, or LAMMPS stops with an error, whose line is shown.
    """
    from tdn_lammps import run_lmp

    try:
        done = run_lmp(
            script.name,
            *("-log", "none", *arguments),
            program=program,
            ranks=ranks,
            cwd=script.parent,
            timeout=TIME_LIMIT,
            environment=({} if threads is None else {"OMP_NUM_THREADS": str(threads)})
            | (environment or {}),
        )
    except subprocess.TimeoutExpired:
        raise TDNError(f"lmp did not end within {TIME_LIMIT:g} s") from None
    if done.returncode != 0:
        errors = [line for line in done.stdout.splitlines() if "ERROR" in line]
        lines = errors or done.stdout.strip().splitlines()[-3:]
        raise TDNError(f"lmp failed with exit code {done.returncode}: {' '.join(lines)}")
    return done.stdout


def read_loops(output: str) -> list[Loop]:
    """Every timed run in what LAMMPS printed."""
    loops = []
    for text in output.split("Loop time of ")[1:]:
        head = re.match(r"(\S+) on \d+ procs for (\d+) steps with (\d+) atoms", text)
        if head is None:
            raise TDNError(f"LAMMPS printed no loop time that is understood: {text[:80]!r}")
        scale = 1e6 / max(1, int(head[2])) / int(head[3])
        sections = dict.fromkeys(SECTIONS, 0.0)
        # name | min | average | max | ... ; some have no minimum and maximum
        for name, *columns in re.findall(r"^(\w+)\s*\|([^|]*)\|([^|]*)\|[^|]*\|", text, re.M):
            if name not in ("Section", "Nlocal", "Nghost", "Neighs", "FullNghs"):
                average = float(columns[1])
                sections[name if name in SECTIONS else "Other"] += average * scale
        builds = re.search(r"Neighbor list builds = (\d+)", text)
        loops.append(Loop(float(head[1]) * scale, sections, int(builds[1]) if builds else 0))
    return loops
