"""Molecular dynamics in LAMMPS on a GPU: microseconds per atom and step, 200 to a million atoms.

    python examples/benchmarks/gpu_scaling.py
    python examples/benchmarks/gpu_scaling.py --networks default --materials water --largest

One rank, float32, forces in every step. Each network and material is one start of LAMMPS, which
goes through the sizes from small to large; what an error or the time limit cuts off is a row
without a number. At the end the default network on copper is doubled until it no longer fits
(``--largest`` does that alone).
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

from gpu_report import Budget, Report, card, gpu_parser
from lammps_runs import read_loops
from measure import chosen_device, files, machine, require_compiled
from models import NETWORKS, compiled_file
from systems import SPECIES, repetitions, write_data

from tdn.system.command import run_main
from tdn_lammps.runtime import find_program

UNIT = {"water": 96, "copper": 256}  # atoms that LAMMPS repeats
COPIES = {"water": (2, 16, 128, 1024, 10368), "copper": (1, 8, 64, 512, 4096)}
LARGEST = tuple(2**n for n in range(13, 17))  # of copper: 2 to 17 million atoms
STEPS = 2_000_000  # atoms times steps of one timed run, at most MOST_STEPS of these
MOST_STEPS, LEAST_STEPS = 1000, 5
ORDER = ("default", "nano", "small", "large")
# microseconds per atom and step from 100,000 atoms on; for 192 atoms of the default network
TARGETS = {"default": 0.5, "small": 0.2, "nano": 0.06}
SMALL_TARGET = 150.0 / 192

SCRIPT = """\
clear
units           metal
atom_style      atomic
boundary        p p p
read_data       {data}
replicate       {copies}
pair_style      tdn device {device}
pair_coeff      * * {model} {elements}
velocity        all create 300 1 loop geom
timestep        0.0002
neighbor        1.0 bin
neigh_modify    every 1 delay 0 check yes
fix             move all nve/limit 0.02
thermo          100
run             {warm_up}
run             {steps} pre no
run             {steps} pre no
"""


@dataclass
class Size:
    """A timed size: best microseconds per atom and step, GB on the card (None if unknown)."""

    atoms: int
    time: float
    memory: float | None


def run_sizes(
    script: Path, counts: list[int], budget: float, threads: int
) -> tuple[list[Size], str]:
    """Run a script with three timed runs for each size; what was reached, and why no more."""
    command = [find_program("lmp"), "-in", script.name, "-log", "none"]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    process = subprocess.Popen(
        command, cwd=script.parent, env=environment, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip
    timer = threading.Timer(max(1.0, budget), lambda: os.killpg(process.pid, signal.SIGKILL))
    timer.start()
    text, memory, loops = "", [], 0
    with process:
        for line in process.stdout:
            text += line
            if line.startswith("Loop time"):
                loops += 1
                if loops % 3 == 2:  # the first timed run of a size: everything is allocated
                    used = card("memory.used")  # MiB
                    memory.append(None if used is None else used * 2**20 / 1e9)
    code = process.returncode
    timed_out = code == -signal.SIGKILL and not timer.is_alive()
    timer.cancel()
    errors = [line for line in text.splitlines() if "ERROR" in line]
    reason = "" if code == 0 else "no time left" if timed_out else (errors or ["lmp died"])[0]
    found = read_loops(text)
    sizes = []
    for k, atoms in enumerate(counts):
        timed = [loop.total for loop in found[3 * k + 1 : 3 * k + 3]]
        if len(timed) == 2:
            sizes.append(Size(atoms, min(timed), memory[k]))
    return sizes, reason[:80]


def write_script(
    path: Path, material: str, model: Path, device: str, copies: tuple[int, ...], quick: bool
) -> list[int]:
    """A script that goes through the sizes; returns their numbers of atoms."""
    data = path.with_name(f"unit_{material}.data")
    write_data(data, material, UNIT[material])
    counts, text = [], ""
    for n in copies:
        atoms = n * UNIT[material]
        steps = 2 if quick else min(MOST_STEPS, max(LEAST_STEPS, STEPS // atoms))
        text += SCRIPT.format(
            data=data, copies=" ".join(map(str, repetitions(n))), device=device, model=model,
            elements=" ".join(SPECIES[material]), warm_up=2 if quick else 10, steps=steps,
        )  # fmt: skip
        counts.append(atoms)
    path.write_text(text)
    return counts


def target_of(name: str, material: str, atoms: int) -> float | None:
    if atoms >= 98_000:
        return TARGETS.get(name)
    return SMALL_TARGET if (name, material, atoms) == ("default", "water", 192) else None


def measure(
    report: Report, name: str, material: str, copies: tuple[int, ...], device: str,
    folder: Path, budget: Budget, quick: bool, threads: int,
) -> str:  # fmt: skip
    """Rows of one network and material; returns why it ended early, if so."""
    script = folder / f"in.gpu_scaling_{name}_{material}"
    model = compiled_file(name, material, folder)
    counts = write_script(script, material, model, device, copies, quick)
    sizes, reason = run_sizes(script, counts, budget.left, threads)
    unit = "us per atom and step"
    for size in sizes:
        note = f"{1e-6 * size.atoms * size.time:.3g} s per step"
        if size.memory is not None:
            note += f", {size.memory:.1f} GB"
        target = target_of(name, material, size.atoms)
        report.add(f"{name}, {material} {size.atoms}", size.time, unit, target=target, note=note)
    for atoms in counts[len(sizes) :]:
        report.add(f"{name}, {material} {atoms}", None, unit, note=reason or "not reached")
    return reason


def _main() -> int:
    command = gpu_parser(__doc__, 80.0)
    command.add_argument("--networks", nargs="+", choices=list(NETWORKS), default=ORDER)
    command.add_argument("--materials", nargs="+", choices=list(UNIT), default=tuple(UNIT))
    command.add_argument("--largest", action="store_true", help="only look for the largest system")
    arguments = command.parse_args()
    if arguments.quick:
        arguments.networks, arguments.materials = ("nano",), ("water",)
    require_compiled()
    device = chosen_device(arguments)
    threads = 2 if device.type == "cpu" else min(8, len(os.sched_getaffinity(0)))
    print(machine(device), flush=True)
    report, budget = Report(arguments.json), Budget(arguments.seconds)
    failures = []
    with files(arguments.files) as folder:
        rest = (folder, budget, arguments.quick, threads)
        if not arguments.largest:
            for material in arguments.materials:
                for name in arguments.networks:
                    copies = COPIES[material][: 1 if arguments.quick else None]
                    if budget.left < 5:
                        note = "no time left"
                        report.add(f"{name}, {material}", None, "us per atom and step", note=note)
                        continue
                    reason = measure(report, name, material, copies, str(device), *rest)
                    # a size that does not fit is a result; one that ends LAMMPS otherwise is not
                    if reason and not re.search("memory|no time left", reason):
                        failures.append(f"{name}, {material}: {reason}")
        if arguments.largest or (budget.left > 20 and device.type == "cuda"):
            copies = (2, 4) if arguments.quick else LARGEST
            measure(report, "default", "copper", copies, str(device), *rest)
    for line in failures:
        print(f"failed: {line}")
    return int(bool(failures)) or report.exit_code()


if __name__ == "__main__":
    sys.exit(run_main(_main, "gpu_scaling.py"))
