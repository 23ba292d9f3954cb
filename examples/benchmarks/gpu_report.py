"""What the scripts for a GPU share: command line, and rows of figures on the screen and as JSON."""

from __future__ import annotations

import argparse
import json
import subprocess
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from measure import Table

from tdn.system.atomic_files import atomic_write

PATIENCE = 10.0  # seconds, with nvidia-smi


def card(quantity: str) -> float | None:
    """What nvidia-smi says about the first card, as in ``clocks.sm``; None if it does not."""
    command = ["nvidia-smi", f"--query-gpu={quantity}", "--format=csv,noheader,nounits", "-i", "0"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
        return float(done.stdout)
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return None


@dataclass(frozen=True)
class Row:
    """One figure.

    Attributes
    ----------
    name, unit : what it is
    value : None where it was not measured; ``note`` says why
    at_most : a limit; a row beyond it fails
    target : what one would like it to be at most; missing it is no failure
    """

    name: str
    value: float | None
    unit: str
    at_most: float | None = None
    target: float | None = None
    note: str = ""

    @property
    def failed(self) -> bool:
        # not a number is beyond every limit
        return (
            self.at_most is not None and self.value is not None and not self.value <= self.at_most
        )


class Report:
    """Rows of one script: each is printed and, with a path, kept at once.

    A script that is ended at its time limit so leaves what it has measured.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.rows: list[Row] = []
        self.table = Table({"": 52, "value": 10, "at most": 8, "target": 7, "unit": 22})

    def add(self, name: str, value: float | None, unit: str, **limits) -> Row:
        """Add a row; limits and note as in `Row`."""
        row = Row(name, None if value is None else float(value), unit, **limits)
        self.rows.append(row)
        note = f"  {row.note}" if row.note else ""
        note += "  FAILED" if row.failed else ""
        self.table.row(row.name, row.value, row.at_most, row.target, row.unit + note)
        if self.path is not None:
            with atomic_write(self.path) as temporary:
                temporary.write_text(json.dumps([asdict(r) for r in self.rows], indent=1) + "\n")
        return row

    def exit_code(self) -> int:
        return int(any(row.failed for row in self.rows))


class Budget:
    """Seconds that a script may take, of ``--seconds``."""

    def __init__(self, seconds: float) -> None:
        self.end = time.monotonic() + seconds

    @property
    def left(self) -> float:
        return self.end - time.monotonic()


def gpu_parser(description: str, seconds: float) -> argparse.ArgumentParser:
    """The common command line; by default on a GPU if there is one."""
    command = argparse.ArgumentParser(description=description.strip().splitlines()[0])
    command.add_argument(
        "--quick", action="store_true", help="smallest sizes: does it work at all?"
    )
    command.add_argument(
        "--files", type=Path, metavar="FOLDER", help="keep models here, or take them from here"
    )
    command.add_argument("--device", default="auto", help="auto (default), cpu, cuda or cuda:N")
    command.add_argument("--json", type=Path, metavar="FILE", help="also write the rows there")
    command.add_argument(
        "--seconds", type=float, default=seconds, help=f"start nothing after (default {seconds:g})"
    )
    return command
