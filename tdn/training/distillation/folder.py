"""The folder of a run: what lies where, one run at a time, the same configuration throughout."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from tdn.config.distillation import DistillConfig, distill_config_to_dict
from tdn.system.atomic_files import atomic_write
from tdn.system.errors import TDNError, UsageError
from tdn.system.printable import printable

# keys that may change when a run goes on: they decide how far and how fast, not what is computed
FREE_SECTIONS = ("run", "report")
FREE_KEYS = (
    "teacher.python",
    "teacher.workers",
    "teacher.scheduler",
    "teacher.threads",
    "rounds.max_rounds",
    "rounds.max_labels",
    "rounds.stop_share",
    "rounds.target_forces",
    "rounds.final_steps",
    "seeds.structures",
)
README = """\
A potential distilled from {teacher} by tdn-distill.

report.html          how far it can be trusted: open it in a browser
report.json          the numbers in it
model.pt             the network: tdn-eval, tdn-export, ASE
model.tdn.pth        the same, compiled: pair_style tdn, ASE
committee.tdn.pth    all networks: means, and deviations that show where they are unsure
in.example           an input for LAMMPS: lmp -in in.example
start.data           the structure that it starts from
labels.lmdb          everything that the teacher said: tdn-data stats labels.lmdb
distill.yaml         all settings; tdn-distill distill.yaml goes on, or does nothing when finished
rounds/              what each round trained, visited and chose
set_aside.xyz        structures that the teacher could not label (if there are any)
"""


class RunFolder:
    """Paths of a run.

    Parameters
    ----------
    path : of the folder
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.labels = path / "labels.lmdb"
        self.clock = path / "clock.json"
        self.teacher = path / "teacher"
        self.config = path / "distill.yaml"

    def round(self, number: int) -> Path:
        """Folder of a round, counted from zero."""
        return self.path / "rounds" / f"{number:02d}"

    def check_own(self) -> None:
        """Keep out of folders with other things in them: files there might be replaced.

        Raises
        ------
        UsageError
            If it holds files and no run.
        """
        if self.config.exists() or not self.path.is_dir():
            return
        others = sorted(p.name for p in self.path.iterdir() if not p.name.startswith("."))
        if others:
            raise UsageError(
                f"run.folder {self.path} holds other files ({printable(others[0])}) and no run of "
                "tdn-distill; name a new folder (-o), or remove them"
            )

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other runs out while the block is executed.

        Raises
        ------
        TDNError
            If another run uses the folder, it holds other things, or it cannot be written.
        """
        self.check_own()
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            file = open(self.path / ".lock", "w")
        except OSError as error:
            raise TDNError(f"run.folder {self.path} cannot be used: {error.strerror}") from None
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise TDNError(
                    f"{self.path} is used by another run of tdn-distill; wait for its end or "
                    "choose another run.folder"
                ) from None
            yield

    def keep_config(self, config: DistillConfig) -> None:
        """Write the configuration, or compare it with that of the run that is there.

        Raises
        ------
        UsageError
            If a key differs that the files in the folder depend on.
        """
        values = _plain(config, self.path)
        if self.config.exists():
            stored = yaml.safe_load(self.config.read_text()) or {}
            _compare(values, stored, self.path)
        with atomic_write(self.config) as temporary:
            temporary.write_text(yaml.safe_dump(values, sort_keys=False))
        with atomic_write(self.path / "README.txt") as temporary:
            temporary.write_text(README.format(teacher=config.teacher.calculator))


def _plain(config: DistillConfig, folder: Path) -> dict[str, Any]:
    """The configuration for a file in ``folder``, with paths that mean the same from there."""
    values = distill_config_to_dict(config)
    names = values["seeds"]["structures"]
    names = [names] if isinstance(names, str) else list(names)
    values["seeds"]["structures"] = [
        os.path.relpath(Path(name).absolute(), folder.absolute()) for name in names
    ]
    values["run"]["folder"] = "."
    for section in values.values():
        for key, value in section.items():
            if isinstance(value, tuple):
                section[key] = list(value)
    return values


def _compare(values: dict[str, Any], stored: dict[str, Any], folder: Path) -> None:
    for section, keys in values.items():
        if section in FREE_SECTIONS:
            continue
        for key, value in keys.items():
            old = (stored.get(section) or {}).get(key, value)
            if f"{section}.{key}" not in FREE_KEYS and old != value:
                raise UsageError(
                    f"{section}.{key} is {value!r}, but the run in {folder} has {old!r}; set it "
                    "back, or choose another run.folder"
                )
