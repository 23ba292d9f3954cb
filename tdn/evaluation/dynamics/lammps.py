"""Runs in LAMMPS with ``pair_style tdn``: input, programs, samples."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import ase
import ase.io
import numpy as np
from ase.calculators.lammps import Prism
from ase.io.lammpsdata import write_lammps_data

from tdn.system.atomic_files import atomic_write
from tdn.system.errors import TDNError
from tdn.system.programs import Program, find_program, last_error, run_programs

from .plan import BAROSTAT, THERMOSTAT, Plan, Sample, Trajectory

# bar
GIGAPASCAL = 1e4
# exit code of a run that has ended, in its folder
ENDED = "exit_code"
# room around a molecule, in angstrom
VACUUM = 5.0

HEAD = """\
units           metal
atom_style      atomic
atom_modify     map yes
boundary        {boundary}
read_data       {data}
pair_style      tdn
pair_coeff      * * "{model}" {elements}
timestep        {timestep:.6g}
neighbor        1.0 bin
neigh_modify    every 1 delay 0 check yes
thermo          {every}
thermo_style    custom step temp pe etotal press vol
thermo_modify   norm no flush yes
"""
COMMITTEE = """\
fix             deviation all pair {every} tdn force_deviation 1
"""
HALT = """\
compute         worst all reduce max f_deviation
variable        worst equal c_worst
fix             stop all halt {every} v_worst > {limit:.6g} error hard
"""
SEGMENT = """\
fix             bath all langevin {start:g} {end:g} {damping:g} {seed}
run             {steps}
unfix           bath
"""
DUMPED_SEGMENT = """\
dump            {number} all custom {every} {number}.dump id element x y z{deviation}
dump_modify     {number} sort id element {elements} format float %.10g flush yes
{segment}undump          {number}
"""


def elements_of(atoms: ase.Atoms) -> list[str]:
    """The elements in the order of LAMMPS's atom types here."""
    return sorted(set(atoms.get_chemical_symbols()))


def write_start(path: Path, atoms: ase.Atoms) -> str:
    """A data file of a structure; the boundary that goes with it."""
    start = ase.Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
    if not start.pbc.all():
        start.center(vacuum=VACUUM, axis=np.flatnonzero(~start.pbc))
    start.wrap()
    write_lammps_data(
        path,
        start,
        prismobj=Prism(start.get_cell(), pbc=start.pbc),
        specorder=elements_of(start),
        masses=True,
        units="metal",
    )
    return _boundary(atoms)


def _boundary(atoms: ase.Atoms) -> str:
    return " ".join("p" if periodic else "m" for periodic in atoms.pbc)


def input_script(plan: Plan, boundary: str, model: str, committee: bool) -> str:
    """The input of a run; its data file is ``start.data``."""
    elements = " ".join(elements_of(plan.atoms))
    first = plan.segments[0].start
    lines = HEAD.format(
        boundary=boundary,
        data="start.data",
        model=model,
        elements=elements,
        timestep=1e-3 * plan.timestep,
        every=plan.every,
    )
    lines += f"velocity        all create {first:g} {plan.seed} mom yes rot no dist gaussian\n"
    if committee:
        lines += COMMITTEE.format(every=plan.every)
    if plan.limit is not None:
        lines += HALT.format(every=plan.every, limit=plan.limit)
    if plan.pressure is None:
        lines += "fix             move all nve\n"
    else:
        bar = GIGAPASCAL * plan.pressure
        lines += f"fix             move all nph iso {bar:g} {bar:g} {BAROSTAT:g}\n"
    for number, segment in enumerate(plan.segments):
        text = SEGMENT.format(
            start=segment.start,
            end=segment.end,
            damping=THERMOSTAT,
            seed=plan.seed + number,
            steps=segment.steps,
        )
        if segment.kind is not None:
            text = DUMPED_SEGMENT.format(
                number=number,
                every=plan.every,
                deviation=" f_deviation" if committee else "",
                elements=elements,
                segment=text,
            )
        lines += text
    return lines


def run_in_lammps(
    plans: Sequence[Plan],
    model: Path,
    folder: Path,
    committee: bool = True,
    at_once: int = 1,
    threads: int | None = None,
    watch: Callable[[], None] = lambda: None,
) -> list[Trajectory]:
    """Run plans, some at the same time, each in a folder of its name.

    A run that has ended there before, with the same input, is not repeated.

    Parameters
    ----------
    model : compiled file
    committee : whether it holds several networks
    at_once, threads, watch : as for `tdn.system.programs.run_programs`

    Raises
    ------
    TDNError
        If LAMMPS or the plugin is missing, or a run ends before its first step.
    """
    lmp = find_program("lmp")
    programs, marks = [], []
    for plan in plans:
        here = folder / plan.name
        here.mkdir(parents=True, exist_ok=True)
        boundary = _boundary(plan.atoms)
        script = input_script(plan, boundary, str(model.absolute()), committee)
        mark = here / ENDED
        if mark.exists() and (here / "in.run").read_text() == script:
            continue
        for old in (*here.glob("*.dump"), here / "log.lammps", mark):
            old.unlink(missing_ok=True)
        write_start(here / "start.data", plan.atoms)
        (here / "in.run").write_text(script)
        command = (lmp, "-in", "in.run", "-log", "none")
        programs.append(Program(command, (here / "log.lammps").absolute(), here))
        marks.append(mark)

    def ended(index: int, code: int) -> None:
        with atomic_write(marks[index]) as temporary:
            temporary.write_text(str(code))

    run_programs(programs, at_once, threads, watch, ended)
    folders = [folder / plan.name for plan in plans]
    return [
        read_run(plan, here, int((here / ENDED).read_text()))
        for plan, here in zip(plans, folders, strict=True)
    ]


def read_run(plan: Plan, folder: Path, code: int = 0) -> Trajectory:
    """The samples that a run left, and how it ended.

    Raises
    ------
    TDNError
        If it did not reach its first step.
    """
    result = Trajectory(plan)
    log = folder / "log.lammps"
    text = log.read_text(errors="replace") if log.exists() else ""
    loops = re.findall(r"Loop time of (\S+) on \d+ procs for (\d+) steps with (\d+) atoms", text)
    if loops:
        seconds, steps, atoms = map(float, loops[-1])
        result.seconds_per_atom_step = seconds / (steps * atoms) if steps else None
    if code != 0:
        reason = last_error(log)
        if "Step" not in text:
            if "pair style 'tdn'" in reason:
                reason = "it does not know pair_style tdn; for the reason run: tdn-lammps info"
            (folder / ENDED).unlink(missing_ok=True)  # the next attempt tries again
            raise TDNError(f"LAMMPS ended before its first step: {reason} (see {log})")
        result.broken = reason
    for number, segment in enumerate(plan.segments):
        path = folder / f"{number}.dump"
        if segment.kind is not None and path.exists() and path.stat().st_size:
            result.samples += _read_dump(path, segment.kind, plan.atoms)
    result.keep_sane()
    return result


def _read_dump(path: Path, kind: str, start: ase.Atoms) -> list[Sample]:
    samples = []
    for frame in _whole_frames(path):
        if len(frame) != len(start):  # atoms were lost; LAMMPS stops next
            break
        deviation = frame.arrays.get("f_deviation")
        atoms = ase.Atoms(frame.numbers, frame.positions, cell=frame.cell, pbc=start.pbc)
        if not start.pbc.any():
            atoms.cell[:] = 0.0
        if not np.isfinite(atoms.positions).all():
            break
        worst = float("nan") if deviation is None else float(np.max(deviation))
        samples.append(Sample(atoms, kind, worst))
    return samples


def _whole_frames(path: Path) -> list[ase.Atoms]:
    """Frames of a dump whose end may be missing."""
    text = path.read_text(errors="replace")
    parts = text.split("ITEM: TIMESTEP")[1:]
    frames = []
    for part in parts:
        lines = part.splitlines()
        try:
            count = int(lines[lines.index("ITEM: NUMBER OF ATOMS") + 1])
            first = next(i for i, line in enumerate(lines) if line.startswith("ITEM: ATOMS"))
        except (ValueError, StopIteration, IndexError):
            break
        if len(lines) - first - 1 < count:
            break
        frames.append(_frame("ITEM: TIMESTEP" + part))
    return frames


def _frame(text: str) -> ase.Atoms:
    from io import StringIO

    return ase.io.read(StringIO(text), format="lammps-dump-text")
