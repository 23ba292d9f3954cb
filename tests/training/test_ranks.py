"""Data-parallel training and killed runs, as torchrun and the system do it."""

from __future__ import annotations

import os
import random
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import forks
import numpy as np
import pytest
import torch
from training.helpers import main_failing_on_one_rank, write_config, write_frames

from tdn.network.checkpoint import load_model, read_checkpoint
from tdn.training.batching import Batches
from tdn.training.cli import main
from tdn.training.run.csv_log import read_log

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}


def torchrun(ranks: int) -> list[str]:
    """The start of a command; any free port, so that tests do not meet."""
    return [
        *(forks.python(), "-m", "torch.distributed.run", "--nproc-per-node", str(ranks)),
        *("--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0"),
    ]


def train(command: list[str], *arguments: object) -> subprocess.CompletedProcess:
    return subprocess.run(
        [*command, *map(str, arguments)],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=300,
    )


def state_of(folder: Path) -> dict[str, torch.Tensor]:
    """Weights, averages and optimizer of ``last.pt``, and the best weights, by name."""
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
                left, right = part["left_basis"], part["right_basis"]
                tensors[f"soap.{name}"] = left @ part["mean"] @ right.mT
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


# keys of the training section of runs on two ranks
RUNS = {
    # 9 training frames: batches of 4, 4 and 1 do not divide by the ranks, and the last leaves
    # nothing for the second rank
    "frames": {"batch_size": 4},
    "edges": {"max_edges_per_batch": 150, "accumulate": 2},
    "adamw": {"batch_size": 4, "optimizer": "adamw"},
}
KILLED = {"max_epochs": 40, "save_interval": 0.0, "dtype": "float64", "batch_size": 2}

# starting ranks takes seconds, so they work on several configurations
SCRIPT = """
import sys
from pathlib import Path
from tdn.system.ranks import run_on_ranks
from tdn.training import cli

def command(ranks):
    import torch.distributed.nn  # as torch itself does at times of its own
    return max(cli._main([config], ranks) for config in sys.argv[1:])

assert run_on_ranks(command, "test") == 0
threads = [(thread / "comm").read_text() for thread in Path("/proc/self/task").glob("*")]
sys.exit(str(threads) if any("gloo" in name for name in threads) else 0)
"""


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory) -> Path:
    """A folder with the folders of finished runs on two ranks."""
    root = tmp_path_factory.mktemp("two_ranks")
    configs = [folder_with(root / name, 12, **keys) for name, keys in RUNS.items()]
    configs.append(folder_with(root / "straight", 8, **KILLED))
    (root / "script.py").write_text(SCRIPT)
    result = train([*torchrun(2), str(root / "script.py")], *configs)
    # no thread of the group outlives the command, or the exit code is 1
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("on cpu and 2 ranks") == len(configs)
    assert result.stdout.count("network: ") == len(configs)  # one rank prints
    # about E0, not once per rank
    assert result.stderr.count("warning: ") == len(configs)
    return root


@pytest.mark.slow
@pytest.mark.parametrize("name", list(RUNS))
def test_two_ranks_give_the_weights_of_one(tmp_path, two_ranks, name):
    one, two = tmp_path / "one", two_ranks / name
    assert main([str(folder_with(one, 12, **RUNS[name]))]) == 0
    assert largest_difference(state_of(one), state_of(two)) < 1e-8
    rows = [read_log(folder / "run" / "log.csv") for folder in (one, two)]
    for key in ("train_loss", "valid_loss", "valid_forces_rmse", "valid_stress_mae"):
        assert rows[0][0][key] == pytest.approx(rows[1][0][key], rel=1e-7)


def with_step(folder: Path, condition: str, action: str) -> Path:
    """A script that trains, and does something instead of a step under a condition."""
    script = folder / "script.py"
    script.write_text(
        "import os, signal, sys\n"
        "from tdn.training import cli, trainer\n"
        "step = trainer.Trainer._step\n"
        "def changed(self, *arguments):\n"
        f"    if {condition}:\n"
        f"        {action}\n"
        "    step(self, *arguments)\n"
        "trainer.Trainer._step = changed\n"
        "sys.exit(cli.main())\n"
    )
    return script


@pytest.mark.slow
def test_torchrun_restarts_ranks_from_the_last_state(tmp_path):
    """A rank is killed once; torchrun starts all again, and the weights are those of one run."""
    keys = {"max_epochs": 3, "batch_size": 2, "save_interval": 0.0}
    straight = folder_with(tmp_path / "straight", 8, **keys)
    assert main([str(straight)]) == 0
    config = folder_with(tmp_path / "killed", 8, **keys)
    dying = (
        "os.environ['TORCHELASTIC_RESTART_COUNT'] == '0' and os.environ['RANK'] == '1' "
        "and self.progress.step == 4"
    )
    script = with_step(tmp_path, dying, "os.kill(os.getpid(), signal.SIGKILL)")
    result = train([*torchrun(2), "--max-restarts", "1", str(script)], config)
    assert result.returncode == 0, result.stderr
    assert "going on from" in result.stdout
    assert "the connection to another rank is lost" in result.stderr
    assert largest_difference(state_of(straight.parent), state_of(config.parent)) < 1e-8


def written(folder: Path) -> int:
    """When ``last.pt`` was written; zero if it is not there."""
    path = folder / "run" / "last.pt"
    return path.stat().st_mtime_ns if path.exists() else 0


def start(
    config: Path, ranks: int, *overrides: str, command: Callable[[list[str]], int] = main
) -> list[forks.Process]:
    """The processes of a run, started without torchrun; all write to ``ranks.log``."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = {"MASTER_ADDR": "localhost", "MASTER_PORT": str(free.getsockname()[1])}
    sizes = {"WORLD_SIZE": str(ranks), "LOCAL_WORLD_SIZE": str(ranks)}
    return [
        forks.start(
            command,
            [str(config), *overrides],
            config.with_name("ranks.log"),
            **{**address, **sizes, "RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in range(ranks)
    ]


def kill_at(processes: list[forks.Process], folder: Path, before: int, seconds: float) -> None:
    """SIGKILL some time after the run has written a state again; no cleaning up."""
    try:
        deadline = time.monotonic() + 120
        while written(folder) == before:
            assert processes[0].is_alive() and time.monotonic() < deadline, "did not start"
            time.sleep(0.01)
        time.sleep(seconds)
        assert processes[0].is_alive(), "ended too soon to be killed"
    finally:
        for process in processes:
            process.kill()
        for process in processes:
            process.join(30)


@pytest.mark.slow
def test_an_error_on_ranks_is_told_once(tmp_path):
    """All ranks meet the same mistake, or one alone: one line, and all end."""
    config = folder_with(tmp_path / "wrong", 4)
    log = config.with_name("ranks.log")
    for command, overrides, error in (
        (main, ["train.sed=1"], "did you mean 'seed'?"),
        (main_failing_on_one_rank, ["train.max_epochs=5"], "error: only rank 1 fails"),
    ):
        log.unlink(missing_ok=True)
        processes = start(config, 2, *overrides, command=command)
        for process in processes:
            process.join(120)
        assert all(process.exitcode for process in processes)
        assert log.read_text().count("tdn-train: error: ") == 1
        assert error in log.read_text()


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 2])
def test_killed_runs_end_with_the_same_weights(tmp_path, request, ranks):
    """SIGKILL at random moments, while a state is written after each step."""
    config = folder_with(tmp_path / "killed", 8, **KILLED)
    killed = config.parent
    if ranks == 1:
        straight = tmp_path / "straight"
        assert main([str(folder_with(straight, 8, **KILLED))]) == 0
    else:
        straight = request.getfixturevalue("two_ranks") / "straight"
    rng = random.Random(ranks)
    for _ in range(3 if ranks == 1 else 2):
        kill_at(start(config, ranks), killed, written(killed), 0.4 * rng.random())
    progress = read_checkpoint(killed / "run" / "last.pt", "tdn-training")["progress"]
    assert 0 < progress["step"] < KILLED["max_epochs"] * 3
    if ranks == 1:
        assert main([str(config)]) == 0
    else:
        processes = start(config, ranks)
        for process in processes:
            process.join(300)
        assert [process.exitcode for process in processes] == [0, 0]
    assert largest_difference(state_of(straight), state_of(killed)) < 1e-12
    logs = [read_log(folder / "run" / "log.csv") for folder in (straight, killed)]
    assert [row["epoch"] for row in logs[1]] == list(range(1, KILLED["max_epochs"] + 1))
    for one, other in zip(*logs, strict=True):
        assert one["valid_loss"] == pytest.approx(other["valid_loss"], rel=1e-7)


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
