"""LAMMPS on a GPU against the same on the processor: energies, forces, two ranks, NVE, graphs.

    python examples/benchmarks/gpu_lammps.py
    python examples/benchmarks/gpu_lammps.py --device cpu --quick

The network is the trained one of examples/lammps, the box liquid water. Dynamics with recorded
steps (``graphs yes``) must end where those without do, and is timed. With ``--device cpu`` the
script compares the processor with itself, which tries out the script.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from gpu_report import Budget, Report, gpu_parser
from lammps_runs import read_loops, run_script
from measure import chosen_device, files, machine, require_compiled
from systems import SPECIES, write_data

from tdn.system.command import run_main
from tdn.system.errors import TDNError
from tdn_export import export_model

CHECKPOINT = Path(__file__).parents[1] / "lammps" / "water.pt"
DTYPES = ("float32", "float64")
# eV per atom and eV/angstrom; sums in another order
ENERGY = {"float32": 1e-6, "float64": 1e-10}
FORCES = {"float32": 1e-4, "float64": 1e-10}
REPEATED = 1e-12  # eV/angstrom, two runs on one rank: LAMMPS prints 17 digits
UNRECORDED = "steps cannot be recorded"  # in a warning
DRIFT = 0.02  # meV per atom and ps, float32, 0.5 fs

HEAD = """\
units           metal
atom_style      atomic
boundary        p p p
read_data       {data}
pair_style      tdn device {device} {options}
pair_coeff      * * {model} {elements}
neighbor        1.0 bin
neigh_modify    every 1 delay 0 check yes
"""
SINGLE_POINT = """\
thermo_style    custom step pe press
thermo_modify   format float %.17g
dump            out all custom 1 {dump} id fx fy fz
dump_modify     out sort id format float %.17g
run             0
"""
NVE = """\
velocity        all create 300 1 loop geom
timestep        0.0005
fix             move all nve
run             {equilibration}
variable        e equal etotal
variable        t equal step*dt
fix             log all print 5 "$t $e" file {log} screen no title "# ps eV"
run             {steps}
"""
MOVE = """\
velocity        all create 300 1 loop geom
timestep        0.0005
fix             move all nve
thermo          100
run             {steps}
"""


@dataclass
class Point:
    """Results at one place: energy in eV, forces [N, 3] in eV/angstrom, microseconds of a step.

    ``unrecorded`` has what LAMMPS says of steps that cannot be recorded.
    """

    energy: float
    forces: np.ndarray
    step_time: float
    unrecorded: list[str]


def trained_file(dtype: str, folder: Path) -> Path:
    """The compiled file of the trained network; written if it is not there yet."""
    path = folder / f"trained_{dtype}.tdn.pth"
    if not path.exists():
        export_model(CHECKPOINT, path, dtype=dtype)
    return path


class Runs:
    """Starts of ``lmp`` with one box of water."""

    def __init__(self, folder: Path, num_atoms: int) -> None:
        self.folder, self.num_atoms = folder, num_atoms
        self.data = folder / f"gpu_water_{num_atoms}.data"
        write_data(self.data, "water", num_atoms)

    def run(
        self, dtype: str, device: str, body: str, ranks: int = 1, options: str = "graphs no"
    ) -> str:
        head = HEAD.format(
            data=self.data,
            device=device,
            options=options,
            model=trained_file(dtype, self.folder),
            elements=" ".join(SPECIES["water"]),
        )
        script = self.folder / "in.gpu_lammps"
        script.write_text(head + body)
        return run_script(script, ranks, threads=1 if device != "cpu" else 2)

    def point(
        self, dtype: str, device: str, ranks: int = 1, steps: int = 0, options: str = "graphs no"
    ) -> Point:
        """Where the box begins, or after some steps from there; ``options`` of the pair style."""
        dump = self.folder / "gpu_lammps.dump"
        body = (MOVE.format(steps=steps) if steps else "") + SINGLE_POINT.format(dump=dump)
        output = self.run(dtype, device, body, ranks, options)
        lines = output.splitlines()
        at = next((k for k, line in enumerate(lines) if line.split()[:2] == ["Step", "PotEng"]), -1)
        if at < 0:
            raise TDNError(f"LAMMPS printed no energy: {output.strip().splitlines()[-3:]}")
        table = np.loadtxt(dump, skiprows=9, ndmin=2)
        step_time = read_loops(output)[0].total * self.num_atoms
        unrecorded = [line.partition("graphs no: ")[2] for line in lines if UNRECORDED in line]
        return Point(float(lines[at + 1].split()[1]), table[:, 1:], step_time, unrecorded)

    def drift(self, device: str, steps: int) -> float:
        """Slope of the total energy in meV per atom and ps."""
        log = self.folder / "gpu_lammps.nve"
        body = NVE.format(equilibration=steps // 4, steps=steps, log=log)
        self.run("float32", device, body)
        time, energy = np.loadtxt(log, unpack=True)
        return 1e3 * np.polyfit(time, energy, 1)[0] / self.num_atoms


def compare(report: Report, title: str, dtype: str, found: Point, want: Point) -> None:
    """Rows of the differences between two single points."""
    energy = abs(found.energy - want.energy) / len(want.forces)
    forces = np.abs(found.forces - want.forces).max()
    report.add(f"{title}: energy", energy, "eV per atom", at_most=ENERGY[dtype])
    report.add(f"{title}: forces", forces, "eV/A", at_most=FORCES[dtype])


def compare_graphs(report: Report, runs: Runs, name: str, steps: int) -> None:
    """Rows of dynamics with and without recorded steps."""
    plain, recorded = (
        runs.point("float32", name, steps=steps, options=f"graphs {graphs}")
        for graphs in ("no", "yes")
    )
    note = "; ".join(recorded.unrecorded)
    title = f"{name}, graphs: steps that cannot be recorded"
    report.add(title, len(recorded.unrecorded), "warnings", at_most=0, note=note)
    difference = np.abs(recorded.forces - plain.forces).max()
    report.add(f"{name}, graphs: forces after {steps} steps", difference, "eV/A", at_most=REPEATED)
    for title, point in (("", plain), (", graphs", recorded)):
        report.add(f"{name}, {runs.num_atoms} atoms{title}", point.step_time, "us per step")


def _main() -> int:
    command = gpu_parser(__doc__, 60.0)
    arguments = command.parse_args()
    require_compiled()
    device = chosen_device(arguments)
    name = str(device)
    print(machine(device), flush=True)
    num_atoms, steps = (96, 40) if arguments.quick else (192, 2000)
    report, budget = Report(arguments.json), Budget(arguments.seconds)
    with files(arguments.files) as folder:
        runs = Runs(folder, num_atoms)
        for dtype in DTYPES:
            want = runs.point(dtype, "cpu", options="neighbors lammps")  # a list of its own
            found = runs.point(dtype, name)
            compare(report, f"{dtype}, {name} against cpu", dtype, found, want)
            again = np.abs(runs.point(dtype, name).forces - found.forces).max()
            report.add(f"{dtype}, {name} again: forces", again, "eV/A", at_most=REPEATED)
            compare(report, f"{dtype}, {name}, 2 ranks", dtype, runs.point(dtype, name, 2), want)
        if name == "cpu" or budget.left < 10:
            note = "needs a GPU" if name == "cpu" else "no time left"
            report.add("graphs", None, "us per step", note=note)
        else:
            compare_graphs(report, runs, name, steps)
        for where in dict.fromkeys((name, "cpu")):
            if budget.left < 0 or (arguments.quick and where != name):
                report.add(f"NVE on {where}", None, "meV per atom and ps", note="no time left")
                continue
            slope = abs(runs.drift(where, steps))
            # a quick run is too short for a slope
            limit = None if arguments.quick else DRIFT
            title = f"NVE on {where}, {steps} steps of 0.5 fs"
            report.add(title, slope, "meV per atom and ps", at_most=limit)
    return report.exit_code()


if __name__ == "__main__":
    sys.exit(run_main(_main, "gpu_lammps.py"))
