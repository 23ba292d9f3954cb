"""Accuracy on published sets with exactly the configuration that tdn-train --init writes.

    python examples/benchmarks/suite.py --files suite
    python examples/benchmarks/suite.py --files suite Mo aspirin:100 --seed 1

For each set: its training frames (and isolated atoms) in one file, ``tdn-train --init``, the run,
errors on the test frames, ``tdn-export`` and its speed in LAMMPS; then the table beside the best
published figures. The same command goes on where it was stopped. What is finished is only read, so
each test file is looked at once per run. ``NAME:100`` trains on a hundred frames of a set, chosen
at random, for learning curves; ``--change`` replaces values of the configuration, which is then no
longer that of --init and has rows of its own. One thread for each run; ``--jobs`` runs several sets
side by side. It takes hours.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ase
import ase.io
import numpy as np
from lammps_runs import run_box
from measure import Table, figure, files, machine, parser, positive, require_compiled

from tdn.system.atomic_files import atomic_write, write_json
from tdn.system.command import run_main
from tdn.system.errors import TDNError, UsageError
from tdn.system.printable import printable
from tdn.system.programs import find_program
from tdn.training.run.csv_log import read_log

ROOT = Path(__file__).parents[2]
# where copies of the sets are looked for, beside or inside the repository
DATA = (ROOT / "data", ROOT.parent / "shared" / "data")
EXAMPLES = ROOT / "examples"
LAMMPS_ATOMS = 500  # at least, in the box whose speed is measured
VACUUM = 3.0  # angstrom around a molecule in that box
QUICK = ("model.num_channels=4", "model.l_max=1", "train.max_epochs=1")


@dataclass(frozen=True)
class Set:
    """Frames of one kind, and the best that is published for a network trained on them.

    Attributes
    ----------
    train, valid, test : files; without ``test`` the frames of ``train`` say by ``split`` what they
        are for
    isolated : file of isolated atoms
    counts : training and validation frames, the first and the next ones of ``train``; None: all,
        and --init splits off validation frames
    molecule : energies are of a whole frame in meV instead of meV per atom
    kind : mae or rmse, what is published
    published : best energy, and forces in meV/angstrom
    """

    train: str
    test: str | None = None
    isolated: str | None = None
    counts: tuple[int, int] | None = None
    molecule: bool = False
    kind: str = "mae"
    published: tuple[float, float] | None = None


# sources of the published figures: arXiv 2206.07697 (acetylacetone, rMD17) and J. Phys. Chem. A
# 124, 731 (elements: the best of five kinds of potentials for each figure)
SETS = {
    "acac": Set(
        "acac/train_300K.xyz",
        "acac/test_MD_300K.xyz",
        "acac/isolated_atoms.xyz",
        molecule=True,
        kind="rmse",
        published=(0.8, 5.1),
    ),
    "aspirin": Set(
        "rmd17/aspirin_train.xyz.gz",
        "rmd17/aspirin_test.xyz.gz",
        counts=(950, 50),
        molecule=True,
        published=(2.2, 6.6),
    ),
    "uracil": Set(
        "rmd17/uracil_train.xyz.gz",
        "rmd17/uracil_test.xyz.gz",
        counts=(950, 50),
        molecule=True,
        published=(0.5, 1.8),
    ),
    "Mo": Set("elements/Mo_train.xyz.gz", "elements/Mo_test.xyz.gz", published=(2.24, 90)),
    "Si": Set("elements/Si_train.xyz.gz", "elements/Si_test.xyz.gz", published=(2.21, 60)),
    "Cu": Set("elements/Cu_train.xyz.gz", "elements/Cu_test.xyz.gz", published=(0.41, 10)),
    "water": Set(str(EXAMPLES / "water" / "water.xyz.gz")),
    "diamond": Set(str(EXAMPLES / "diamond" / "diamond.xyz.gz")),
}


@dataclass
class Run:
    """One row: a set, how many of its training frames, a seed, changes of the configuration."""

    name: str
    frames: int | None
    seed: int
    changes: tuple[str, ...]
    folder: Path
    result: dict[str, Any] = field(default_factory=dict)
    problem: str = ""
    failed: bool = False

    @property
    def title(self) -> str:
        parts = [self.name if self.frames is None else f"{self.name}, {self.frames} frames"]
        parts += [f"seed {self.seed}"] * (self.seed > 0)
        return ", ".join([*parts, *self.changes])


def make_run(text: str, seed: int, changes: Sequence[str], folder: Path) -> Run:
    """A run from ``NAME`` or ``NAME:FRAMES`` of the command line."""
    name, _, count = text.partition(":")
    if name not in SETS or (count and not count.isdecimal()) or count == "0":
        raise UsageError(
            f"{printable(text)}: expected NAME or NAME:FRAMES with a name of {', '.join(SETS)}"
        )
    parts = [name, *([count] if count else []), *([f"seed{seed}"] if seed else [])]
    tag = "_".join([*parts, *(change.replace("/", "-") for change in changes)])
    return Run(name, int(count) if count else None, seed, tuple(changes), folder / tag)


def find(path: str, data: Path | None) -> Path | None:
    """A file of a set, in the folder of ``--data`` or where copies are looked for."""
    for place in [data] if data else DATA:
        if (place / path).is_file():
            return place / path
    return None


def write_frames(run: Run, data: Path | None) -> Path | None:
    """Training and test frames of a run in its folder; None where the set is not at hand."""
    one = SETS[run.name]
    names = [one.train, *(n for n in (one.test, one.isolated) if n)]
    found = {name: find(name, data) for name in names}
    if None in found.values():
        return None
    frames = ase.io.read(found[one.train], ":")
    if one.test is None:
        test = [f for f in frames if f.info["split"] == "test"]
        valid = [f for f in frames if f.info["split"] == "valid"]
        train = [f for f in frames if f.info["split"] == "train"]
    else:
        test = ase.io.read(found[one.test], ":")
        count, held_out = one.counts or (len(frames), 0)
        train, valid = frames[:count], frames[count : count + held_out]
    if run.frames is not None:
        if run.frames > len(train):
            raise UsageError(f"{run.name}:{run.frames}: the set has {len(train)} training frames")
        chosen = np.random.default_rng(0).permutation(len(train))[: run.frames]
        train = [train[i] for i in sorted(chosen)]
    for frame in train:
        frame.info.pop("split", None)
    if valid:
        for part, name in ((train, "train"), (valid, "valid")):
            for frame in part:
                frame.info["split"] = name
    atoms = ase.io.read(found[one.isolated], ":") if one.isolated else []
    for atom in atoms:
        atom.info |= {"config_type": "IsolatedAtom"} | ({"split": "train"} if valid else {})
    run.folder.mkdir(parents=True, exist_ok=True)
    for name, part in (("test.xyz", test), ("frames.xyz", [*train, *valid, *atoms])):
        with atomic_write(run.folder / name) as temporary:
            ase.io.write(temporary, part, format="extxyz")
    return run.folder / "frames.xyz"


def command(name: str, *arguments: str, folder: Path) -> None:
    """Run a command of tdn on one thread; its output goes to a file beside the results."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    with (folder / f"{name}.log").open("a") as log:
        done = subprocess.run(
            [find_program(name), *arguments], cwd=folder, stdout=log, stderr=log, env=environment
        )
    if done.returncode != 0:
        last = (folder / f"{name}.log").read_text().strip().splitlines()[-1:]
        raise TDNError(f"{name} ended with exit code {done.returncode}: {' '.join(last)}")


def box(frame: ase.Atoms, molecule: bool) -> ase.Atoms:
    """A periodic box of copies of a frame."""
    atoms = ase.Atoms(frame.symbols, frame.positions, cell=frame.cell, pbc=True)
    if molecule:
        atoms.center(vacuum=VACUUM)
    while len(atoms) < LAMMPS_ATOMS:
        shortest = int(np.argmin(atoms.cell.lengths()))
        atoms = atoms * [2 if axis == shortest else 1 for axis in range(3)]
    return atoms


def speed(run: Run, steps: int) -> float:
    """Microseconds per atom and step of the exported network in LAMMPS on one thread."""
    command("tdn-export", "run/model.pt", "-o", "model.tdn.pth", folder=run.folder)
    frames = ase.io.read(run.folder / "test.xyz", ":")
    atoms = box(max(frames, key=len), SETS[run.name].molecule)
    elements = sorted(set(atoms.symbols))
    data = run.folder / "box.data"
    ase.io.write(data, atoms, format="lammps-data", specorder=elements, masses=True)
    model = run.folder / "model.tdn.pth"
    return run_box(data, model, elements, steps=steps, runs=2, threads=1).total


def carry_out(run: Run, data: Path | None, quick: bool) -> None:
    """Everything that is not done yet of one run; its numbers are in ``result.json`` then."""
    stored = run.folder / "result.json"
    try:
        if not stored.exists():
            if not (run.folder / "config.yaml").exists():
                if write_frames(run, data) is None:
                    run.problem = "not at hand: its frames are not in the folder of --data"
                    return
                command("tdn-train", "--init", "frames.xyz", "-o", "config.yaml", folder=run.folder)
            seed = [f"train.seed={run.seed}"] if run.seed else []
            command("tdn-train", "config.yaml", *seed, *run.changes, folder=run.folder)
            command(
                "tdn-eval", "errors", "run/model.pt", "test.xyz", "--json", "errors.json",
                folder=run.folder,
            )  # fmt: skip
            last = read_log(run.folder / "run" / "log.csv")[-1]
            errors = json.loads((run.folder / "errors.json").read_text())["all"]
            atoms = len(ase.io.read(run.folder / "test.xyz"))
            scale = atoms if SETS[run.name].molecule else 1
            run.result = {
                name: {kind: errors[name][kind] * (scale if name == "energy" else 1)
                       for kind in ("mae", "rmse")}
                for name in ("energy", "forces")
            }  # fmt: skip
            run.result["minutes"] = float(last["seconds"]) / 60
            try:
                run.result["speed"] = speed(run, 2 if quick else 50)
            except TDNError as error:  # LAMMPS is an extra, and errors are what counts
                print(f"{run.title}: no speed: {error}", file=sys.stderr)
            write_json(stored, run.result)
        run.result = json.loads(stored.read_text())
    except TDNError as error:
        run.problem, run.failed = str(error), True


def print_table(runs: Sequence[Run]) -> None:
    """Errors beside what is published; forces in meV/angstrom."""
    print(
        "\nenergies in meV (molecules) or meV/atom, forces in meV/angstrom; published: best "
        "figures, MAE but for acac (RMSE)\n"
    )
    width = max(24, *(len(run.title) for run in runs))
    table = Table(
        {"set": width, "E MAE": 7, "E RMSE": 7, "F MAE": 7, "F RMSE": 7, "published E": 11}
        | {"F": 5, "minutes": 7, "us/atom": 7}
    )
    for run in runs:
        if not run.result:
            table.row(run.title, run.problem)
            continue
        found, best = run.result, SETS[run.name].published or (None, None)
        numbers = [found[q][kind] for q in ("energy", "forces") for kind in ("mae", "rmse")]
        table.row(run.title, *numbers, *best, found["minutes"], found.get("speed"))


def draw(path: Path | None, runs: Sequence[Run]) -> None:
    """Force error against time in LAMMPS, a line per set through its networks."""
    with figure(path, width=6.0) as axes:
        if axes is None:
            return
        for name in SETS:
            points = [r for r in runs if r.name == name and r.result.get("speed")]
            points.sort(key=lambda run: run.result["speed"])
            kind = SETS[name].kind
            if points:
                axes.plot(
                    [run.result["speed"] for run in points],
                    [run.result["forces"][kind] for run in points],
                    "o-",
                    label=f"{name} ({kind.upper()})",
                )
        axes.set(xscale="log", yscale="log")
        axes.set(xlabel="microseconds per atom and step, one thread")
        axes.set(ylabel="force error, meV/angstrom")
        if axes.lines:
            axes.legend(fontsize=8, frameon=False)


def _main() -> int:
    command_line = parser(__doc__)
    command_line.add_argument("names", nargs="*", metavar="NAME[:FRAMES]", help=", ".join(SETS))
    command_line.add_argument("--data", type=Path, help="folder with acac, rmd17 and elements")
    command_line.add_argument("--seed", type=int, action="append", help="may be repeated (0)")
    command_line.add_argument("--change", action="append", default=[], metavar="section.key=value")
    command_line.add_argument("--jobs", type=positive, default=1, help="runs side by side (1)")
    command_line.add_argument("--table", action="store_true", help="train nothing")
    arguments = command_line.parse_args()
    names, changes = arguments.names or list(SETS), tuple(arguments.change)
    if arguments.quick:
        names, changes = arguments.names or ["diamond:8"], changes + QUICK
    require_compiled()
    print(machine())
    with files(arguments.files) as folder:
        runs = [make_run(n, seed, changes, folder) for seed in arguments.seed or [0] for n in names]
        if arguments.table:
            for run in runs:
                if (run.folder / "result.json").exists():
                    run.result = json.loads((run.folder / "result.json").read_text())
                run.problem = "not finished"
        else:
            start = time.monotonic()
            with ThreadPoolExecutor(arguments.jobs) as pool:
                list(pool.map(lambda run: carry_out(run, arguments.data, arguments.quick), runs))
            print(f"{(time.monotonic() - start) / 60:.1f} minutes")
        print_table(runs)
        draw(arguments.output, runs)
    return int(any(run.failed for run in runs))


if __name__ == "__main__":
    sys.exit(run_main(_main, "suite.py"))
