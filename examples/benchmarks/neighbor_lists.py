"""Time of a neighbor list of pair_style tdn: built by LAMMPS, or found by the model.

    python examples/benchmarks/neighbor_lists.py

One rank, liquid water, the network nano: steps that make the list anew against steps that do not,
so that the exchange of atoms, new images and the pairs in the memory of the model count, too. Both
kinds of lists take turns.
"""

from __future__ import annotations

import sys
from pathlib import Path

from lammps_runs import read_loops, run_script
from measure import Table, figure, files, grouped_bars, machine, parser, positive, require_compiled
from models import compiled_file, describe
from systems import SPECIES, write_data

from tdn.system.command import run_main

NETWORK = "nano"
LISTS = ("lammps", "own")
SCRIPT = """\
units           metal
atom_style      atomic
boundary        p p p
read_data       {data}
pair_style      tdn device cpu neighbors {neighbors}
pair_coeff      * * {model} {elements}
velocity        all create 300 1 loop geom
timestep        0.0002
neighbor        1.0 bin
fix             move all nve/limit 0.02
thermo          1000000
run             2
neigh_modify    every 100000 delay 100000 check no
run             {steps}
neigh_modify    every 1 delay 0 check no
run             {steps}
"""


def rebuild_time(folder: Path, data: Path, neighbors: str, steps: int, threads: int) -> float:
    """Milliseconds of a step with a new list more than of one without."""
    script = folder / "in.neighbor_lists"
    model, elements = compiled_file(NETWORK, "water", folder), " ".join(SPECIES["water"])
    script.write_text(
        SCRIPT.format(data=data, neighbors=neighbors, model=model, elements=elements, steps=steps)
    )
    _, kept, anew = read_loops(run_script(script, 1, threads))
    assert (kept.rebuilds, anew.rebuilds) == (0, steps)
    atoms = int(data.stem.split("_")[-1])
    return 1e-3 * atoms * (anew.total - kept.total)


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
    print(f"\nmilliseconds for a list, best of {arguments.turns}\n")
    table = Table({"atoms, threads": 15} | dict.fromkeys(LISTS, 8) | {"ratio": 8})
    titles: list[str] = []
    times: dict[str, list[float | None]] = {name: [] for name in LISTS}
    with files(arguments.files) as folder:
        for atoms in arguments.atoms:
            data = folder / f"lists_water_{atoms}"
            write_data(data, "water", atoms)
            for threads in arguments.threads:
                best = dict.fromkeys(LISTS, float("inf"))
                for _ in range(arguments.turns):
                    for name in LISTS:
                        time = rebuild_time(folder, data, name, arguments.steps, threads)
                        best[name] = min(best[name], time)
                ratio = best["own"] / best["lammps"]
                titles.append(f"{atoms}, {threads}")
                table.row(titles[-1], *best.values(), ratio)
                for name, time in best.items():
                    times[name].append(time)
    with figure(arguments.output, width=5.0) as axes:
        if axes is not None:
            grouped_bars(axes, titles, times)
            axes.set_ylabel("milliseconds for a list (atoms, threads)")
    return 0


if __name__ == "__main__":
    sys.exit(run_main(_main, "neighbor_lists.py"))
