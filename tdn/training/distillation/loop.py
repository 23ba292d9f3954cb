"""The whole run: seeds, rounds of training, exploring, selecting and labeling, and the end."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import ase
import numpy as np
from ase.data import atomic_numbers

from tdn.config import TrainConfig
from tdn.config.distillation import DistillConfig, seconds_of
from tdn.data.frames import Frame
from tdn.data.vacuum import is_bulk
from tdn.evaluation.dynamics.plan import Plan
from tdn.evaluation.teachers.source import CalculatorSource
from tdn.inference.calculator import TDNCalculator
from tdn.system.atomic_files import write_json
from tdn.system.errors import UsageError
from tdn.system.programs import find_program

from .budget import Budget
from .candidates import (
    HELD_OUT,
    VALID_EVERY,
    Candidate,
    part_of,
    read_candidates,
    write_candidates,
)
from .committee import Committee, train_committee, write_frames
from .exploration import plan_exploration, run_length, run_plans, still_solid, words_of_solids
from .folder import RunFolder
from .label_store import LabelStore, Origin, structure_key
from .labeling import label_structures
from .progress import say, stage, warn
from .seeds import displaced, make_seeds, read_structures
from .selection import Selection, error_ratio, find_bounds, select
from .teacher_check import TeacherReport, check_teacher, isolated_atom

# of rounds.max_labels, for the seeds at most: what networks visit is worth more than they are
SEEDS_LABELS = 0.5
# angstrom, of the structures that a teacher is checked with
CHECK_RATTLE = 0.05


class Distillation:
    """A run in its folder; `run` goes on wherever an earlier attempt stopped.

    Parameters
    ----------
    config : the configuration

    Raises
    ------
    TDNError
        If structures cannot be read or do not fit the configuration.
    """

    def __init__(self, config: DistillConfig) -> None:
        self.config = config
        self.folder = RunFolder(Path(config.run.folder))
        self.structures = read_structures(config.seeds)
        if config.rounds.pressures and not any(is_bulk(atoms) for atoms in self.structures):
            raise UsageError(
                "rounds.pressures need structures that are periodic in three directions, and none "
                "of them is; set rounds.pressures to [] for constant volume"
            )
        if config.rounds.engine == "lammps":
            find_program("lmp")
        self.seeds = make_seeds(self.structures, config.seeds, config.rounds.melt is not None)
        symbols = {s for c in self.seeds for s in c.atoms.get_chemical_symbols()}
        self.species = sorted(symbols, key=atomic_numbers.get)
        self.jobs = config.run.jobs or len(os.sched_getaffinity(0))
        teacher = config.teacher
        self.source = CalculatorSource(
            teacher.calculator, teacher.arguments or {}, teacher.python, teacher.threads
        )

    @property
    def teacher_for_report(self) -> CalculatorSource:
        """The teacher with all threads, since nothing else runs beside it then."""
        return replace(self.source, threads=self.jobs)

    def check(self, folder: Path) -> tuple[list[ase.Atoms], TeacherReport]:
        """Ask the teacher about the first structure of each composition."""
        rng = np.random.default_rng(self.config.seeds.seed)
        firsts: dict[frozenset[str], ase.Atoms] = {}
        for candidate in self.seeds:
            firsts.setdefault(frozenset(candidate.atoms.symbols), candidate.atoms)
        structures = [displaced(atoms, rng, CHECK_RATTLE) for atoms in firsts.values()]
        return structures, check_teacher(
            self.source, structures, self.species, folder, self.config.teacher.isolated_atoms
        )

    def run(self) -> tuple[Committee, LabelStore]:
        """Everything up to the last committee.

        Returns
        -------
        committee, labels
            The latter open; the caller closes it.
        """
        total = seconds_of(self.config.run.budget)
        self.budget = Budget(self.folder.clock, total, self.config.rounds.max_rounds)
        self._open_labels()
        self._begin()
        number, previous = 0, None
        while True:
            committee = self._round(number, previous)
            if self._ends(number, committee):
                return self._final(number, committee), self.labels
            number, previous = number + 1, committee

    def _open_labels(self) -> None:
        """The database; a new one begins with what the check of the teacher found."""
        path = self.folder.path / "teacher.json"
        if path.exists():
            self.teacher: dict[str, Any] = json.loads(path.read_text())
            self.labels = LabelStore(self.folder.labels, self.teacher)
            return
        say(f"checking the teacher {self.source.path}")
        structures, report = self.check(self.folder.teacher / "check")
        for note in report.notes:
            warn(note)
        say(describe(report))
        self.teacher = {
            "name": report.name,
            "version": report.version,
            "arguments": self.config.teacher.arguments or {},
            "seconds_per_atom": report.seconds_per_atom,
            "has_stress": report.has_stress,
        }
        self.labels = LabelStore(self.folder.labels, self.teacher)
        periodic = bool(self.structures[0].pbc.any())
        found = [
            (isolated_atom(s, periodic), v, "IsolatedAtom") for s, v in report.isolated.items()
        ]
        found += [(a, v, "structure") for a, v in zip(structures, report.labels, strict=True)]
        for index, (atoms, label, kind) in enumerate(found):
            if self.labels.record(atoms) is None:
                self.labels.add(atoms, label, Origin(-1, index, kind), self.teacher)
        write_json(path, self.teacher)

    def _begin(self) -> None:
        """The seeds as candidates of round 0."""
        path = self.folder.round(0) / "candidates.lmdb"
        if path.exists():
            return
        cost = self.teacher["seconds_per_atom"] * np.mean([len(c.atoms) for c in self.seeds])
        workers = self.config.teacher.workers
        at_once = workers if isinstance(workers, int) else 1
        count = self.budget.seeds(len(self.seeds), float(cost) / at_once)
        if self.config.rounds.max_labels is not None:
            left = self.config.rounds.max_labels - self.labels.for_training()
            count = min(count, max(VALID_EVERY, int(SEEDS_LABELS * left)))
        chosen = np.linspace(0, len(self.seeds) - 1, count).round().astype(int)
        write_candidates(path, [self.seeds[i] for i in sorted(set(chosen.tolist()))])

    def _round(self, number: int, previous: Committee | None) -> Committee:
        """Label what was chosen, train, explore, select: everything that is not done yet."""
        start = time.monotonic()
        here, rounds = self.folder.round(number), self.config.rounds
        self.label(read_candidates(here / "candidates.lmdb"), number, f"round {number + 1}: labels")
        frames = self.labels.frames(number)
        committee = Committee(here, rounds.committee)
        write_frames(here / "frames.lmdb", frames)
        self._guess(frames)
        plan = _remembered(
            here / "plan.json", lambda: {"steps": self.budget.round_steps(rounds.steps)}
        )
        self._train(committee, frames, plan["steps"], number, previous, f"round {number + 1}")
        if not (here / "selection.json").exists():
            found = self._explore(number, committee, frames)
            if found.chosen:
                write_candidates(self.folder.round(number + 1) / "waiting.lmdb", found.chosen)
            values = {k: v for k, v in asdict(found).items() if k != "chosen"}
            values |= {"chosen": len(found.chosen), "share": found.share}
            write_json(here / "selection.json", values)
            self.budget.measured("round", time.monotonic() - start, 1)
        return committee

    def label(self, candidates: Sequence[Candidate], number: int, title: str) -> None:
        """Label those that were never labeled; each is on the disk before the next comes."""
        todo: list[tuple[ase.Atoms, Origin]] = []
        asked: set[str] = set()
        for index, candidate in enumerate(candidates):
            part = part_of(candidate.kind, number, index)
            key = structure_key(candidate.atoms)
            if self.labels.record(candidate.atoms) is None and key not in asked:
                asked.add(key)
                todo.append((candidate.atoms, Origin(number, index, candidate.kind, part)))
        most = self.config.rounds.max_labels
        if most is not None and number < HELD_OUT:
            todo = todo[: max(0, most - self.labels.for_training())]
        if not todo:
            return
        start, failed = time.monotonic(), 0
        with stage(title, len(todo), "labels") as bar:
            for index, answer in label_structures(
                [atoms for atoms, _ in todo],
                self.source,
                self.folder.teacher,
                self.config.teacher.workers,
                self.config.teacher.scheduler,
            ):
                atoms, origin = todo[index]
                if isinstance(answer, str):
                    failed += 1
                    self.labels.set_aside(atoms, answer, origin, self.teacher)
                    _append_aside(self.folder.path / "set_aside.xyz", atoms, answer)
                else:
                    self.labels.add(atoms, answer, origin, self.teacher)
                bar.advance()
                self.budget.write(always=False)
        self.budget.measured("label", time.monotonic() - start, len(todo))
        if failed:
            warn(
                f"{failed} of {len(todo)} frames have no label and are set aside: "
                f"{reason_of(todo, self.labels)}"
            )

    def _guess(self, frames: Sequence[Frame]) -> None:
        """Tell the budget what steps with such frames will take."""
        size = (self.config.student.train or {}).get("batch_size", TrainConfig.batch_size)
        atoms = float(np.mean([len(frame.atoms) for frame in frames]))
        self.budget.guess(atoms, size, max(1.0, self.config.rounds.committee / self.jobs))

    def _train(
        self,
        committee: Committee,
        frames: Sequence[Frame],
        steps: int,
        seed: int,
        previous: Committee | None,
        title: str,
    ) -> None:
        if committee.compiled.exists():
            return
        start = time.monotonic()
        fresh = not (committee.runs[0] / "last.pt").exists()
        training = sum(f.split != "valid" and len(f.atoms) > 1 for f in frames)
        train_committee(
            committee,
            committee.folder / "frames.lmdb",
            training,
            self.species,
            self.config.student,
            steps,
            self.jobs,
            previous,
            seed,
            f"{title}: training",
        )
        if fresh:
            self.budget.measured("training step", time.monotonic() - start, steps)
        rmse = committee.errors("valid")[committee.best]
        say(
            f"{title}: {sum(len(f.atoms) > 1 for f in frames)} labels, validation RMSE "
            + ", ".join(
                f"{name} {rmse[name]:.3g} {unit}"
                for name, unit in (("energy", "meV/atom"), ("forces", "meV/A"))
                if name in rmse
            )
        )

    def _explore(self, number: int, committee: Committee, frames: Sequence[Frame]) -> Selection:
        rounds = self.config.rounds
        ratio = error_ratio(TDNCalculator(committee.compiled), frames)
        bounds = find_bounds(rounds, frames, ratio)

        def planned(steps: int) -> list[Plan]:
            seed = self.config.seeds.seed
            return plan_exploration(
                self.structures, self.seeds, rounds, number, bounds.upper, seed, steps
            )

        wanted = run_length(rounds, number)
        limits = _remembered(
            committee.folder / "exploration.json",
            lambda: {
                "md_steps": self.budget.dynamics_steps(wanted, len(planned(wanted))),
                "frames": self.budget.frames(rounds.frames),
            },
        )
        plans = planned(limits["md_steps"])
        start, title = time.monotonic(), f"round {number + 1}"
        trajectories = run_plans(
            plans,
            committee.compiled,
            committee.folder / "dynamics",
            rounds.engine,
            self.jobs,
            f"{title}: dynamics",
        )
        self.budget.measured(
            "dynamics step", time.monotonic() - start, sum(plan.steps for plan in plans)
        )
        found = select(
            trajectories, bounds, committee.models[committee.best], frames, limits["frames"]
        )
        say(
            f"{title}: {found.total} frames of {len(plans)} runs"
            + (f", {len(found.broken)} of which ended early" if found.broken else "")
            + f"; deviation above {bounds.lower:.3g} eV/A (error about {ratio:.2g} times as large) "
            f"in {100 * found.share:.3g} %, {len(found.chosen)} chosen"
        )
        if solid := still_solid(trajectories):
            say(f"{title}: {words_of_solids(solid, rounds)}")
        return found

    def _ends(self, number: int, committee: Committee) -> bool:
        """Whether this was the last round; otherwise the next one's candidates are there."""
        here, there = self.folder.round(number), self.folder.round(number + 1)
        if (there / "candidates.lmdb").exists():
            return False
        rounds = self.config.rounds
        values = json.loads((here / "selection.json").read_text())
        forces = committee.errors("valid")[committee.best].get("forces", float("inf"))
        labels = self.labels.for_training()
        reason = None
        if not values["chosen"]:
            reason = "the dynamics brought no frame to label"
        elif values["share"] < rounds.stop_share:
            reason = f"{100 * values['share']:.2g} % of the frames are above the lower bound"
        elif rounds.target_forces is not None and forces <= rounds.target_forces:
            reason = f"validation forces are at {forces:.3g} meV/A"
        elif number + 1 >= rounds.max_rounds:
            reason = f"{rounds.max_rounds} rounds are done (rounds.max_rounds)"
        elif rounds.max_labels is not None and labels >= rounds.max_labels:
            reason = f"{labels} labels are there (rounds.max_labels)"
        elif not self.budget.another_round():
            reason = "the rest of the budget is for the last training and the report"
        if reason is None:
            os.replace(there / "waiting.lmdb", there / "candidates.lmdb")
            return False
        say(f"rounds end: {reason}")
        return True

    def _final(self, number: int, previous: Committee) -> Committee:
        """Label what the last round chose, and train longer on everything."""
        rounds = self.config.rounds
        here = self.folder.path / "rounds" / f"final_{number:02d}"
        here.mkdir(parents=True, exist_ok=True)
        waiting = self.folder.round(number + 1) / "waiting.lmdb"
        if waiting.exists():
            self.label(read_candidates(waiting), number + 1, "last round: labels")
        frames = self.labels.frames(number + 1)
        write_frames(here / "frames.lmdb", frames)
        self._guess(frames)
        plan = _remembered(
            here / "plan.json", lambda: {"steps": self.budget.final_steps(rounds.final_steps)}
        )
        committee = Committee(here, rounds.committee)
        self._train(committee, frames, plan["steps"], 7 + number, previous, "last training")
        return committee


def describe(report: TeacherReport) -> str:
    """What a check found, on one line."""
    return (
        f"{report.name} {report.version}: {1e3 * report.seconds_per_atom:.3g} ms per atom, "
        f"stress {'yes' if report.has_stress else 'no'}, "
        f"isolated atoms {', '.join(report.isolated) or 'none'}"
    )


def reason_of(todo: Sequence[tuple[ase.Atoms, Origin]], labels: LabelStore) -> str:
    """One of the reasons why frames have no label."""
    records = (labels.record(atoms) for atoms, _ in todo)
    return next(record["aside"] for record in records if record and "aside" in record)


def _remembered(path: Path, make: Any) -> dict[str, Any]:
    """A decision that an earlier attempt has made, or a new one."""
    if path.exists():
        return json.loads(path.read_text())
    values = make()
    write_json(path, values)
    return values


def _append_aside(path: Path, atoms: ase.Atoms, reason: str) -> None:
    import ase.io

    work = ase.Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
    work.info["reason"] = reason
    ase.io.write(path, work, format="extxyz", append=True)
