"""``tdn-distill`` with its trainings and exports in one process, which spares their starts.

LAMMPS and teachers keep processes of their own.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tdn.system.programs import Program
from tdn.training import cli as train_cli
from tdn.training.distillation import committee
from tdn.training.distillation.cli import main
from tdn_export import cli as export_cli

COMMANDS = {"tdn-train": train_cli.main, "tdn-export": export_cli.main}


def run_here(programs: Sequence[Program], *_: object) -> list[int]:
    """As `run_programs`, for the commands of this package."""
    codes = []
    for program in programs:
        path, *arguments = program.command
        with open(program.log, "a") as log, contextlib.redirect_stdout(log):
            codes.append(COMMANDS[Path(path).name](arguments))
    return codes


@contextlib.contextmanager
def in_one_process() -> Iterator[None]:
    """Trainings and exports run in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(committee, "run_programs", run_here)
        yield


def main_in_one_process(arguments: list[str]) -> int:
    """The command."""
    with in_one_process():
        return main(arguments)
