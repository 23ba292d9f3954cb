"""Do frames that a committee disagrees on teach more than frames of the teacher's own dynamics?

Cu3Au with effective medium theory (ASE), which costs next to nothing. For each seed `tdn-distill`
chooses its labels. A committee of the same form is then trained for as long on as many labels,
drawn at random from the teacher's own dynamics at the same temperatures, melt included, beside the
same first structures. Both are judged by frames of other dynamics of the teacher.

    python active_against_random.py -o run/active --seeds 0 1 2
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import yaml
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT

from tdn.config.distillation import distill_config_from_dict
from tdn.data.frames import Frame
from tdn.evaluation.comparison.held_out import errors_of, predict
from tdn.evaluation.dynamics.in_ase import run_in_ase
from tdn.evaluation.dynamics.plan import Plan, Segment
from tdn.inference.calculator import TDNCalculator
from tdn.training.distillation.committee import Committee, train_committee, write_frames
from tdn.training.distillation.label_store import LabelStore

ELEMENTS, FILE = ["Cu", "Au"], "cuau.cif"
TEMPERATURES, MELT = (300.0, 900.0, 1500.0), 3000.0
STEPS, TIMESTEP, EVERY = 1500, 2.0, 10
SETTINGS = {
    "teacher": {"calculator": "ase.calculators.emt:EMT"},
    "seeds": {
        "structures": [FILE],
        "atoms": 32,
        "rattles": 4,
        "strains": 4,
        "shears": 2,
        "elastic": 0,
        "vacancies": 0,
        "surfaces": 0,
        # few and simple first structures, so that what is chosen later decides
        "disordered": 0,
        "contacts": 0,
    },
    "rounds": {
        "temperatures": list(TEMPERATURES),
        "melt": MELT,
        "timestep": TIMESTEP,
        "max_rounds": 4,
        "committee": 2,
        "steps": 300,
        "final_steps": 1500,
        "frames": 8,
        "md_steps": STEPS,
        # so small that every round labels frames
        "lower": 0.05,
        "stop_share": 0.0,
    },
    "student": {
        "model": {"r_max": 4.5, "l_max": 2, "num_channels": 16, "correlation": 3, "gate": False},
        "train": {"learning_rate": 0.01, "batch_size": 4},
    },
    "report": {"heldout": 1, "teacher_steps": 0},
    "run": {"jobs": 1},
}


def crystal() -> Atoms:
    """Cu3Au in a cube."""
    atoms = bulk("Cu", "fcc", a=3.75, cubic=True)
    atoms.symbols[0] = "Au"
    return atoms


def dynamics_of_teacher(seed: int) -> list[Frame]:
    """Frames at every temperature and of the melt, with labels, after a time to settle."""
    atoms = crystal() * 2
    cases = [(f"{t:g} K", t, t) for t in TEMPERATURES]
    cases.append((f"melt {TEMPERATURES[-1]:g} K", MELT, TEMPERATURES[-1]))
    frames = []
    for number, (kind, before, temperature) in enumerate(cases):
        segments = (
            Segment(None, before, before, STEPS // 3),
            Segment(kind, temperature, temperature, STEPS),
        )
        plan = Plan(kind, atoms, segments, TIMESTEP, EVERY, seed=97 * seed + number)
        for sample in run_in_ase(plan, EMT()).samples:
            work = sample.atoms.copy()
            work.calc = EMT()
            frames.append(
                Frame(
                    atoms=sample.atoms,
                    number=len(frames) + 1,
                    source="teacher",
                    energy=sample.energy,
                    forces=sample.forces,
                    stress=work.get_stress(voigt=False),
                    config_type=kind,
                )
            )
    return frames


def run_active(folder: Path, seed: int) -> tuple[Committee, list[Frame], list[Frame]]:
    """`tdn-distill`: its last committee, all its labels and those of its seeds."""
    folder.mkdir(parents=True, exist_ok=True)
    crystal().write(folder / FILE)
    values = json.loads(json.dumps(SETTINGS))
    values["seeds"]["seed"] = seed
    values["run"]["folder"] = "active"
    (folder / "distill.yaml").write_text(yaml.safe_dump(values))
    command = [sys.executable, "-m", "tdn.training.distillation", "distill.yaml"]
    subprocess.run(command, cwd=folder, check=True)
    (last,) = (folder / "active" / "rounds").glob("final_*")
    with LabelStore(folder / "active" / "labels.lmdb", {}) as labels:
        return Committee(last, 2), labels.frames(), labels.frames(0)


def run_random(
    folder: Path, seed: int, pool: list[Frame], seeds: list[Frame], labels: int, rounds: int
) -> Committee:
    """A committee on seeds and random frames, with the steps of all rounds together."""
    rng = np.random.default_rng(seed)
    chosen = rng.choice(len(pool), labels - len(seeds), replace=False)
    drawn = [
        replace(pool[i], split="valid" if n % 10 == 9 else "train") for n, i in enumerate(chosen)
    ]
    committee = Committee(folder / "random", 2)
    committee.folder.mkdir(parents=True, exist_ok=True)
    write_frames(committee.folder / "frames.lmdb", [*seeds, *drawn])
    values = json.loads(json.dumps(SETTINGS))
    values["run"]["folder"] = str(folder)
    config = distill_config_from_dict(values)
    training = sum(f.split != "valid" and len(f.atoms) > 1 for f in [*seeds, *drawn])
    steps = config.rounds.final_steps + rounds * config.rounds.steps
    frames = committee.folder / "frames.lmdb"
    train_committee(committee, frames, training, ELEMENTS, config.student, steps, 1, None, seed)
    return committee


def judge(committee: Committee, frames: list[Frame]) -> dict[str, float]:
    """RMSE of forces in meV/angstrom by kind, of the better member by validation."""
    found = predict(TDNCalculator(committee.models[committee.best]), frames)
    kinds: dict[str, list[int]] = {"all": list(range(len(frames)))}
    for index, frame in enumerate(frames):
        kinds.setdefault(frame.config_type, []).append(index)
    return {k: errors_of(found, chosen)["forces_rmse_meV_per_A"] for k, chosen in kinds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, default=Path("run/active"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    arguments = parser.parse_args()
    ratios = []
    for seed in arguments.seeds:
        folder = arguments.output / str(seed)
        active, frames, seeds = run_active(folder, seed)
        rounds = len(list((folder / "active" / "rounds").glob("[0-9][0-9]/selection.json")))
        pool, tests = dynamics_of_teacher(1000 + seed), dynamics_of_teacher(2000 + seed)[::3]
        random = run_random(folder, seed, pool, seeds, len(frames), rounds)
        one, other = judge(active, tests), judge(random, tests)
        ratios.append(one["all"] / other["all"])
        print(f"seed {seed}: {len(frames)} labels, {len(tests)} frames of other dynamics")
        for kind in one:
            print(f"  {kind:14} active {one[kind]:7.1f}  random {other[kind]:7.1f} meV/angstrom")
        sys.stdout.flush()
    print(f"active / random: {', '.join(f'{r:.2f}' for r in ratios)}; mean {np.mean(ratios):.2f}")


if __name__ == "__main__":
    main()
