"""Dynamics of the committee: which runs, and running them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import ase

from tdn.config.distillation import RoundsConfig
from tdn.data.vacuum import is_bulk
from tdn.evaluation.dynamics.in_ase import run_in_ase
from tdn.evaluation.dynamics.lammps import run_in_lammps
from tdn.evaluation.dynamics.melting import SOLID, displacement_in_spacings
from tdn.evaluation.dynamics.plan import Plan, Segment, Trajectory, sensible_timestep
from tdn.inference.calculator import TDNCalculator

from .candidates import Candidate
from .progress import Bar, stage

# samples of a run: close enough in time that the last ones before an explosion are near it
SAMPLES = 250
# round from which on runs have their whole length; before, networks do not last as long
WHOLE_RUNS = 3
# runs of a round, at most; more conditions take turns
MAX_RUNS = 24
# a run ends where the deviation is so many times the bound beyond which frames are no candidates
LIMIT = 2.0
# kinds of samples of a run that melts, before it quenches
MOLTEN = "melt"
DEFECTS = ("vacancy", "surface", "exchange", "substitution")


def run_length(rounds: RoundsConfig, number: int) -> int:
    """Steps of each run of a round, from zero."""
    return max(1, rounds.md_steps * min(number + 1, WHOLE_RUNS) // WHOLE_RUNS)


def plan_exploration(
    structures: Sequence[ase.Atoms],
    seeds: Sequence[Candidate],
    rounds: RoundsConfig,
    number: int,
    upper: float | None,
    seed: int,
    steps: int | None = None,
) -> list[Plan]:
    """The runs of a round.

    Every structure at every temperature, pressures in turn; with ``melt``, melting, holding at the
    highest temperature and quenching; one run of a seed with a defect.

    Parameters
    ----------
    number : of the round, from zero
    upper : bound of deviations, eV/angstrom; None: runs do not end by deviation
    steps : of each run; None: `run_length`
    """
    low, high = min(rounds.temperatures), max(rounds.temperatures)
    steps = steps or run_length(rounds, number)
    wanted: list[tuple[str, ase.Atoms, tuple[Segment, ...], bool]] = []
    for place, atoms in enumerate(structures):
        for temperature in rounds.temperatures:
            kind = f"{temperature:g} K"
            segments = (Segment(kind, temperature, temperature, steps),)
            wanted.append((f"s{place}_T{temperature:g}", atoms, segments, True))
        if rounds.melt is not None:
            third = max(1, steps // 3)
            segments = (
                Segment("melting", rounds.melt, rounds.melt, third),
                Segment(f"melt {high:g} K", high, high, third),
                Segment("quench", high, low, third),
            )
            wanted.append((f"s{place}_melt", atoms, segments, True))
    defects = [candidate for candidate in seeds if candidate.kind in DEFECTS]
    if defects:
        chosen = defects[(7 * number) % len(defects)]
        temperature = rounds.temperatures[number % len(rounds.temperatures)]
        segments = (Segment(f"{chosen.kind} {temperature:g} K", temperature, temperature, steps),)
        wanted.append((f"defect_T{temperature:g}", chosen.atoms, segments, False))
    if len(wanted) > MAX_RUNS:
        start = (number * MAX_RUNS) % len(wanted)
        wanted = [*wanted, *wanted][start : start + MAX_RUNS]
    plans = []
    for place, (name, atoms, segments, with_pressure) in enumerate(wanted):
        pressure = None
        if rounds.pressures and with_pressure and is_bulk(atoms):
            pressure = rounds.pressures[(number + place) % len(rounds.pressures)]
        plans.append(
            Plan(
                name=name,
                atoms=atoms,
                segments=segments,
                timestep=rounds.timestep or sensible_timestep(atoms),
                every=max(1, sum(s.steps for s in segments) // SAMPLES),
                pressure=pressure,
                seed=1 + (seed + 1009 * number + 17 * place) % 900_000,
                limit=None if upper is None else LIMIT * upper,
            )
        )
    return plans


def run_plans(
    plans: Sequence[Plan],
    model: Path,
    folder: Path,
    engine: str,
    jobs: int,
    title: str,
    committee: bool = True,
) -> list[Trajectory]:
    """Run all plans with a compiled file, of a committee or of one network.

    Raises
    ------
    TDNError
        If LAMMPS is missing or a run does not begin.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with stage(title, sum(plan.steps for plan in plans), "steps") as bar:
        if engine == "lammps":
            watch = _Watch(bar, plans, folder)
            return run_in_lammps(plans, model, folder, committee, jobs, 1, watch)
        calculator = TDNCalculator(model)
        return [run_in_ase(plan, calculator, bar.advance) for plan in plans]


def still_solid(trajectories: Sequence[Trajectory]) -> dict[str, float]:
    """Runs that were to melt and did not: name -> displacement in mean spacings.

    What a run did until it quenches counts; runs that ended early say nothing.
    """
    found = {}
    for trajectory in trajectories:
        molten = [s for s in trajectory.samples if s.kind.startswith(MOLTEN)]
        if molten and trajectory.broken is None:
            moved = displacement_in_spacings(trajectory.plan.atoms, molten)
            if moved < SOLID:
                found[trajectory.plan.name] = moved
    return found


def words_of_solids(solid: dict[str, float], rounds: RoundsConfig) -> str:
    """What a user should know about runs that did not melt, and what to set."""
    runs = ", ".join(f"atoms of {name} moved by {moved:.2f}" for name, moved in solid.items())
    return (
        f"stayed solid instead of melting: {runs} of their spacing (in a melt more than "
        f"{SOLID:g}); for a melt start another run with a higher rounds.melt (now "
        f"{rounds.melt:g} K) or more rounds.md_steps (now {rounds.md_steps})"
    )


class _Watch:
    """Follows the steps of runs by what LAMMPS prints."""

    def __init__(self, bar: Bar, plans: Sequence[Plan], folder: Path) -> None:
        self.bar, self.plans, self.folder = bar, plans, folder
        self.calls = 0

    def __call__(self) -> None:
        self.calls += 1
        if self.calls % 10 == 0:
            self.bar.move_to(sum(_last_step(self.folder / plan.name) for plan in self.plans))


def _last_step(folder: Path) -> int:
    """The last step that LAMMPS printed."""
    try:
        text = (folder / "log.lammps").read_text(errors="replace")[-2000:]
    except OSError:
        return 0
    steps = re.findall(r"^ +(\d+) +-?[\d.]+ ", text, re.MULTILINE)
    return int(steps[-1]) if steps else 0
