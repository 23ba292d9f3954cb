"""ASE's calculator of the LAMMPS library, with the MPI of this environment."""

import subprocess
import sys

import pytest
from structures import TRAINED_MODEL

from tdn_export import export_model

pytestmark = pytest.mark.lammps

CODE = """
import sys
import tdn_lammps
from ase.build import molecule
from ase.calculators.lammpslib import LAMMPSlib
from tdn import TDNCalculator

atoms = molecule("H2O", vacuum=5.0)
atoms.pbc = True
atoms.calc = LAMMPSlib(
    lmpcmds=["pair_style tdn device cpu", f"pair_coeff * * {sys.argv[1]} H O"],
    atom_types={"H": 1, "O": 2},
    log_file=None,
)
found, forces = atoms.get_potential_energy(), atoms.get_forces()
atoms.calc = TDNCalculator(sys.argv[1], "cpu")
print(found - atoms.get_potential_energy(), abs(forces - atoms.get_forces()).max())
"""


def test_lammpslib_finds_mpi(plugin, tmp_path):
    """Energy and forces are those of the ASE calculator; nothing loads MPI but ``tdn_lammps``."""
    model = tmp_path / "model.tdn.pth"
    export_model(TRAINED_MODEL, model, dtype="float64")
    result = subprocess.run(
        [sys.executable, "-c", CODE, str(model)], capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    energy, forces = map(float, result.stdout.split()[-2:])
    assert abs(energy) < 1e-6 and forces < 1e-6
