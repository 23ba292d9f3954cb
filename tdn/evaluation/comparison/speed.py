"""How long both take on this machine, with the same threads."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import ase
import numpy as np
from ase.calculators.calculator import Calculator

from tdn.evaluation.dynamics.lammps import run_in_lammps
from tdn.evaluation.dynamics.plan import Plan, Segment, sensible_timestep
from tdn.system.errors import TDNError

from .section import Pair, Section

# calls that are measured after one that is not; atoms move in between
CALLS, MOVE = 5, 0.01
# steps in LAMMPS
STEPS, FEWEST_ATOMS = 200, 500


def seconds_per_atom(calculator: Calculator, atoms: ase.Atoms) -> float:
    """Of one call for energies and forces; the shortest of several."""
    rng = np.random.default_rng(0)
    work = ase.Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
    work.calc = calculator
    times = []
    for _ in range(CALLS + 1):
        work.positions += MOVE * rng.standard_normal(work.positions.shape)
        start = time.perf_counter()
        work.get_forces()
        times.append(time.perf_counter() - start)
    return min(times[1:]) / len(work)


def lammps_seconds(model: Path, atoms: ase.Atoms, threads: int) -> tuple[float, int]:
    """Seconds per atom and step in LAMMPS, and the atoms of that run.

    Raises
    ------
    TDNError
        If LAMMPS does not run, or no step of it ends.
    """
    work = ase.Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
    if work.pbc.all():
        while len(work) < FEWEST_ATOMS:
            work = work.repeat(2)
    segment = Segment(None, 300.0, 300.0, STEPS)
    plan = Plan("speed", work, (segment,), sensible_timestep(work), STEPS)
    with TemporaryDirectory() as folder:
        # a first run brings files and libraries into memory
        run_in_lammps(
            [replace(plan, segments=(replace(segment, steps=5),), every=5)],
            model,
            Path(folder),
            committee=False,
            threads=threads,
        )
        (run,) = run_in_lammps([plan], model, Path(folder), committee=False, threads=threads)
    if run.seconds_per_atom_step is None:
        raise TDNError(f"the run broke off: {run.broken}")
    return run.seconds_per_atom_step, len(work)


def speed_section(pair: Pair, atoms: ase.Atoms, model: Path | None, threads: int) -> Section:
    """Microseconds per atom and step.

    Parameters
    ----------
    model : the student's compiled file, to be run in LAMMPS too
    threads : of LAMMPS; those of the calculators are as they were made
    """
    section = Section(
        "Speed",
        f"Energies and forces of {len(atoms)} atoms on this machine, {threads} threads of "
        f"{len(os.sched_getaffinity(0))} cores, the shortest of {CALLS} calls.",
        ["", "µs per atom and step"],
    )
    reference, student = (1e6 * seconds_per_atom(c, atoms) for c in pair.both)
    section.rows += [
        [pair.names[0], f"{reference:.4g}"],
        [pair.names[1] + " in ASE", f"{student:.4g}"],
    ]
    section.values = {
        "threads": threads,
        "reference_us_per_atom": reference,
        "student_us_per_atom": student,
        "ratio": reference / student,
    }
    best = student
    if model is not None:
        try:
            seconds, count = lammps_seconds(model, atoms, threads)
        except TDNError as error:
            section.text += f" LAMMPS: {error}."
        else:
            best = 1e6 * seconds
            section.rows.append([f"{pair.names[1]} in LAMMPS ({count} atoms)", f"{best:.4g}"])
            section.values |= {"lammps_us_per_atom": best, "lammps_ratio": reference / best}
    section.rows.append(["ratio", f"{reference / best:.4g}"])
    return section
