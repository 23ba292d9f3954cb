"""Weak scaling of pair_style tdn: the same number of atoms per rank on 1, 2, ... MPI ranks.

    python examples/benchmarks/weak_scaling.py [--model model.tdn.pth --ranks 1 2]

Every rank has one thread. The efficiency is the time of one rank over that of n ranks, of medians
of several launches that take turns, so that a change of the machine's speed meets all alike.
"""

from __future__ import annotations

import re
import statistics
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import ase.io
from ase.io.lammpsdata import write_lammps_data
from lammps_runs import run_script
from measure import Table, figure, grouped_bars, machine, parser, positive, require_compiled

from tdn.system.command import run_main
from tdn.system.errors import UsageError
from tdn_export import export_model

ROOT = Path(__file__).parents[2]
WATER = ROOT / "examples" / "water" / "water.xyz.gz"
CHECKPOINT = ROOT / "tests" / "files" / "water_small.pt"
ATOMS_PER_RANK = 1536  # 16 copies of a box of 96

SCRIPT = """\
units metal
processors * 1 1
read_data water.data
replicate {copies} 4 4
pair_style tdn
pair_coeff * * model.tdn.pth H O
neighbor 1.0 bin
velocity all create 300 5 loop geom
timestep 0.0005
fix 1 all nve
thermo 1000
run 3
run {steps}
"""


def seconds_per_step(folder: Path, ranks: int, steps: int) -> float:
    """Time of one step in a launch of LAMMPS, without the first steps and all preparation."""
    script = folder / "in.scaling"
    script.write_text(SCRIPT.format(copies=ranks, steps=steps))
    output = run_script(script, ranks, threads=1)
    seconds, procs, count, atoms = re.findall(
        r"Loop time of (\S+) on (\d+) procs for (\d+) steps with (\d+) atoms", output
    )[-1]
    assert (int(procs), int(atoms)) == (ranks, ranks * ATOMS_PER_RANK)
    return float(seconds) / int(count)


def _main() -> int:
    command = parser(__doc__)
    command.add_argument("--model", type=Path, help="compiled file that knows H and O")
    command.add_argument("--ranks", type=positive, nargs="+", default=[1, 2])
    command.add_argument("--steps", type=positive, default=20)
    command.add_argument("--repeats", type=positive, default=5)
    arguments = command.parse_args()
    if arguments.quick:
        arguments.steps, arguments.repeats = 2, 1
    if arguments.model is not None and not arguments.model.is_file():
        raise UsageError(f"--model {arguments.model} not found; give a compiled file")
    require_compiled()
    print(machine())
    box = next(f for f in ase.io.read(WATER, ":") if f.info["config_type"] == "n32_d1.00_T300")
    with TemporaryDirectory() as name:
        folder = Path(name)
        write_lammps_data(str(folder / "water.data"), box, specorder=["H", "O"], masses=True)
        if arguments.model:
            (folder / "model.tdn.pth").symlink_to(arguments.model.absolute())
        else:
            export_model(CHECKPOINT, folder / "model.tdn.pth")
        times: dict[int, list[float]] = {ranks: [] for ranks in arguments.ranks}
        for _ in range(arguments.repeats):
            for ranks in arguments.ranks:
                times[ranks].append(seconds_per_step(folder, ranks, arguments.steps))
    print(f"{ATOMS_PER_RANK} atoms and one thread per rank, median of {arguments.repeats}\n")
    columns = {"ms/step": 9, "shortest": 10, "longest": 9, "efficiency": 12}
    table = Table({"ranks, atoms": 14, **columns})
    first = statistics.median(times[arguments.ranks[0]])
    for ranks, values in times.items():
        median = statistics.median(values)
        milliseconds = (1e3 * median, 1e3 * min(values), 1e3 * max(values))
        table.row(f"{ranks}, {ranks * ATOMS_PER_RANK}", *milliseconds, first / median)
    with figure(arguments.output, width=4) as axes:
        if axes is not None:
            ideal = [1e3 * first] * len(times)
            medians = [1e3 * statistics.median(values) for values in times.values()]
            grouped_bars(axes, [str(r) for r in times], {"measured": medians, "ideal": ideal})
            axes.set_xlabel("ranks")
            axes.set_ylabel("ms per step")
    return 0


if __name__ == "__main__":
    sys.exit(run_main(_main, "weak_scaling.py"))
