"""Time of a neighbor list of pair_style tdn: built by LAMMPS, or found by the model.

    python examples/benchmarks/neighbor_lists.py

One rank, liquid water, the network nano: steps that make the list anew beside steps that do not, so
that the exchange of atoms, new images and the pairs in the memory of the model count, too. Both
kinds of lists take turns.
"""

from __future__ import annotations

import sys
from pathlib import Path

from lammps_runs import SCRIPT, read_loops, run_script
from measure import Table, figure, files, grouped_bars, machine, parser, positive, require_compiled
from models import compiled_file, describe
from systems import SPECIES, write_data

from tdn.system.command import run_main

NETWORK = "nano"
LISTS = ("lammps", "own")
COLUMNS = ("no new list", *LISTS)
RUNS = """\
neigh_modify    every 100000 delay 100000 check no
run             {steps}
neigh_modify    every 1 delay 0 check no
run             {steps}
"""


def step_times(
    folder: Path, data: Path, neighbors: str, steps: int, threads: int
) -> tuple[float, float]:
    """Milliseconds of a step without a new list, and of one with it."""
    script = folder / "in.neighbor_lists"
    start = SCRIPT.format(
        data=data,
        options=f"device cpu neighbors {neighbors}",
        model=compiled_file(NETWORK, "water", folder),
        elements=" ".join(SPECIES["water"]),
        warm_up=2,
    )
    script.write_text(start + RUNS.format(steps=steps))
    _, kept, anew = read_loops(run_script(script, 1, threads))
    assert (kept.rebuilds, anew.rebuilds) == (0, steps)
    milliseconds = 1e-3 * int(data.stem.split("_")[-1])
    return milliseconds * kept.total, milliseconds * anew.total


def _main() -> int:
    command = parser(__doc__)
    command.add_argument("--atoms", type=positive, nargs="+", default=[1536, 12288])
    command.add_argument("--threads", type=positive, nargs="+", default=[1, 2])
    command.add_argument("--steps", type=positive, default=20, help="of a run (default 20)")
    command.add_argument("--turns", type=positive, default=3, help="the best counts (default 3)")
    arguments = command.parse_args()
    if arguments.quick:
        arguments.atoms, arguments.threads = [96], [1]
        arguments.steps, arguments.turns = 4, 1
    require_compiled()
    print(machine())
    print(describe(NETWORK))
    print(f"\nmilliseconds of a step, best of {arguments.turns}, with the last list or a new one\n")
    table = Table({"atoms, threads": 15} | dict.fromkeys(COLUMNS, 11))
    titles: list[str] = []
    times: dict[str, list[float | None]] = {name: [] for name in COLUMNS}
    with files(arguments.files) as folder:
        for atoms in arguments.atoms:
            data = folder / f"lists_water_{atoms}"
            write_data(data, "water", atoms)
            for threads in arguments.threads:
                best = dict.fromkeys(COLUMNS, float("inf"))
                for _ in range(arguments.turns):
                    for name in LISTS:
                        found = step_times(folder, data, name, arguments.steps, threads)
                        for column, time in zip((COLUMNS[0], name), found, strict=True):
                            best[column] = min(best[column], time)
                titles.append(f"{atoms}, {threads}")
                table.row(titles[-1], *best.values())
                for name, time in best.items():
                    times[name].append(time)
    with figure(arguments.output, width=5.0) as axes:
        if axes is not None:
            grouped_bars(axes, titles, times)
            axes.set_ylabel("milliseconds of a step (atoms, threads)")
    return 0


if __name__ == "__main__":
    sys.exit(run_main(_main, "neighbor_lists.py"))
