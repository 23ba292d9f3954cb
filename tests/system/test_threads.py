"""Threads that wait give their core away, unless a user wants something else."""

import os
import subprocess
import sys

import pytest

from tdn.system.threads import SETTINGS, let_threads_yield


def without_settings() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in SETTINGS}


@pytest.mark.parametrize("name", [None, *SETTINGS])
def test_a_setting_of_the_user_stays(name):
    environment = {} if name is None else {name: "7"}
    let_threads_yield(environment)
    assert environment == ({"OMP_WAIT_POLICY": "passive"} if name is None else {name: "7"})


@pytest.mark.slow
@pytest.mark.parametrize("module", ["tdn", "tdn_lammps.plugins", "tdn_export.cli"])
def test_it_is_set_before_torch(module):
    """Libraries read it when they are loaded."""
    code = (
        "import os, sys\n"
        "def check(event, arguments):\n"
        "    if event == 'import' and arguments[0] == 'torch':\n"
        "        assert os.environ['OMP_WAIT_POLICY'] == 'passive'\n"
        "        os._exit(0)  # loading it takes seconds\n"
        "sys.addaudithook(check)\n"
        f"import {module}\n"
        "assert os.environ['OMP_WAIT_POLICY'] == 'passive'\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], env=without_settings(), capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr


WAITING = """
import time
import tdn
import torch
torch.set_num_threads(2)
x = torch.zeros(1_000_000)
used = slept = 0.0
for _ in range(200):
    x.add_(1.0)  # by both threads
    start, begin = time.process_time(), time.perf_counter()
    time.sleep(0.002)
    used += time.process_time() - start
    slept += time.perf_counter() - begin
print(used / slept)
"""


@pytest.mark.slow
@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="threads on one core do not spin anyway")
def test_a_waiting_thread_takes_no_time():
    """While the first thread sleeps the other one would spin, for most of these milliseconds."""
    result = subprocess.run(
        [sys.executable, "-c", WAITING],
        env=without_settings() | {"OMP_NUM_THREADS": "2"},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    assert float(result.stdout) < 0.05
