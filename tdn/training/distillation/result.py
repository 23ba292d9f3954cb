"""The files that a run leaves: models, an input for LAMMPS, the report."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from tdn.data import read_frames
from tdn.data.frames import Frame
from tdn.evaluation.comparison.cli import crystals_among
from tdn.evaluation.comparison.compare import Subjects, compare
from tdn.evaluation.comparison.dynamics import Case
from tdn.evaluation.comparison.report import as_text, write_report
from tdn.evaluation.comparison.section import Pair, Section
from tdn.evaluation.dynamics.lammps import elements_of, write_start
from tdn.evaluation.dynamics.plan import THERMOSTAT, sensible_timestep
from tdn.evaluation.teachers.calculator import ExternalCalculator
from tdn.inference.calculator import TDNCalculator
from tdn.system.atomic_files import atomic_write

from .candidates import HELD_OUT
from .committee import Committee, export
from .exploration import words_of_solids
from .held_out import HeldOut, visit
from .loop import Distillation
from .matter import is_molecular
from .progress import say, warn

EXAMPLE = """\
# {temperature:g} K with the distilled potential: lmp -in in.example
# (mpiexec -n 4 lmp -in in.example; or -var temperature 900 -var steps 50000)

variable        temperature index {temperature:g}
variable        steps index 10000

units           metal
atom_style      atomic
atom_modify     map yes
boundary        {boundary}
read_data       start.data

pair_style      tdn
pair_coeff      * * model.tdn.pth {elements}

timestep        {timestep:g}
neighbor        1.0 bin
neigh_modify    every 1 delay 0 check yes

velocity        all create ${{temperature}} 2719 mom yes rot no dist gaussian
fix             move all nve
fix             bath all langevin ${{temperature}} ${{temperature}} {damping:g} 4711

thermo          100
thermo_style    custom step temp pe etotal press vol
run             ${{steps}}
"""
# steps of the teacher's dynamics below which g(r) says nothing
FEWEST_STEPS = 100
# those of a slow teacher; a fast one does more in some seconds, for some picoseconds at most
USUAL_STEPS = 600
FAST_SECONDS, FAST_PICOSECONDS = 30.0, 10.0
EQUILIBRATION = 0.25  # steps before the sampled ones, of these
EVERY = 5


def write_result(whole: Distillation, committee: Committee) -> None:
    """Everything at the top of the folder.

    Raises
    ------
    TDNError
        If a file cannot be written or an evaluation fails.
    """
    top = whole.folder.path
    mark, done = top / "report.done", f"{committee.folder.name} {whole.config.report}"
    if mark.exists() and mark.read_text() == done:
        say(f"this run is finished: {top / 'report.html'}")
        return
    _copy(committee.models[committee.best], top / "model.pt")
    _copy(committee.compiled, top / "committee.tdn.pth")
    export([top / "model.pt"], top / "model.tdn.pth")
    (top / "export.log").unlink()
    _write_example(whole)
    found = visit(whole, committee)
    whole.label(found.candidates, HELD_OUT + int(committee.folder.name[-2:]), "held-out: labels")
    _write_report(whole, committee, found)
    mark.write_text(done)
    say(f"\nreport: {top / 'report.html'}\nnext: cd {top} && lmp -in in.example")


def _write_example(whole: Distillation) -> None:
    top, rounds, atoms = whole.folder.path, whole.config.rounds, whole.structures[0]
    boundary = write_start(top / "start.data", atoms)
    with atomic_write(top / "in.example") as temporary:
        temporary.write_text(
            EXAMPLE.format(
                temperature=min(rounds.temperatures),
                boundary=boundary,
                elements=" ".join(elements_of(atoms)),
                timestep=1e-3 * (rounds.timestep or sensible_timestep(atoms)),
                damping=THERMOSTAT,
            )
        )


def _write_report(whole: Distillation, committee: Committee, found: HeldOut) -> None:
    """Teacher against student; what cannot be computed is left out with its reason."""
    top, config = whole.folder.path, whole.config
    teacher = ExternalCalculator(whole.teacher_for_report, whole.folder.teacher / "report")
    student = TDNCalculator(top / "model.tdn.pth")
    structures = [f.atoms for name in _names(config.seeds.structures) for f in read_frames(name)]
    solids = [atoms for atoms in structures if not is_molecular(atoms)]
    tests = whole.labels.frames(split="test")
    training = whole.labels.frames()
    subjects = Subjects(
        crystals=crystals_among(solids) if config.report.crystals else {},
        frames=tests,
        cases=_cases(whole, found),
        atoms=whole.structures[0],
        model=top / "model.tdn.pth" if config.rounds.engine == "lammps" else None,
        committee=TDNCalculator(top / "committee.tdn.pth"),
        exact=TDNCalculator(top / "model.pt", dtype="float64"),
        training=training,
        temperatures=config.rounds.temperatures,
        solid=list(found.solid),
        threads=whole.jobs,
    )
    pair = Pair(teacher, student, ("teacher", "student"))
    try:
        sections = compare(pair, subjects, lambda title: say(f"report: {title}"))
    finally:
        teacher.close()
    sections.insert(min(1, len(sections)), _history(whole, committee, training))
    labeled, aside = whole.labels.counts()
    summary = (
        f"{', '.join(whole.species)} from {config.teacher.calculator} {whole.teacher['version']}: "
        f"{labeled} labels ({len(tests)} held out"
        + (f", {aside} structures set aside" if aside else "")
        + f"), {whole.budget.used / 60:.0f} minutes."
    )
    if found.solid:
        words = words_of_solids(found.solid, config.rounds)
        warn(f"held-out runs {words}")
        summary += f" Held-out runs {words}."
    write_report(top, f"Distilled: {top.absolute().name}", summary, sections)
    whole.budget.write()
    print(as_text(sections))


def _cases(whole: Distillation, found: HeldOut) -> list[Case]:
    """Dynamics from where the student's own runs ended, as far as the time allows."""
    report = whole.config.report
    if report.teacher_steps == 0 or not found.starts:
        return []
    temperatures = {temperature for temperature, _ in found.starts.values()}
    wanted = report.temperatures or (min(temperatures), max(temperatures))
    chosen = {n: s for n, s in found.starts.items() if s[0] in wanted}
    cost = whole.teacher["seconds_per_atom"] * sum(len(a) for _, a in chosen.values())
    allowed = whole.budget.report_seconds(whole.labels.seconds())
    timesteps = {
        name: whole.config.rounds.timestep or sensible_timestep(atoms)
        for name, (_, atoms) in chosen.items()
    }
    steps = report_steps(report.teacher_steps, cost, allowed, min(timesteps.values()))
    if steps < FEWEST_STEPS:
        warn(
            f"no dynamics of the teacher in the report: {FEWEST_STEPS} steps would take more than "
            f"{allowed:.0f} s; give a larger --budget to have them"
        )
        return []
    return [
        Case(
            name=name,
            start=atoms,
            temperature=temperature,
            timestep=timesteps[name],
            equilibration=int(EQUILIBRATION * steps),
            steps=steps,
            every=EVERY,
        )
        for name, (temperature, atoms) in chosen.items()
    ]


def report_steps(asked: int | None, cost: float, allowed: float, timestep: float) -> int:
    """Sampled steps of each run of the teacher's dynamics.

    Parameters
    ----------
    asked : ``report.teacher_steps``
    cost : seconds of a step of all runs
    allowed : seconds for all of them
    timestep : fs
    """
    cost = max((1 + EQUILIBRATION) * cost, 1e-9)
    if asked is None:
        # the student's runs in ASE may take as long again
        fast = min(FAST_SECONDS, 0.2 * allowed) / cost
        asked = max(USUAL_STEPS, int(min(fast, 1e3 * FAST_PICOSECONDS / timestep)))
    return int(min(asked, allowed / cost))


def _history(whole: Distillation, committee: Committee, training: list[Frame]) -> Section:
    """What each round brought."""
    section = Section(
        "Rounds",
        f"{len(training)} frames for training and validation in the end; all were chosen among "
        "what the committee visited, but for the seeds of the first round.",
        [
            "round",
            "labels",
            "validation forces (meV/Å)",
            "above the bound",
            "chosen",
            "broken runs",
        ],
    )
    number = 0
    while (whole.folder.round(number) / "selection.json").exists():
        here = whole.folder.round(number)
        values = json.loads((here / "selection.json").read_text())
        done = Committee(here, committee.size)
        forces = done.errors("valid")[done.best].get("forces", float("nan"))
        labels = len(whole.labels.frames(number))
        section.rows.append(
            [
                str(number + 1),
                str(labels),
                f"{forces:.1f}",
                f"{100 * values['above'] / max(values['total'], 1):.1f} %",
                str(values["chosen"]),
                str(len(values["broken"])),
            ]
        )
        section.values[str(number + 1)] = {**values, "labels": labels, "forces_meV_per_A": forces}
        number += 1
    forces = committee.errors("valid")[committee.best].get("forces", float("nan"))
    section.rows.append(["last training", str(len(training)), f"{forces:.1f}", "", "", ""])
    return section


def _names(structures: str | tuple[str, ...]) -> list[str]:
    return [structures] if isinstance(structures, str) else list(structures)


def _copy(source: Path, target: Path) -> None:
    with atomic_write(target) as temporary:
        shutil.copyfile(source, temporary)
