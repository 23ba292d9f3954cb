"""Other programs: several at once, their exit codes, and that none outlives its parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tdn.system.errors import TDNError
from tdn.system.programs import Program, find_program, last_error, run_programs


def test_codes_and_output_of_several_programs(tmp_path):
    programs = [
        Program(("sh", "-c", f"echo number {n}; sleep 0.2; exit {n}"), tmp_path / f"{n}.log")
        for n in range(4)
    ]
    ended: dict[int, int] = {}
    calls: list[None] = []
    start = time.monotonic()
    codes = run_programs(programs, 4, 1, lambda: calls.append(None), ended.__setitem__)
    assert codes == [0, 1, 2, 3] and ended == dict(enumerate(codes)) and calls
    assert time.monotonic() - start < 4 * 0.2 + 5
    assert [(tmp_path / f"{n}.log").read_text() for n in range(4)] == [
        f"number {n}\n" for n in range(4)
    ]


def test_threads_and_folder(tmp_path):
    program = Program(("sh", "-c", "pwd; echo $OMP_NUM_THREADS"), tmp_path / "log", tmp_path)
    assert run_programs([program], threads=3) == [0]
    assert (tmp_path / "log").read_text() == f"{tmp_path}\n3\n"


PARENT = """
import sys
from pathlib import Path
from tdn.system.programs import Program, run_programs
command = ("sh", "-c", "echo $$; exec sleep 1000")
run_programs([Program(command, Path(sys.argv[1]))])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="a service of Linux")
def test_a_program_ends_with_its_killed_parent(tmp_path):
    log = tmp_path / "log"
    with subprocess.Popen([sys.executable, "-c", PARENT, str(log)]) as parent:
        deadline = time.monotonic() + 60
        while not (log.exists() and log.read_text().endswith("\n")):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        child = int(log.read_text())
        os.kill(child, 0)  # it is there
        parent.send_signal(signal.SIGKILL)
    for _ in range(500):
        try:
            os.kill(child, 0)
            if "State:\tZ" in Path(f"/proc/{child}/status").read_text():
                return  # dead, and nobody has asked for its exit code yet
        except (ProcessLookupError, FileNotFoundError):
            return
        time.sleep(0.02)
    os.kill(child, signal.SIGKILL)
    pytest.fail("the program outlived its parent")


def test_what_went_wrong(tmp_path):
    log = tmp_path / "log"
    assert last_error(log) == "it wrote nothing"
    log.write_text("start\ntdn-train: error: no frames\nbye\n")
    assert last_error(log) == "tdn-train: error: no frames"
    log.write_text("start\nbye\n\n")
    assert last_error(log) == "bye"


def test_a_missing_program_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(TDNError, match="tdn-nothing was not found"):
        find_program("tdn-nothing")
