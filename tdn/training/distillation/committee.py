"""The committee of a round: frames, ``tdn-train`` for every member, ``tdn-export``."""

from __future__ import annotations

import csv
import json
import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tdn.config import TrainConfig
from tdn.config.distillation import StudentConfig
from tdn.data.database.writer import StoreWriter
from tdn.data.frames import Frame
from tdn.system.atomic_files import atomic_write
from tdn.system.errors import TDNError
from tdn.system.programs import Program, find_program, last_error, run_programs

from .progress import stage

# what differs between members beside the order of the batches; rounds add to it
SEED_STEP = 100


@dataclass(frozen=True)
class Committee:
    """The networks of a round, in their folder.

    Attributes
    ----------
    folder : holds ``member_0`` and so on, and ``committee.tdn.pth``
    size : number of members
    """

    folder: Path
    size: int

    @property
    def runs(self) -> list[Path]:
        """Folders of the trainings."""
        return [self.folder / f"member_{i}" for i in range(self.size)]

    @property
    def models(self) -> list[Path]:
        """Their checkpoints."""
        return [run / "model.pt" for run in self.runs]

    @property
    def compiled(self) -> Path:
        """All networks in one file."""
        return self.folder / "committee.tdn.pth"

    def errors(self, part: str) -> list[dict[str, float]]:
        """RMSE of every member on ``train`` or ``valid``: energy (meV/atom), forces (meV/A)."""
        found = []
        for run in self.runs:
            values = json.loads((run / "errors.json").read_text())
            rows = values.get(part, {}).get("all", {})
            found.append({name: row["rmse"] for name, row in rows.items()})
        return found

    @property
    def best(self) -> int:
        """The member with the smallest error of validation forces."""
        errors = [row.get("forces", math.inf) for row in self.errors("valid")]
        return errors.index(min(errors))


def write_frames(path: Path, frames: Sequence[Frame]) -> None:
    """The training and validation frames of a round, in their order."""
    if path.exists():
        return
    with StoreWriter(path) as writer:
        for frame in frames:
            writer.add(frame)


def train_committee(
    committee: Committee,
    frames: Path,
    training_frames: int,
    species: Sequence[str],
    student: StudentConfig,
    steps: int,
    jobs: int,
    previous: Committee | None = None,
    seed: int = 0,
    title: str = "training",
) -> None:
    """Train all members and compile them; goes on where an earlier attempt stopped.

    Parameters
    ----------
    frames : database with a split
    training_frames : how many of them are for training
    species : elements of the network
    steps : of the optimizer
    jobs : cores for trainings; all members share them where they cannot take turns evenly
    previous : committee whose members these begin as

    Raises
    ------
    TDNError
        If a training or the export fails.
    """
    if committee.compiled.exists():
        return
    train = {"batch_size": TrainConfig.batch_size, "num_threads": 1, **(student.train or {})}
    epochs = max(2, math.ceil(steps / math.ceil(training_frames / train["batch_size"])))
    programs = []
    command = find_program("tdn-train")
    for number, run in enumerate(committee.runs):
        run.mkdir(parents=True, exist_ok=True)
        values: dict[str, Any] = {
            "model": {"species": list(species), **(student.model or {})},
            "data": {"train": str(frames.absolute()), "split_key": "split"},
            "train": {
                **train,
                "run_dir": str(run.absolute()),
                "max_epochs": epochs,
                "seed": seed + SEED_STEP * number,
            },
        }
        if previous is not None:
            values["train"]["init_from"] = str(previous.models[number].absolute())
        with atomic_write(run / "training.yaml") as temporary:
            temporary.write_text(yaml.safe_dump(values, sort_keys=False))
        if not (run / "errors.json").exists():
            arguments = (command, str((run / "training.yaml").absolute()))
            programs.append(Program(arguments, (run / "training.log").absolute()))
    # three members on two cores: all at once take three halves of the time of one, in turns two
    at_once = jobs if committee.size % jobs == 0 else committee.size
    with stage(title, epochs * committee.size, "epochs") as bar:
        codes = run_programs(
            programs, at_once, train["num_threads"], lambda: bar.move_to(_epochs(committee.runs))
        )
    for program, code in zip(programs, codes, strict=True):
        if code == 130:
            raise KeyboardInterrupt
        if code != 0:
            raise TDNError(f"tdn-train failed: {last_error(program.log)} (see {program.log})")
    export(committee.models, committee.compiled)
    for run in committee.runs:  # the state of the optimizer is no longer needed
        (run / "last.pt").unlink(missing_ok=True)


def export(models: Sequence[Path], output: Path) -> None:
    """Compile checkpoints into one file.

    Raises
    ------
    TDNError
        If ``tdn-export`` refuses.
    """
    log = (output.parent / "export.log").absolute()
    # the name says what kind of file it is
    building = output.with_name(f"building-{output.name}")
    command = (find_program("tdn-export"), *map(str, models), "-o", str(building))
    (code,) = run_programs([Program(command, log)])
    if code != 0:
        raise TDNError(f"tdn-export failed: {last_error(log)} (see {log})")
    shutil.move(building, output)


def _epochs(runs: Sequence[Path]) -> int:
    """Epochs that all trainings have done."""
    done = 0
    for run in runs:
        try:
            with open(run / "log.csv", newline="") as file:
                done += sum(1 for _ in csv.reader(file)) - 1
        except OSError:
            continue
    return max(done, 0)
