"""Data-parallel training and killed runs, as torchrun and the system do it."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from training.helpers import write_config, write_frames

from tdn.network.checkpoint import load_model, read_checkpoint
from tdn.training.batching import Batches
from tdn.training.run.csv_log import read_log

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
# one process would do for what is tested; starting torchrun takes seconds
TRAIN = [sys.executable, "-m", "tdn.training"]


def torchrun(ranks: int) -> list[str]:
    """The start of a command; any free port, so that tests do not meet."""
    return [
        *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(ranks)),
        *("--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0"),
        *("-m", "tdn.training"),
    ]


def train(command: list[str], config: Path, *overrides: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [*command, str(config), *overrides],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=300,
    )


def state_of(folder: Path) -> dict[str, torch.Tensor]:
    """Weights, averages and optimiser of ``last.pt``, and the best weights, by name."""
    content = read_checkpoint(folder / "run" / "last.pt", "tdn-training")
    tensors = dict(content["model"]["state"])
    for number, average in enumerate(content["average"]["average"]):
        tensors[f"average.{number}"] = average
    parts = content["optimizer"]
    for number, state in parts.get("adamw", parts)["state"].items():
        tensors[f"moment.{number}"] = state["exp_avg"]
    for state in parts.get("soap", {"state": {}})["state"].values():
        for name, part in state.items():
            if isinstance(part, dict):  # eigenvectors have no sign of their own, the mean has one
                tensors[f"soap.{name}"] = part["exp_avg"]
    best, _ = load_model(folder / "run" / "model.pt")
    return tensors | {f"best.{k}": v for k, v in best.state_dict().items()}


def largest_difference(one: dict, other: dict) -> float:
    """Relative to the largest entry of each tensor."""
    assert one.keys() == other.keys()
    worst = 0.0
    for name, value in one.items():
        scale = value.double().abs().max().item() if value.numel() else 0.0
        difference = (value.double() - other[name].double()).abs().max().item() if scale else 0.0
        worst = max(worst, difference / scale if scale else 0.0)
    return worst


def folder_with(path: Path, count: int, **train_keys) -> Path:
    path.mkdir()
    write_frames(path / "train.xyz", count, pbc=True)
    return write_config(path, train={"max_epochs": 1, **train_keys})


ENDING = """
import os, sys
from pathlib import Path
import torch
from tdn.system.ranks import run_on_ranks

def command(ranks):
    import torch.distributed.nn  # as torch itself does at times of its own
    ranks.sum(torch.ones(3))
    return 0

assert run_on_ranks(command, "test") == 0
threads = [(thread / "comm").read_text() for thread in Path("/proc/self/task").iterdir()]
sys.exit(str(threads) if any("gloo" in name for name in threads) else 0)
"""


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="no list of threads here")
def test_no_thread_of_the_group_outlives_a_command(tmp_path):
    script = tmp_path / "ending.py"
    script.write_text(ENDING)
    result = train([*torchrun(2)[:-2], str(script)], Path(""))
    assert result.returncode == 0, result.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    "keys",
    [
        # 9 training frames: batches of 4, 4 and 1 do not divide by the ranks, and the last
        # leaves nothing for the second rank
        {"batch_size": 4},
        {"max_edges_per_batch": 150, "accumulate": 2},
        {"batch_size": 4, "optimizer": "soap"},
    ],
    ids=["frames", "edges", "soap"],
)
def test_two_ranks_give_the_weights_of_one(tmp_path, keys):
    one = folder_with(tmp_path / "one", 12, **keys)
    two = folder_with(tmp_path / "two", 12, **keys)
    result = train(TRAIN, one)
    assert result.returncode == 0, result.stderr
    result = train(torchrun(2), two)
    assert result.returncode == 0, result.stderr
    assert "on cpu and 2 ranks" in result.stdout
    assert result.stdout.count("network: ") == 1  # one rank prints
    assert result.stderr.count("warning: ") == 1  # about E0, not once per rank
    states = [state_of(config.parent) for config in (one, two)]
    assert largest_difference(*states) < 1e-8
    rows = [read_log(config.parent / "run" / "log.csv") for config in (one, two)]
    for key in ("train_loss", "valid_loss", "valid_forces_rmse", "valid_stress_mae"):
        assert rows[0][0][key] == pytest.approx(rows[1][0][key], rel=1e-7)


@pytest.mark.slow
def test_an_error_on_ranks_is_told_once(tmp_path):
    """All ranks meet the same mistake, or one alone: one line, and all end."""
    config = folder_with(tmp_path / "wrong", 4)
    result = train(torchrun(2), config, "train.sed=1")
    assert result.returncode != 0
    assert result.stderr.count("tdn-train: error: ") == 1
    assert "did you mean 'seed'?" in result.stderr
    script = tmp_path / "one_fails.py"
    script.write_text(
        "import os, sys\n"
        "from tdn.training import cli, trainer\n"
        "from tdn.system.errors import TDNError\n"
        "step = trainer.Trainer._step\n"
        "def failing(self, *arguments):\n"
        "    if os.environ['RANK'] == '1' and self.progress.step == 1:\n"
        "        raise TDNError('only rank 1 fails')\n"
        "    step(self, *arguments)\n"
        "trainer.Trainer._step = failing\n"
        "sys.exit(cli.main())\n"
    )
    result = train([*torchrun(2)[:-2], str(script)], config, "train.max_epochs=5")
    assert result.returncode != 0
    assert result.stderr.count("tdn-train: error: ") == 1
    assert "tdn-train: error: only rank 1 fails" in result.stderr


@pytest.mark.slow
def test_torchrun_restarts_ranks_from_the_last_state(tmp_path):
    """A rank is killed once; torchrun starts all again, and the weights are those of one run."""
    keys = {"max_epochs": 3, "batch_size": 2, "save_interval": 0.0}
    straight = folder_with(tmp_path / "straight", 8, **keys)
    assert train(TRAIN, straight).returncode == 0
    config = folder_with(tmp_path / "killed", 8, **keys)
    script = tmp_path / "killed_once.py"
    script.write_text(
        "import os, signal, sys\n"
        "from tdn.training import cli, trainer\n"
        "step = trainer.Trainer._step\n"
        "def dying(self, *arguments):\n"
        "    first = os.environ['TORCHELASTIC_RESTART_COUNT'] == '0'\n"
        "    if first and os.environ['RANK'] == '1' and self.progress.step == 4:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    step(self, *arguments)\n"
        "trainer.Trainer._step = dying\n"
        "sys.exit(cli.main())\n"
    )
    command = torchrun(2)[:-2]
    result = train([*command, "--max-restarts", "1", str(script)], config)
    assert result.returncode == 0, result.stderr
    assert "going on from" in result.stdout
    assert "the connection to another rank is lost" in result.stderr
    assert largest_difference(state_of(straight.parent), state_of(config.parent)) < 1e-8


def written(folder: Path) -> int:
    """When ``last.pt`` was written; zero if it is not there."""
    path = folder / "run" / "last.pt"
    return path.stat().st_mtime_ns if path.exists() else 0


def kill_at(process: subprocess.Popen, folder: Path, before: int, seconds: float) -> None:
    """SIGKILL some time after the run has written a state again; no cleaning up."""
    deadline = time.monotonic() + 120
    while written(folder) == before:
        assert process.poll() is None and time.monotonic() < deadline, "did not start"
        time.sleep(0.01)
    time.sleep(seconds)
    assert process.poll() is None, "ended too soon to be killed"
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(30)


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 2])
def test_killed_runs_end_with_the_same_weights(tmp_path, ranks):
    """SIGKILL at random moments, while a state is written after each step."""
    keys = {"max_epochs": 60, "save_interval": 0.0, "dtype": "float64", "batch_size": 2}
    straight = folder_with(tmp_path / "straight", 8, **keys)
    killed = folder_with(tmp_path / "killed", 8, **keys)
    command = TRAIN if ranks == 1 else torchrun(ranks)
    assert train(command, straight).returncode == 0
    rng = random.Random(ranks)
    for _ in range(3 if ranks == 1 else 2):
        before = written(killed.parent)
        process = subprocess.Popen(
            [*command, str(killed)],
            env=ENVIRONMENT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        kill_at(process, killed.parent, before, 0.5 * rng.random())
        _kill_workers(killed)
    progress = read_checkpoint(killed.parent / "run" / "last.pt", "tdn-training")["progress"]
    assert 0 < progress["step"] < 60 * 3
    result = train(command, killed)
    assert result.returncode == 0, result.stderr
    assert largest_difference(state_of(straight.parent), state_of(killed.parent)) < 1e-12
    logs = [read_log(c.parent / "run" / "log.csv") for c in (straight, killed)]
    assert [r["epoch"] for r in logs[1]] == [float(n) for n in range(1, 61)]
    for one, other in zip(*logs, strict=True):
        assert one["valid_loss"] == pytest.approx(other["valid_loss"], rel=1e-7)


def _kill_workers(config: Path) -> None:
    """Workers of torchrun live in sessions of their own; those of this test name its file."""
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if str(config).encode() in words:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(entry.name), signal.SIGKILL)


def test_steps_by_frames():
    """The order depends on seed and epoch; every frame comes once."""
    batches = Batches(num_frames=11, batch_size=3, accumulate=2, seed=4)
    steps = batches.steps(0)
    assert [[len(b) for b in step] for step in steps] == [[3, 3], [3, 2]]
    assert batches.steps_per_epoch == 2
    assert sorted(i for step in steps for b in step for i in b) == list(range(11))
    assert steps == Batches(11, 3, 2, 4).steps(0)
    assert steps != batches.steps(1) and steps != Batches(11, 3, 2, 5).steps(0)


def test_steps_by_edges():
    edges = np.random.default_rng(0).integers(1, 40, size=60).tolist()
    edges[7] = 500  # larger than a batch
    batches = Batches(60, 5, 1, 1, edges, max_edges=100)
    for epoch in range(3):
        steps = batches.steps(epoch)
        totals = [sum(edges[i] for b in step for i in b) for step in steps]
        assert all(t <= 100 for t in totals if t != 500) and 500 in totals
        assert sorted(i for step in steps for b in step for i in b) == list(range(60))
        assert steps == batches.steps(epoch)
        # nothing that would have fitted was left out
        firsts = [edges[step[0][0]] for step in steps[1:]]
        assert all(t + f > 100 for t, f in zip(totals[:-1], firsts, strict=True))


def test_the_largest_seed_is_a_seed():
    assert len(Batches(4, 2, seed=2**63 - 1).steps(3)) == 2
