"""Stresses in other units and with the opposite sign are noticed, and converted on request."""

from dataclasses import replace

import ase.io
import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT
from copper import copper

from tdn.config import config_from_dict
from tdn.data import Frame, LabelKeys, load_dataset, read_frames
from tdn.data.cli import main
from tdn.data.survey.checks import suspicious
from tdn.data.survey.stress_checks import stress_consistency
from tdn.system.errors import UsageError

# one of each in eV/angstrom^3, from CODATA 2018: 1 eV = 1.602176634e-19 J
GPA = 1e9 * 1e-30 / 1.602176634e-19
UNITS = {
    "GPa": GPA,
    "kbar": 0.1 * GPA,
    "-kbar": -0.1 * GPA,  # VASP
    "-GPa": -GPA,
    "-eV/A^3": -1.0,
    "hartree/bohr^3": 27.211386245988 / 0.529177210903**3,
}


def frames_of(images) -> list[Frame]:
    return [
        Frame(
            atoms,
            number,
            "f.xyz",
            atoms.get_potential_energy(),
            atoms.get_forces(),
            atoms.get_stress(voigt=False),
        )
        for number, atoms in enumerate(images, start=1)
    ]


def scaled(frames: list[Frame], factor: float) -> list[Frame]:
    return [replace(f, stress=factor * f.stress) for f in frames]


@pytest.mark.parametrize(
    ("rattle", "strain"), [(0.1, 0.03), (0.1, 0.0), (0.02, 0.05), (0.2, 0.01), (0.01, 0.005)]
)
def test_stresses_of_copper(rattle, strain):
    frames = frames_of(copper(12, rattle, strain))
    assert stress_consistency(frames) is None
    for unit, value in UNITS.items():
        text = stress_consistency(scaled(frames, 1 / value))
        assert text is not None and f"data.stress_unit='{unit}'" in text
        assert text in suspicious(scaled(frames, 1 / value), [])


def test_an_alloy():
    rng = np.random.default_rng(1)
    images = []
    for _ in range(16):
        atoms = bulk("Cu", cubic=True) * (2, 1, 1)
        atoms.symbols[::3], atoms.symbols[1::3] = "Au", "Ni"
        atoms.positions += 0.1 * rng.normal(size=atoms.positions.shape)
        atoms.calc = EMT()
        images.append(atoms)
    frames = frames_of(images)
    assert stress_consistency(frames) is None
    assert "stress_unit='-kbar'" in stress_consistency(scaled(frames, 1 / UNITS["-kbar"]))


def test_crystals_without_forces_are_judged_by_the_bulk_modulus():
    """An equation of state: copper has about 140 GPa, no matter more than 1000 GPa."""
    images = []
    for scale in np.linspace(0.96, 1.04, 10):
        atoms = bulk("Cu", cubic=True)
        atoms.set_cell(atoms.cell * scale, scale_atoms=True)
        atoms.calc = EMT()
        images.append(atoms)
    frames = frames_of(images)
    assert stress_consistency(frames) is None
    assert "data.stress_unit='-eV/A^3'" in stress_consistency(scaled(frames, -1.0))
    text = stress_consistency(scaled(frames, 1 / GPA))
    assert "bulk modulus" in text and "in GPa?" in text and "or kbar" in text


def test_few_or_unrelated_stresses_are_left_alone():
    frames = frames_of(copper(12))
    rng = np.random.default_rng(0)
    noise = [replace(f, stress=rng.normal(size=(3, 3))) for f in frames]
    assert stress_consistency(noise) is None
    assert stress_consistency([]) is None
    assert stress_consistency([replace(f, stress=None) for f in frames]) is None


@pytest.mark.parametrize("unit", UNITS)
def test_units_are_converted(folder, capsys, unit):
    images = copper(12)
    right = [atoms.get_stress(voigt=False) for atoms in images]
    for atoms in images:
        atoms.calc.results["stress"] = atoms.get_stress() / UNITS[unit]
    ase.io.write("a.xyz", images)
    assert main(["check", "a.xyz"]) == 1
    assert f"--stress-unit={unit}" in capsys.readouterr().out
    assert main(["check", "a.xyz", f"--stress-unit={unit}"]) == 0
    assert main(["convert", "a.xyz", "-o", "a.lmdb", f"--stress-unit={unit}"]) == 0
    data = {"train": "a.xyz", "stress_unit": unit, "valid_fraction": 0}
    dataset = load_dataset(config_from_dict({"data": data}))
    assert dataset.warnings == []
    for frames in (read_frames("a.lmdb"), dataset.train.frames):
        for frame, stress in zip(frames, right, strict=True):
            # the constants of ASE are those of CODATA 2014; numbers are written with 8 digits
            np.testing.assert_allclose(
                frame.stress, stress, rtol=1e-5, atol=2e-8 * abs(UNITS[unit])
            )


def test_unknown_units(folder, capsys):
    ase.io.write("a.xyz", copper(2))
    assert main(["check", "a.xyz", "--stress-unit", "psi"]) == 2
    assert "psi: expected one of eV/A^3, GPa" in capsys.readouterr().err
    with pytest.raises(UsageError, match="stress unit psi"):
        read_frames("a.xyz", LabelKeys(stress_unit="psi"))
    assert main(["convert", "a.xyz", "-o", "a.lmdb"]) == 0
    data = {"train": "a.lmdb", "streaming": "always", "stress_unit": "GPa"}
    with pytest.raises(UsageError, match="streaming exclude each other; convert"):
        load_dataset(config_from_dict({"data": data}))
