"""Threads on a shared machine: LAMMPS steps while another program keeps cores busy.

    python examples/benchmarks/busy_core.py -o busy_core.png

Water with the default network, one rank. "yield" is what ``import tdn`` sets
(``OMP_WAIT_POLICY=passive``): threads that wait for others sleep at once. "spin" is what GCC's
OpenMP does by itself. The settings take turns, so that their ratios stay fair.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lammps_runs import Loop, run_dynamics
from measure import Table, figure, files, grouped_bars, machine, parser, positive, require_compiled
from models import FUSED, compiled_file, describe

from tdn.system.command import run_main

SETTINGS = {
    "yield": {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "0"},
    "spin": {"GOMP_SPINCOUNT": "300000"},
}
OTHERS = ("no other program", "one core busy")
BUSY = (sys.executable, "-c", "while True: pass")


@contextmanager
def busy_cores(count: int) -> Iterator[None]:
    """Programs that always compute, within a block."""
    others = [subprocess.Popen(BUSY) for _ in range(count)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def _main() -> int:
    command = parser(__doc__)
    command.add_argument("--threads", type=positive, default=2, help="of the rank (default 2)")
    command.add_argument("--repeats", type=positive, default=3, help="turns; the best counts")
    command.add_argument(
        "--spins",
        type=positive,
        nargs="*",
        default=[],
        metavar="N",
        help="also with GOMP_SPINCOUNT=N",
    )
    arguments = command.parse_args()
    require_compiled()
    settings = SETTINGS | {f"spin {n}": {"GOMP_SPINCOUNT": str(n)} for n in arguments.spins}
    network, num_atoms, steps = ("small", 96, 2) if arguments.quick else ("default", 192, 200)
    print(machine())
    print(describe(network))
    print(f"\nmicroseconds per atom and step, best of some runs; {num_atoms} atoms of water\n")
    table = Table({"": 16} | {name: 10 for name in settings} | {"spin / yield": 12})
    best: dict[tuple[int, str], float] = {}
    with files(arguments.files) as folder:
        model = compiled_file(network, "water", folder, FUSED)

        def measure(environment: dict[str, str]) -> Loop:
            return run_dynamics(
                folder,
                model,
                "water",
                num_atoms,
                steps=steps,
                runs=1,
                threads=arguments.threads,
                environment=environment,
            )

        for busy in (0, 1):
            for _ in range(1 if arguments.quick else arguments.repeats):
                for name, environment in settings.items():
                    with busy_cores(busy):
                        time = measure(environment).total
                    best[busy, name] = min(time, best.get((busy, name), time))
            times = [best[busy, name] for name in settings]
            table.row(OTHERS[busy], *times, best[busy, "spin"] / best[busy, "yield"])
    draw(arguments.output, list(settings), best)
    return 0


def draw(path: Path | None, names: list[str], best: dict[tuple[int, str], float]) -> None:
    """Bars for each number of busy cores."""
    with figure(path, width=5.0) as axes:
        if axes is not None:
            series = {name: [best[busy, name] for busy in (0, 1)] for name in names}
            grouped_bars(axes, list(OTHERS), series)
            axes.set_ylabel("microseconds per atom and step in LAMMPS")


if __name__ == "__main__":
    sys.exit(run_main(_main, "busy_core.py"))
