"""Weak scaling of pair_style tdn: the same number of atoms per rank on 1, 2, ... MPI ranks.

python examples/benchmarks/lammps_weak_scaling.py [--model model.tdn.pth --ranks 1 2]

Every rank has one thread. The efficiency is the time of one rank over that of n ranks, of medians
of several launches that take turns, so that a change of the machine's speed meets all alike.
"""

from __future__ import annotations

import argparse
import re
import statistics
from pathlib import Path
from tempfile import TemporaryDirectory

import ase.io
from ase.io.lammpsdata import write_lammps_data

from tdn_export import export_model
from tdn_lammps import run_lmp

ROOT = Path(__file__).parents[2]
WATER = ROOT / "examples" / "water" / "water.xyz.gz"
CHECKPOINT = ROOT / "tests" / "data" / "water_small.pt"
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
    (folder / "in.scaling").write_text(SCRIPT.format(copies=ranks, steps=steps))
    environment = {"OMP_NUM_THREADS": "1"}
    result = run_lmp("in.scaling", "-log", "none", ranks=ranks, cwd=folder, environment=environment)
    if result.returncode != 0:
        raise SystemExit(result.stdout)
    seconds, procs, count, atoms = re.findall(
        r"Loop time of (\S+) on (\d+) procs for (\d+) steps with (\d+) atoms", result.stdout
    )[-1]
    assert (int(procs), int(atoms)) == (ranks, ranks * ATOMS_PER_RANK)
    return float(seconds) / int(count)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, help="compiled file that knows H and O")
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
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
    print(f"{ATOMS_PER_RANK} atoms per rank, one thread per rank, median of {arguments.repeats}")
    print(f"{'ranks':>6s}{'atoms':>9s}{'ms/step':>10s}{'spread':>16s}{'efficiency':>12s}")
    first = statistics.median(times[arguments.ranks[0]])
    for ranks, values in times.items():
        median = statistics.median(values)
        spread = f"{1e3 * min(values):.1f} .. {1e3 * max(values):.1f}"
        print(
            f"{ranks:6d}{ranks * ATOMS_PER_RANK:9d}{1e3 * median:10.1f}{spread:>16s}"
            f"{first / median:12.2f}"
        )


if __name__ == "__main__":
    main()
