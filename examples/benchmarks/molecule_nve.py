"""Energy conservation of a molecule over 100 ps in LAMMPS, with an exported model.

    python examples/benchmarks/molecule_nve.py model.tdn.pth frames.xyz

The first frame is heated to the temperature and held there for a while (Langevin), then left alone.
Printed: drift of the total energy by least squares, its fluctuation, mean temperature, time per
step. Exit code 1 if the drift is above 0.1 meV per atom in 100 ps.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from pathlib import Path

import ase.io
import numpy as np
from ase.io.lammpsdata import write_lammps_data
from lammps_runs import run_script
from measure import positive

from tdn.evaluation.stability import Stage
from tdn.system.command import run_main
from tdn.system.errors import UsageError

LIMIT = 0.1  # meV per atom in 100 ps
SAMPLES = 2000

SCRIPT = """\
units           metal
atom_style      atomic
atom_modify     map yes
boundary        s s s
read_data       molecule.data
pair_style      tdn
pair_coeff      * * {model} {elements}
timestep        {timestep}
neighbor        1.0 bin
neigh_modify    every 1 delay 0 check yes

velocity        all create {temperature} {seed} mom yes rot yes dist gaussian
fix             nve all nve
fix             bath all langevin {temperature} {temperature} 0.1 {seed} zero yes
thermo          100000
run             20000
unfix           bath
# what the bath gave the molecule as a whole stays no longer
velocity        all zero linear
velocity        all zero angular

reset_timestep  0
variable        total equal etotal
variable        now equal time
variable        heat equal temp
fix             record all print {every} "$(v_now:%.6f) $(v_total:%.12f) $(v_heat:%.4f)" &
                file energy.dat screen no
run             {steps}
"""


def run(argv: list[str] | None) -> int:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("model", type=Path, help="compiled model")
    p.add_argument("frames", type=Path, help="file whose first frame is the molecule")
    p.add_argument("--steps", type=positive, default=200_000)
    p.add_argument("--timestep", type=float, default=0.5, help="fs")
    p.add_argument("--temperature", type=float, default=300.0, help="K")
    p.add_argument("--seed", type=positive, default=1)
    arguments = p.parse_args(argv)
    for path in (arguments.model, arguments.frames):
        if not path.is_file():
            raise UsageError(f"{path} not found; give a compiled model and a file of frames")
    atoms = ase.io.read(arguments.frames, index=0)
    atoms.center(vacuum=5.0)
    elements = sorted(set(atoms.get_chemical_symbols()))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_lammps_data(
            folder / "molecule.data", atoms, specorder=elements, masses=True, units="metal"
        )
        (folder / "in.nve").write_text(
            SCRIPT.format(
                model=arguments.model.resolve(),
                elements=" ".join(elements),
                timestep=1e-3 * arguments.timestep,
                temperature=arguments.temperature,
                seed=arguments.seed,
                steps=arguments.steps,
                every=max(1, arguments.steps // SAMPLES),
            )
        )
        output = run_script(folder / "in.nve")
        time, energy, temperature = np.loadtxt(folder / "energy.dat", unpack=True)
    seconds = float(re.findall(r"Loop time of (\S+)", output)[-1])
    stage = Stage("NVE", len(atoms), list(time), list(energy), list(temperature))
    drift = 100 * stage.drift
    print(f"{atoms.get_chemical_formula()}, {time[-1]:.1f} ps at {arguments.timestep:g} fs")
    print(f"mean temperature        {temperature.mean():10.1f} K")
    print(f"drift                   {drift:10.4f} meV per atom in 100 ps")
    print(f"fluctuation             {stage.fluctuation:10.4f} meV per atom")
    print(f"time                    {1e6 * seconds / arguments.steps:10.1f} us per step")
    return 0 if abs(drift) <= LIMIT else 1


if __name__ == "__main__":
    sys.exit(run_main(lambda: run(None), "molecule_nve"))
