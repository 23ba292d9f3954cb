"""The pair style together with other commands of LAMMPS."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from .conftest import LammpsRunner, thermo_rows
from .toy import closed_form

LIQUID = """\
units metal
atom_modify map yes
region box block 0 9 0 9 0 9
create_box {types} box
create_atoms 1 random 24 11 box overlap 1.1 maxtry 900
create_atoms 2 random 12 12 box overlap 1.1 maxtry 900
mass 1 1.008
mass 2 15.999
"""
TDN = "pair_style tdn\npair_coeff * * toy1.tdn.pth H O\n"
THERMO = """\
thermo_style custom step pe etotal press vol lx
thermo_modify format float %.17g
"""


def liquid(types: int = 2) -> str:
    return LIQUID.format(types=types)


def test_minimize_and_energy_conservation(lmp: LammpsRunner) -> None:
    script = liquid() + TDN + THERMO
    script += """
minimize 1e-10 1e-4 200 400
velocity all create 300 7
fix 1 all nve
timestep 0.0002
thermo 50
run 500
"""
    rows = thermo_rows(lmp(script))
    minimised, dynamics = rows[:-11], np.array(rows[-11:])
    assert minimised[-1][1] < minimised[0][1] - 1.0
    kinetic = 1.5 * 35 * 8.617333e-5 * 300
    drift = np.ptp(dynamics[:, 2])
    assert drift < 0.01 * kinetic
    assert np.ptp(dynamics[:, 1]) > 10 * drift  # energy does go back and forth


def test_npt_changes_the_cell_and_conserves_energy(lmp: LammpsRunner) -> None:
    """The virial drives the cell: energy with thermostat and barostat (econserve) stays."""
    script = liquid() + TDN
    script += """
minimize 1e-10 1e-4 200 400
velocity all create 300 7
fix 1 all npt temp 300 300 0.1 aniso 0 0 0.5
timestep 0.0002
thermo 100
thermo_style custom step pe econserve press vol
thermo_modify format float %.17g
run 400
"""
    rows = np.array(thermo_rows(lmp(script))[-5:])
    assert abs(rows[-1, 4] / rows[0, 4] - 1) > 1e-3
    assert np.ptp(rows[:, 2]) < 0.02


def test_rerun_gives_the_same_energies(lmp: LammpsRunner) -> None:
    script = liquid() + TDN + THERMO
    script += """
minimize 1e-10 1e-4 100 200
velocity all create 300 7
fix 1 all nve
timestep 0.0002
thermo 10
dump 1 all custom 10 run.dump id type x y z ix iy iz
dump_modify 1 format float %.17g
run 50
rerun run.dump dump x y z ix iy iz box yes
"""
    rows = np.array(thermo_rows(lmp(script)))
    run, rerun = rows[-12:-6], rows[-6:]
    np.testing.assert_allclose(rerun[:, 1], run[:, 1], rtol=1e-12)


def test_run_zero_repeats(lmp: LammpsRunner) -> None:
    rows = thermo_rows(lmp(liquid() + TDN + THERMO + "run 0\nrun 0\nrun 0 pre no\n"))
    assert rows[0][1] == pytest.approx(rows[1][1], rel=1e-14)
    assert rows[0][1] == pytest.approx(rows[2][1], rel=1e-14)


def test_null_types_in_hybrid(lmp: LammpsRunner, tmp_path: Path) -> None:
    """A third type belongs to Lennard-Jones; the total is the sum of the two."""
    script = liquid(types=3)
    script += """
create_atoms 3 random 10 13 box overlap 1.2 maxtry 900
mass 3 40.0
pair_style hybrid tdn lj/cut 4.0
pair_coeff * * tdn toy2.tdn.pth H O NULL
pair_coeff 1*3 3 lj/cut 0.01 2.0
compute tdn all pair tdn
compute lj all pair lj/cut
thermo_style custom step pe c_tdn c_lj
thermo_modify format float %.17g
dump 1 all custom 1 out.dump id type x y z fx fy fz
dump_modify 1 sort id format float %.17g
run 0
"""
    for ranks in (1, 2):
        energy, tdn, lj = thermo_rows(lmp(script, ranks=ranks))[0][1:]
        lines = (tmp_path / "out.dump").read_text().splitlines()[9:]
        table = np.array([[float(word) for word in line.split()] for line in lines])
        mine = table[table[:, 1] < 3]
        want = closed_form(mine[:, 1].astype(int) - 1, mine[:, 2:5], np.eye(3) * 9.0, layers=2)
        assert tdn == pytest.approx(want["energy"].sum(), rel=1e-12)
        assert energy == pytest.approx(tdn + lj, rel=1e-12)
        assert lj != 0.0


def test_hybrid_overlay_and_two_models(lmp: LammpsRunner) -> None:
    """Two instances of the style at once; each has its own model and cutoff."""
    single = {}
    for model in ("toy2", "short"):
        coeff = f"pair_style tdn\npair_coeff * * {model}.tdn.pth H O\n"
        single[model] = thermo_rows(lmp(liquid() + coeff + THERMO + "run 0\n"))[0][1]
    overlay = """
pair_style hybrid/overlay tdn tdn lj/cut 4.0
pair_coeff * * tdn 1 toy2.tdn.pth H O
pair_coeff * * tdn 2 short.tdn.pth H O
pair_coeff * * lj/cut 0.0 2.0
"""
    for ranks in (1, 2):
        both = thermo_rows(lmp(liquid() + overlay + THERMO + "run 0\n", ranks=ranks))[0][1]
        assert both == pytest.approx(single["toy2"] + single["short"], rel=1e-12)


def test_model_can_be_replaced(lmp: LammpsRunner) -> None:
    """A second pair_coeff, and a second pair_style of another cutoff, in one input."""
    script = liquid() + TDN + THERMO + "run 0\n"
    script += "pair_coeff * * short.tdn.pth H O\nrun 0\n"
    script += "pair_style tdn device cpu\npair_coeff * * toy1.tdn.pth H O\nrun 0\n"
    first, short, again = (row[1] for row in thermo_rows(lmp(script)))
    assert short != pytest.approx(first, rel=1e-3)
    assert again == pytest.approx(first, rel=1e-14)


def test_one_element_for_several_types(lmp: LammpsRunner) -> None:
    """Types 1 and 2 both hydrogen: as if all atoms were hydrogen."""
    all_h = liquid() + "pair_style tdn\npair_coeff * * toy1.tdn.pth H H\n"
    one_type = all_h.replace("H H", "H O") + "set group all type 1\n"
    energies = [thermo_rows(lmp(s + THERMO + "run 0\n"))[0][1] for s in (all_h, one_type)]
    assert energies[0] == pytest.approx(energies[1], rel=1e-14)


def test_atoms_come_and_go(lmp: LammpsRunner) -> None:
    """Deposited and deleted atoms; at the end the energy is that of a fresh start."""
    script = liquid().replace("0 9\n", "0 30\n") + TDN + THERMO
    script += (
        """
minimize 1e-6 1e-3 50 100
region top block 0 9 0 9 20 28
fix 1 all nve
fix 2 all deposit 5 1 20 77 region top near 1.5
timestep 0.0005
thermo 50
run 150
unfix 2
group gone id 3 9 17
delete_atoms group gone compress no
run 50
write_data end.data
run 0
clear
units metal
atom_modify map yes
read_data end.data
"""
        + TDN
        + THERMO
        + "run 0\n"
    )
    rows = thermo_rows(lmp(script))
    assert rows[-1][1] == pytest.approx(rows[-2][1], rel=1e-9)


@pytest.mark.parametrize("ranks", [1, 2])
def test_no_atoms_at_all(lmp: LammpsRunner, ranks: int) -> None:
    script = "region box block 0 9 0 9 0 9\ncreate_box 2 box\nmass * 1.0\n"
    script = "units metal\n" + script + TDN.replace("toy1", "toy2") + "thermo_modify lost ignore\n"
    rows = thermo_rows(lmp(script + "run 2\n", ranks=ranks))
    assert rows[-1][2] == 0.0


def test_restart_needs_the_model_again(lmp: LammpsRunner) -> None:
    script = liquid() + TDN + THERMO + "run 0\nwrite_restart state.restart\nclear\n"
    missing = lmp(script + "read_restart state.restart\nrun 0\n", fails=True)
    assert "ERROR" in missing
    rows = thermo_rows(lmp(script + "read_restart state.restart\n" + TDN + THERMO + "run 0\n"))
    assert rows[0][1] == pytest.approx(rows[1][1], rel=1e-14)


def test_a_command_that_fails_leaves_no_half_set_style(
    plugin: Path, models: Path, tmp_path: Path
) -> None:
    """A script in Python that goes on after an error: no other model with the elements of this."""
    (tmp_path / "in.python").write_text(liquid() + TDN.replace("toy1", str(models / "toy1")))
    code = f"""
import tdn_lammps
lmp = tdn_lammps.lammps(cmdargs=["-screen", "none", "-log", "none"])
lmp.file("in.python")
lmp.command("run 0")
before = lmp.get_thermo("pe")
for command in ("pair_coeff * * {models}/short.tdn.pth H X", "run 0"):
    try:
        lmp.command(command)
        print("no error")
    except Exception as error:
        print(error)
lmp.command("pair_coeff * * {models}/toy1.tdn.pth H O")
lmp.command("run 0")
print("same", lmp.get_thermo("pe") == before)
lmp.close()
"""
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert result.returncode == 0, result.stderr
    assert "element X of atom type 2 is not in" in result.stdout
    assert "All pair coeffs are not set" in result.stdout
    assert result.stdout.endswith("same True\n")


def test_python_module(plugin: Path, models: Path, tmp_path: Path) -> None:
    """The module of LAMMPS inside Python, in a process of its own since it brings MPI."""
    (tmp_path / "in.python").write_text(liquid() + TDN.replace("toy1", str(models / "toy1")))
    code = """
import tdn_lammps
lmp = tdn_lammps.lammps(cmdargs=["-screen", "none", "-log", "none"])
lmp.file("in.python")
lmp.command("run 0")
print("energy", repr(lmp.get_thermo("pe")))
lmp.close()
"""
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert result.returncode == 0, result.stderr
    energy = float(result.stdout.split("energy")[1])
    assert energy < 0.0
