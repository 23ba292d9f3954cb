"""Peak memory of an evaluation per atom, on copper.

    python examples/benchmarks/memory.py
    python examples/benchmarks/memory.py --lammps --atoms 400000 --steps 10

Each size runs in a process of its own; kB per atom is the slope of the peak resident memory (what
programs and libraries take does not grow with the atoms). In Python that is one evaluation, the
neighbour list included; with ``--lammps`` it is a run of ``lmp`` with one rank.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from pathlib import Path

from lammps_runs import run_dynamics
from measure import Table, figure, files, machine, parser, positive, require_compiled
from models import compiled_file, describe
from systems import system

from tdn.graph import graph_from_atoms
from tdn.inference.compiled_model import load_compiled
from tdn.system.command import run_main
from tdn.system.errors import TDNError, UsageError

# large enough that memory is not hidden below what importing torch takes for a moment
SIZES = [16_000, 64_000]
QUICK_SIZES = [4_000, 24_000]
LIMIT = 40.0  # kB per atom at the default size
# ru_maxrss counts kibibytes on Linux, bytes on macOS
UNIT = 1 if sys.platform == "darwin" else 1024


def evaluate(path: Path, num_atoms: int) -> None:
    """Evaluate a crystal once in this process, which ends after it."""
    model = load_compiled(path, check=False)
    model(graph_from_atoms(system("copper", num_atoms), model.atomic_numbers, model.r_max))


def run_lammps(path: Path, num_atoms: int, steps: int) -> None:
    """Run ``lmp`` as a child of this process, in the folder of the model."""
    loop = run_dynamics(
        path.parent, path, "copper", num_atoms, steps=steps, runs=1, warm_up=0, threads=2
    )
    print(f"{num_atoms} atoms: {steps} steps, {loop.total:.3g} microseconds per atom and step")


def peak(path: Path, num_atoms: int, steps: int | None) -> float:
    """Peak resident memory in bytes of one size, measured in a process of its own."""
    command = [sys.executable, __file__, "--child", str(path), "--atoms", str(num_atoms)]
    if steps is not None:
        command += ["--lammps", "--steps", str(steps)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    *lines, last = done.stdout.strip().splitlines() or [""]
    if done.returncode != 0 or not last.isdigit():
        reason = done.stderr.strip().splitlines()[-1:] or ["no reason given (out of memory?)"]
        raise TDNError(f"{num_atoms} atoms: exit code {done.returncode}: {reason[0]}")
    for line in lines:
        print(line, file=sys.stderr)
    return float(last)


def _child(arguments) -> int:
    """What runs in the processes that are measured; the last line printed is the peak."""
    (num_atoms,) = arguments.atoms
    if arguments.lammps:
        run_lammps(arguments.child, num_atoms, arguments.steps)
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    else:
        evaluate(arguments.child, num_atoms)
        usage = resource.getrusage(resource.RUSAGE_SELF)
    print(usage.ru_maxrss * UNIT)
    return 0


def _main() -> int:
    command = parser(__doc__)
    command.add_argument(
        "--atoms", type=positive, nargs="+", metavar="N", help="sizes, multiples of 4"
    )
    command.add_argument("--lammps", action="store_true", help="in LAMMPS instead of Python")
    command.add_argument("--steps", type=positive, default=10, help="with --lammps (default 10)")
    command.add_argument("--child", type=Path, metavar="FILE", help="for use by this script")
    arguments = command.parse_args()
    if arguments.child is not None:
        return _child(arguments)
    sizes = arguments.atoms or (QUICK_SIZES if arguments.quick else SIZES)
    if any(n % 4 for n in sizes):
        raise UsageError(f"--atoms {' '.join(map(str, sizes))}: expected multiples of 4")
    if len(sizes) == 1 and sizes[0] > SIZES[0]:
        sizes = [SIZES[0], *sizes]  # a slope needs two
    require_compiled()
    name = "small" if arguments.quick else "default"
    print(machine())
    print(f"{describe(name)}; copper, {'LAMMPS, 1 rank' if arguments.lammps else 'Python'}\n")
    table = Table({"atoms": 10, "peak (MB)": 10, "seconds": 8})
    steps = arguments.steps if arguments.lammps else None
    peaks = []
    with files(arguments.files) as folder:
        path = compiled_file(name, "copper", folder)
        for num_atoms in sizes:
            start = time.perf_counter()
            peaks.append(peak(path, num_atoms, steps))
            table.row(num_atoms, peaks[-1] / 1e6, time.perf_counter() - start)
    if len(sizes) < 2:
        return 0
    slope = (peaks[-1] - peaks[0]) / (sizes[-1] - sizes[0]) / 1e3
    print(f"\n{slope:.1f} kB per atom (limit for the default network: {LIMIT:g})")
    with figure(arguments.output, width=5) as axes:
        if axes is not None:
            axes.plot([n / 1e3 for n in sizes], [p / 1e9 for p in peaks], "o-")
            axes.set_xlabel("thousands of atoms")
            axes.set_ylabel("peak resident memory (GB)")
            axes.set_ylim(bottom=0)
            axes.set_title(f"{slope:.1f} kB per atom", fontsize=9)
    return 0


if __name__ == "__main__":
    sys.exit(run_main(_main, "memory.py"))
