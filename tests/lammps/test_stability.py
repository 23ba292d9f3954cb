"""``tdn-eval md --engine lammps``: the run of ``md`` with the plugin."""

import json
import subprocess

import ase
import ase.io
import forks
import numpy as np
import pytest
from ase.build import molecule
from structures import TRAINED_MODEL, random_model

from tdn.evaluation.cli import main
from tdn.evaluation.stability import Stage, run_stability
from tdn.inference.calculator import TDNCalculator
from tdn.network.checkpoint import save_model
from tdn.system.errors import TDNError
from tdn_lammps.stability import _with_end, run_stability_in_lammps

pytestmark = pytest.mark.lammps


@pytest.fixture(autouse=True)
def forked(plugin, monkeypatch):
    """LAMMPS starts in no time."""
    forks.take_over(monkeypatch, lmp=True)


def water() -> ase.Atoms:
    return molecule("H2O")


def tilted_water() -> ase.Atoms:
    """Eight molecules in a triclinic cell whose first vector is not along x."""
    atoms = molecule("H2O")
    atoms.set_cell([[0.0, 3.4, 0.0], [3.3, 0.6, 0.2], [0.3, -0.5, 3.6]])
    atoms.pbc = True
    return atoms.repeat(2)


@pytest.mark.parametrize("build", [water, tilted_water])
def test_both_engines_start_from_the_same_state(build):
    """Total energy and temperature at the start, from equal velocities; both run to the end."""
    atoms = build()
    calculator = TDNCalculator(TRAINED_MODEL, "cpu", "float64")
    conditions = {"temperature": 40.0, "timestep": 0.2, "steps": 20, "seed": 3}
    expected = run_stability(atoms, calculator, **conditions)
    found = run_stability_in_lammps(
        atoms, TRAINED_MODEL, device="cpu", dtype="float64", **conditions
    )
    for mine, theirs in zip(found, expected, strict=True):
        assert mine.name == theirs.name and mine.broken is None and theirs.broken is None
        np.testing.assert_allclose(mine.time, theirs.time, rtol=1e-12)
    # files hold positions and velocities to nine digits or so; units differ in the seventh
    kinetic = 1.5 * len(atoms) * 8.617e-5 * found[0].temperature[0]
    assert found[0].temperature[0] == pytest.approx(expected[0].temperature[0], rel=1e-5)
    assert abs(found[0].energy[0] - expected[0].energy[0]) < 1e-5 * kinetic + 1e-6
    # velocity Verlet conserves p^2 / 2 + (1 - (w dt)^2 / 4) w^2 x^2 / 2, so that the energy of a
    # mode varies by its (w dt)^2 / 4; none is faster than the stretch of O-H, 3756 / cm, and all
    # modes together have twice the kinetic energy, give or take a factor of two
    fastest = 0.7074 * conditions["timestep"]  # radians per step
    assert np.ptp(found[1].energy) < 4 * kinetic * fastest**2 / 4
    # the second stage begins where the first ended
    assert found[1].energy[0] == pytest.approx(found[0].energy[-1], abs=1e-9)


def test_a_run_that_breaks_says_why(tmp_path, capsys):
    """Steps of 40 fs are longer than a vibration of O-H: nothing holds."""
    ase.io.write(tmp_path / "frames.xyz", water())
    arguments = ["md", str(TRAINED_MODEL), str(tmp_path / "frames.xyz"), "--engine", "lammps"]
    arguments += ["--timestep", "40", "--steps", "200", "-o", str(tmp_path / "out")]
    assert main(arguments) == 1
    assert "broke (" in capsys.readouterr().out
    stage = json.loads((tmp_path / "out" / "md.json").read_text())["NVT"]
    assert stage["broken"] and stage["lifetime_ps"] < 8.0


def test_what_lammps_refuses_is_one_line(tmp_path, capsys):
    """An element that the model does not know."""
    ase.io.write(tmp_path / "frames.xyz", molecule("CH4"))
    arguments = ["md", str(TRAINED_MODEL), str(tmp_path / "frames.xyz"), "--engine", "lammps"]
    assert main(arguments) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "tdn-eval: error: " in error and "element C of" in error


def test_direct_forces_run_too(tmp_path):
    """A checkpoint whose forces are no gradient: exported and run as in ASE."""
    model = tmp_path / "direct.pt"
    save_model(model, random_model("attention", forces="direct"), {})
    conditions = {"temperature": 40.0, "timestep": 0.02, "steps": 10, "seed": 3}
    expected = run_stability(water(), TDNCalculator(model, "cpu", "float64"), **conditions)
    with pytest.warns(UserWarning, match="direct forces are no gradient"):
        found = run_stability_in_lammps(water(), model, device="cpu", dtype="float64", **conditions)
    for mine, theirs in zip(found, expected, strict=True):
        assert mine.name == theirs.name and mine.broken is None and theirs.broken is None
    assert [stage.name for stage in found] == ["NVT", "NVE"]
    assert found[0].temperature[0] == pytest.approx(expected[0].temperature[0], rel=1e-5)
    kinetic = 1.5 * 3 * 8.617e-5 * found[0].temperature[0]
    assert abs(found[0].energy[0] - expected[0].energy[0]) < 1e-5 * kinetic + 1e-6
    # forces that are no gradient heat the molecule; the noise of the thermostat differs
    mine, theirs = (
        stages[1].temperature[-1] - stages[1].temperature[0] for stages in (found, expected)
    )
    assert theirs > 5.0 and mine == pytest.approx(theirs, rel=0.1)


def test_a_missing_plugin_is_named(tmp_path):
    unknown = subprocess.CompletedProcess(
        "lmp", 1, "ERROR: Unrecognized pair style 'tdn' (src/force.cpp:275)\n"
    )
    with pytest.raises(TDNError, match=r"does not know pair_style tdn.*run: tdn-lammps info"):
        _with_end([], unknown)


@pytest.mark.parametrize("samples", [0, 2])
def test_a_crash_is_no_stable_run(samples):
    """A program that is killed prints no error; what it wrote before does not make it stable."""
    stage = Stage("NVT", 3, [0.1] * samples, [0.0] * samples, [300.0] * samples)
    killed = subprocess.CompletedProcess("lmp", -9, "Step TotEng KinEng\n")
    if samples == 0:
        with pytest.raises(TDNError, match="before its first step with: exit code -9"):
            _with_end([stage], killed)
        return
    assert _with_end([stage], killed)[0].broken == "LAMMPS ended with: exit code -9"
