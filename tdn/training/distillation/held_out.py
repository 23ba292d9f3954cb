"""Frames of the student's own dynamics that nothing was trained on."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

import ase
import numpy as np

from tdn.data.vacuum import is_bulk
from tdn.evaluation.dynamics.plan import Plan, Segment, Trajectory, sensible_timestep
from tdn.system.atomic_files import write_json

from .candidates import Candidate, read_candidates, write_candidates
from .committee import Committee
from .exploration import run_plans, still_solid
from .loop import Distillation
from .progress import warn

# added to the seeds of dynamics: other runs than any round's
SEED = 500_000
# samples of a run
SAMPLES = 100


@dataclass
class HeldOut:
    """What the student's last dynamics left.

    Attributes
    ----------
    candidates : frames to label
    starts : name -> temperature in K and the last structure, for dynamics to compare
    solid : runs that were to melt and did not, with displacements (`still_solid`)
    """

    candidates: list[Candidate] = field(default_factory=list)
    starts: dict[str, tuple[float, ase.Atoms]] = field(default_factory=dict)
    solid: dict[str, float] = field(default_factory=dict)


def visit(whole: Distillation, committee: Committee) -> HeldOut:
    """Dynamics of the best network at every temperature, solid and melt; some frames of each.

    The frames are remembered, so that labels of an interrupted attempt fit.
    """
    plans = held_out_plans(whole)
    folder = committee.folder / "held_out"
    frames, lasts = folder / "frames.lmdb", folder / "lasts.lmdb"
    solid = folder / "solid.json"
    if not lasts.exists():
        trajectories = run_plans(
            plans,
            whole.folder.path / "model.tdn.pth",
            folder,
            whole.config.rounds.engine,
            whole.jobs,
            "held-out: dynamics",
            committee=False,
        )
        for trajectory in trajectories:
            if trajectory.broken is not None:
                warn(f"held-out dynamics {trajectory.plan.name} ended early: {trajectory.broken}")
        count = whole.config.report.heldout
        chosen = [c for trajectory in trajectories for c in evenly(trajectory, count)]
        ends = [
            Candidate(t.samples[-1].atoms, t.samples[-1].kind) for t in trajectories if t.samples
        ]
        if not chosen:
            return HeldOut()
        write_candidates(frames, chosen)
        write_json(solid, still_solid(trajectories))
        write_candidates(lasts, ends)
    temperatures = {plan.segments[-1].kind: plan.segments[-1].start for plan in plans}
    result = HeldOut(read_candidates(frames), solid=json.loads(solid.read_text()))
    for candidate in read_candidates(lasts):
        start = (temperatures[candidate.kind], candidate.atoms)
        result.starts.setdefault(candidate.kind, start)
    # where there is a melt at the highest temperature, the solid there is of less interest
    for name, (temperature, _) in list(result.starts.items()):
        if f"melt {name}" in result.starts and temperature == max(temperatures.values()):
            del result.starts[name]
    return result


def held_out_plans(whole: Distillation) -> list[Plan]:
    """Runs that differ from all rounds by their seeds; the first third is not sampled."""
    rounds, plans = whole.config.rounds, []
    steps = rounds.md_steps
    for place, atoms in enumerate(whole.structures):
        cases = [(f"{t:g} K", None, t) for t in rounds.temperatures]
        if rounds.melt is not None:
            high = max(rounds.temperatures)
            cases.append((f"melt {high:g} K", rounds.melt, high))
        for number, (kind, before, temperature) in enumerate(cases):
            first = Segment(None, before or temperature, before or temperature, steps // 3)
            plans.append(
                Plan(
                    name=f"s{place}_{kind.replace(' ', '_')}",
                    atoms=atoms,
                    segments=(first, Segment(kind, temperature, temperature, steps)),
                    timestep=rounds.timestep or sensible_timestep(atoms),
                    every=max(1, steps // SAMPLES),
                    pressure=rounds.pressures[0] if rounds.pressures and is_bulk(atoms) else None,
                    seed=SEED + whole.config.seeds.seed % 1000 + 31 * len(plans) + number,
                )
            )
    return plans


def evenly(trajectory: Trajectory, count: int) -> list[Candidate]:
    """So many samples at equal intervals, the last one among them."""
    samples = trajectory.samples
    if not samples:
        return []
    places = np.linspace(0, len(samples) - 1, min(count, len(samples)) + 1).round().astype(int)
    return [Candidate(samples[i].atoms, samples[i].kind) for i in places[1:]]
