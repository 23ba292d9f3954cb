"""Memory of training on databases of different lengths: it must not grow with them.

    python examples/benchmarks/streaming.py
    python examples/benchmarks/streaming.py --frames 1000 1000000 --workers 2

Makes databases of small molecules with random displacements (about 150 seconds and 290 MB for a
million frames) and trains a very small network for some steps on each, in a process of its own.
Private memory is what counts; pages of the mapped file belong to the page cache of the system.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import ase
import numpy as np
from measure import Table, figure, files, machine, parser, positive

from tdn.config import config_from_dict
from tdn.data import load_dataset
from tdn.data.database.writer import StoreWriter
from tdn.data.frames import Frame
from tdn.system.command import run_main
from tdn.system.errors import TDNError
from tdn.training.trainer import Trainer

SHAPE = np.array([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [-0.25, 0.97, 0.0]])


def make_database(path: Path, count: int) -> None:
    """Water molecules in harmonic wells."""
    rng = np.random.default_rng(0)
    with StoreWriter(path) as writer:
        for number in range(1, count + 1):
            step = 0.05 * rng.normal(size=(3, 3))
            step -= step.mean(axis=0)
            writer.add(
                Frame(
                    atoms=ase.Atoms("OHH", SHAPE + step),
                    number=number,
                    source="synthetic",
                    energy=-2000.0 + 5.0 * float((step**2).sum()),
                    forces=-10.0 * step,
                )
            )


def memory(pid: int | str = "self") -> dict[str, float]:
    """Resident memory of a process in MiB: private, and mapped from files."""
    with open(f"/proc/{pid}/status") as status:
        fields = dict(line.split(":", 1) for line in status)
    return {name: int(fields[name].split()[0]) / 1024 for name in ("RssAnon", "RssFile")}


def train(path: Path, steps: int, workers: int) -> None:
    """Train in this process, and print its memory and that of its largest worker."""
    config = config_from_dict(
        {
            "model": {"r_max": 3.0, "l_max": 1, "num_channels": 4, "num_layers": 1},
            "data": {
                "train": str(path),
                "streaming": "always",
                "num_workers": workers,
                "cache_mb": 16,
                "evaluation_frames": 200,
            },
            "train": {"batch_size": 8, "device": "cpu", "num_threads": 1},
        }
    )
    start = time.perf_counter()
    trainer = Trainer(config, load_dataset(config))
    loading = time.perf_counter() - start
    trainer.model.train()
    planned = trainer.plan_epoch()
    start = time.perf_counter()
    for count, batches in enumerate(planned, start=1):
        trainer._step(batches)
        if count == steps:
            break
    each = 1e3 * (time.perf_counter() - start) / count
    own = memory()
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    largest = max((memory(child)["RssAnon"] for child in children), default=0.0)
    print(loading, each, own["RssAnon"], own["RssFile"], largest)


def _main() -> int:
    command = parser(__doc__)
    command.add_argument("--frames", type=positive, nargs="+", default=[1000, 10_000, 1_000_000])
    command.add_argument("--steps", type=positive, default=1000)
    command.add_argument("--workers", type=int, default=0)
    command.add_argument("--child", type=Path)
    arguments = command.parse_args()
    if not Path("/proc/self/status").exists():
        raise TDNError("memory is read from /proc, which this system does not have")
    if arguments.child:
        train(arguments.child, arguments.steps, arguments.workers)
        return 0
    if arguments.quick:
        arguments.frames, arguments.steps = [200, 500], 10
    print(f"{machine()}; {arguments.steps} steps, {arguments.workers} workers; memory in MiB")
    table = Table(
        {"frames": 10, "start (s)": 10, "ms per step": 12, "private": 9, "file": 9, "worker": 9}
    )
    private: list[float] = []
    with files(arguments.files) as folder:
        for count in arguments.frames:
            path = folder / f"{count}.lmdb"
            if not path.exists():
                make_database(path, count)
            options = ["--steps", str(arguments.steps), "--workers", str(arguments.workers)]
            done = subprocess.run(
                [sys.executable, __file__, "--child", str(path), *options],
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode:
                raise TDNError(f"{count} frames: {done.stderr.strip().splitlines()[-1]}")
            values = [float(word) for word in done.stdout.split()[-5:]]
            table.row(str(count), *values)
            private.append(values[2])
    with figure(arguments.output) as axes:
        if axes is not None:
            axes.plot(arguments.frames, private, "o-", color="#0b5d8a")
            axes.set(xscale="log", xlabel="frames", ylabel="private memory (MiB)")
            axes.set_ylim(bottom=0)
    return 0


if __name__ == "__main__":
    sys.exit(run_main(_main, "streaming.py"))
