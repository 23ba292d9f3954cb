"""One LAMMPS with one PyTorch: what the pair style computes against the calculator for ASE.

    python release/trial.py water.tdn.pth --lmp lmp --mpiexec mpiexec

Liquid water of `examples/lammps` on 1 and 2 ranks: energy, forces and pressure of a file in
float64. They differ by the order of sums. Prints one line of JSON; exit code 1 where they differ
by more.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from ase.calculators.lammps import convert
from ase.io import read

from tdn import TDNCalculator
from tdn.system.errors import TDNError
from tdn_export import check

EXAMPLE = Path(__file__).parents[1] / "examples" / "lammps"
# 96 atoms, 432 eV each: sums of 1e5 eV round at 1e-11 eV; both sides print 15 digits and more
ENERGY, FORCES, PRESSURE = 1e-7, 1e-8, 1e-6  # eV, eV/angstrom, relative
INPUT = """\
units         metal
atom_style    atomic
boundary      p p p
read_data     {data}
pair_style    tdn
pair_coeff    * * {model} H O
thermo_style  custom step pe press
thermo_modify format float %.15g
run           0
print         "energy $(pe:%.15g) pressure $(press:%.15g)"
write_dump    all custom forces.txt id fx fy fz modify sort id format float %.16g
"""


def main() -> int:
    """Compare; exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "model", type=Path, help="compiled file of examples/lammps/water.pt, float64"
    )
    parser.add_argument("--lmp", default="lmp")
    parser.add_argument("--mpiexec", default="mpiexec")
    parser.add_argument("--check", action="store_true", help="without LAMMPS: its reference alone")
    arguments = parser.parse_args()
    try:
        if arguments.check:
            deviations, _ = check(arguments.model)
            print(
                json.dumps({"check": f"reference agrees: {deviations['forces']:.0e} eV/angstrom"})
            )
            return 0
        calculator = TDNCalculator(arguments.model, device="cpu")
    except TDNError as error:
        print(json.dumps({"refused": str(error)}))
        return 1
    deviations = {}
    for ranks in (1, 2):
        try:
            found = deviation(calculator, arguments, ranks)
        except TDNError as error:
            print(json.dumps({"refused": str(error)}))
            return 1
        deviations[f"{ranks} ranks"] = found
    print(json.dumps(deviations))
    worst = np.max([list(found.values()) for found in deviations.values()], axis=0)
    return int(not (worst < [ENERGY, FORCES, PRESSURE]).all())


def deviation(calculator: TDNCalculator, arguments: argparse.Namespace, ranks: int) -> dict:
    """Largest differences between LAMMPS and ASE."""
    data = EXAMPLE / "water.data"
    atoms = read(data, format="lammps-data", atom_style="atomic")
    atoms.calc = calculator
    with TemporaryDirectory() as folder:
        script = INPUT.format(data=data, model=arguments.model.absolute())
        Path(folder, "in.trial").write_text(script)
        command = [arguments.lmp, "-in", "in.trial", "-log", "none"]
        if ranks > 1:
            command = [arguments.mpiexec, "-n", str(ranks), *command]
        done = subprocess.run(
            command,
            cwd=folder,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
        )
        printed = re.search(r"^energy (\S+) pressure (\S+)$", done.stdout, re.MULTILINE)
        if done.returncode or printed is None:
            lines = done.stdout.splitlines()
            said = [line for line in lines if re.search("ERROR|WARNING: pair style|^tdn:", line)]
            raise TDNError((said or lines or ["LAMMPS printed nothing"])[0])
        forces = np.loadtxt(Path(folder, "forces.txt"), skiprows=9)[:, 1:]
    pressure = -np.mean(atoms.get_stress()[:3])
    theirs = convert(float(printed[2]), "pressure", "metal", "ASE")
    return {
        "energy": abs(float(printed[1]) - atoms.get_potential_energy()),
        "forces": float(np.abs(forces - atoms.get_forces()).max()),
        "pressure": abs(theirs / pressure - 1),
    }


if __name__ == "__main__":
    sys.exit(main())
