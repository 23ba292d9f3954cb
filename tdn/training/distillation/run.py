"""What the command does with a configuration: look at it, or carry it out."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from tdn.config.distillation import DistillConfig, seconds_of
from tdn.system.errors import TDNError
from tdn.system.programs import find_program
from tdn.training.run.display import format_time

from .exploration import plan_exploration
from .loop import Distillation, describe
from .progress import say, warn
from .result import write_result


def dry_run(config: DistillConfig, folder: Path) -> None:
    """Check everything and say what a run would do; nothing is written to its folder.

    Raises
    ------
    TDNError
        For anything that would stop the run.
    """
    whole = Distillation(config)
    whole.folder.check_own()
    _check_lammps(config)
    sizes = sorted({len(atoms) for atoms in whole.structures})
    say(
        f"{len(whole.structures)} structures of {', '.join(map(str, sizes))} atoms "
        f"({', '.join(whole.species)}), {len(whole.seeds)} seeds"
    )
    _, report = whole.check(folder)
    for note in report.notes:
        warn(note)
    say(describe(report))
    cost = report.seconds_per_atom * float(np.mean([len(c.atoms) for c in whole.seeds]))
    plans = plan_exploration(
        whole.structures, whole.seeds, config.rounds, 0, None, 0, config.rounds.md_steps
    )
    say(
        f"a label takes {cost:.3g} s: {format_time(cost * len(whole.seeds))} for the seeds, "
        f"{format_time(cost * config.rounds.frames)} for a round of {config.rounds.frames}"
    )
    say(
        f"a round: {config.rounds.committee} networks, {config.rounds.steps} steps each; "
        f"{len(plans)} runs, {sum(plan.steps for plan in plans)} steps of dynamics"
    )
    budget = seconds_of(config.run.budget)
    if budget is not None and cost * len(whole.seeds) > budget:
        warn(f"the seeds' labels alone take longer than the budget of {config.run.budget}")
    say(f"dry run: everything is fine, nothing was written to {config.run.folder}")


def run(config: DistillConfig) -> None:
    """Carry it out, or go on with it.

    Raises
    ------
    TDNError
        If something stops it; the same call goes on later.
    KeyboardInterrupt
        After Ctrl-C, and after SIGTERM: batch systems send it when the time is over, and programs
        in the background ignore Ctrl-C.
    """
    whole = Distillation(config)
    _check_lammps(config)
    try:
        with _ends_in_order(), whole.folder.locked():
            whole.folder.keep_config(config)
            committee, labels = whole.run()
            with labels:
                write_result(whole, committee)
    except OSError as error:  # a full disk, a folder that is gone
        where = error.filename or config.run.folder
        raise TDNError(f"cannot write {where}: {error.strerror}; then run it again") from error


@contextmanager
def _ends_in_order() -> Iterator[None]:
    """Let SIGTERM end what is running as Ctrl-C does, and say how to go on."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt("interrupted; the same command goes on from here") from None
    finally:
        signal.signal(signal.SIGTERM, before)


def _check_lammps(config: DistillConfig) -> None:
    """Raise unless ``lmp`` knows the pair style, if it is to run the dynamics."""
    if config.rounds.engine != "lammps":
        return
    command = [find_program("tdn-lammps"), "info"]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode != 0:
        reason = (result.stderr.strip().splitlines() or ["unknown"])[-1]
        raise TDNError(f"{reason.partition('error: ')[2] or reason} (or set rounds.engine=ase)")
