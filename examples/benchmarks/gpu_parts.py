"""Parts of gpu_check.py: programs with a time limit, and the table of what they gave."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
import uuid
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO

PASSED, FAILED, TIMED_OUT, NOT_RUN = "passed", "failed", "timed out", "not run"
LEAST = 5.0  # seconds for which it is worth starting a part
ENDING = 5.0  # seconds for what was killed to end, and for its last lines
MARK = "GPU_CHECK_PART"  # variable by which the processes of a part are found


@dataclass(frozen=True)
class Part:
    """A program to run.

    Attributes
    ----------
    limit : seconds after which it is ended
    rows : where it leaves its figures (`gpu_report.Report`), if it has any; the program is then
        told (``--seconds``) when to start nothing more
    stretches : takes all the time that is left
    """

    name: str
    command: list[str]
    limit: float
    rows: Path | None = None
    stretches: bool = False


@dataclass
class Result:
    """How a part ended; ``detail`` is its last line, or how many figures it has left."""

    name: str
    status: str
    seconds: float
    detail: str = ""
    rows: list[dict] = field(default_factory=list)

    def as_dict(self) -> dict:
        return asdict(self)


def first_line(text: str, last: bool = False) -> str:
    """The first (or last) line that is not empty."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1 if last else 0] if lines else ""


def run_part(
    part: Part, end: float, environment: dict[str, str], folder: Path, log: IO[str]
) -> Result:
    """Run a part; what it prints goes to the screen and the log.

    Parameters
    ----------
    end : clock (`time.monotonic`) at which all parts must have ended
    """
    began = time.monotonic()
    limit = end - began if part.stretches else min(part.limit, end - began)
    if limit < LEAST:
        return Result(part.name, NOT_RUN, 0.0, "no time left")
    command = part.command
    if part.rows is not None:
        part.rows.unlink(missing_ok=True)
        command = [*command, "--json", str(part.rows), "--seconds", f"{0.8 * limit:.0f}"]
    print(f"== {part.name} (at most {limit:.0f} s)", flush=True)
    print(f"== {part.name}: {' '.join(command)}", file=log, flush=True)
    mark = uuid.uuid4().hex
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=environment | {MARK: mark},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,  # a signal for this script is none for the part
    )
    lines: list[str] = []

    def copy() -> None:
        for line in process.stdout:
            print(line, end="", flush=True)
            print(line, end="", file=log, flush=True)
            lines.append(line)

    reader = threading.Thread(target=copy, daemon=True)
    reader.start()
    try:
        code = process.wait(limit)
        status = PASSED if code == 0 else FAILED
    except subprocess.TimeoutExpired:
        status = TIMED_OUT
        os.killpg(process.pid, signal.SIGKILL)
    end_processes(mark)
    # a process that a GPU holds may outlive its signal: it is not waited for
    try:
        process.wait(ENDING)
    except subprocess.TimeoutExpired:
        print(f"== {part.name}: process {process.pid} does not end", file=log, flush=True)
    reader.join(ENDING)
    if not reader.is_alive():
        process.stdout.close()
    rows, last = read_rows(part.rows), first_line("".join(lines), last=True)
    detail = f"{len(rows)} figures" if rows and status == PASSED else last
    return Result(part.name, status, time.monotonic() - began, detail, rows)


def end_processes(mark: str) -> None:
    """Kill what is left of a part, also in sessions of its own, as MPI starts its processes."""
    for path in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):  # of another user, or gone
            if f"{MARK}={mark}".encode() in path.read_bytes():
                os.kill(int(path.parent.name), signal.SIGKILL)


def read_rows(path: Path | None) -> list[dict]:
    """The figures that a part has left, also one that was ended."""
    try:
        return json.loads(path.read_text()) if path is not None else []
    except (OSError, ValueError):
        return []


def table_of(machine: dict, results: list[Result]) -> str:
    """Machine, parts and figures as text."""
    lines = [f"{name:<20} {value}" for name, value in machine.items() if value]
    lines += ["", f"{'part':<14} {'status':<10} {'seconds':>7}"]
    lines += [f"{r.name:<14} {r.status:<10} {r.seconds:>7.0f}  {r.detail[:90]}" for r in results]
    lines += ["", f"{'':<66} {'value':>10} {'at most':>9} {'target':>9}  unit"]
    for result in results:
        for row in result.rows:
            numbers = [row["value"], row["at_most"], row["target"]]
            value, at_most, target = ("-" if n is None else f"{n:.3g}" for n in numbers)
            beyond = row["at_most"] is not None and row["value"] is not None
            mark = "  FAILED" if beyond and not row["value"] <= row["at_most"] else ""
            note = f"  {row['note']}" if row["note"] else ""
            title = f"{result.name}: {row['name']}"
            lines.append(
                f"{title:<66} {value:>10} {at_most:>9} {target:>9}  {row['unit']}{note}{mark}"
            )
    return "\n".join(lines) + "\n"
