"""Warnings about reference data: wrong units, mixed data, bad frames; each with a count."""

import ase
import ase.units
import numpy as np
import pytest
from ase.build import molecule
from ase.calculators.emt import EMT
from training.helpers import labelled, water_like

from tdn.config import config_from_dict
from tdn.data import load_dataset
from tdn.data.bad_frames import Problems
from tdn.data.dataset.split import split_frames
from tdn.data.frames import Frame
from tdn.data.survey.checks import suspicious
from tdn.data.survey.unit_checks import energy_unit, force_consistency, statistical_atom_energy
from tdn.data.units import ENERGY_UNITS, FORCE_UNITS
from tdn.system.errors import TDNError


def trajectory(count: int = 40) -> list[Frame]:
    """Successive frames of a molecule in the field of EMT, 0.02 angstrom apart."""
    rng = np.random.default_rng(0)
    atoms = molecule("CH3CH2OH")
    frames = []
    for number in range(1, count + 1):
        atoms.positions += 0.02 * rng.normal(size=atoms.positions.shape)
        atoms.calc = EMT()
        frames.append(
            Frame(
                atoms=ase.Atoms(atoms.numbers, atoms.positions),
                number=number,
                source="t.xyz",
                energy=atoms.get_potential_energy(),
                forces=atoms.get_forces(),
            )
        )
    return frames


def scaled(frames, energy=1.0, forces=1.0):
    from dataclasses import replace

    return [replace(f, energy=f.energy * energy, forces=f.forces * forces) for f in frames]


def test_consistent_forces_are_left_alone():
    frames = trajectory()
    assert force_consistency(frames) is None
    # both in the same wrong unit cannot be seen this way
    assert force_consistency(scaled(frames, 0.5, 0.5)) is None
    assert force_consistency(frames[:5]) is None  # too few to say anything
    assert force_consistency(frames[::7]) is None  # too far apart


@pytest.mark.parametrize(
    ("energy", "force"),
    [
        ("hartree", "eV/A"),
        ("kcal/mol", "eV/A"),
        ("eV", "hartree/bohr"),
        ("eV", "kcal/mol/A"),
        ("kJ/mol", "eV/A"),
    ],
)
def test_units_of_energy_and_forces_that_do_not_agree(energy, force):
    frames = scaled(trajectory(), 1 / ENERGY_UNITS[energy], 1 / FORCE_UNITS[force])
    text = force_consistency(frames)
    assert text is not None and f"energies in {energy} with forces in {force}?" in text
    assert text in suspicious(frames, [])


def test_gradients_in_the_place_of_forces():
    text = force_consistency(scaled(trajectory(), 1.0, -1.0))
    assert "gradients where forces are expected" in text


def test_energies_of_atoms():
    """Nonrelativistic Hartree-Fock limits (Clementi and Roetti 1974), within one percent."""
    exact = {6: -37.6886, 8: -74.8094, 10: -128.5471, 16: -397.5049, 18: -526.8175, 29: -1638.9637}
    for number, energy in exact.items():
        assert statistical_atom_energy(number) == pytest.approx(energy, rel=0.01)


@pytest.mark.parametrize("unit", ENERGY_UNITS)
def test_total_energies_in_other_units(unit):
    """All-electron energies of ethanol and water at the B3LYP level: -155.03 and -76.42 hartree."""
    frames = [
        Frame(molecule(name), 1, "x", energy=value * ase.units.Hartree / ENERGY_UNITS[unit])
        for name, value in (("CH3CH2OH", -155.03), ("H2O", -76.42))
    ]
    text = energy_unit(frames)
    assert text is None if unit == "eV" else f"--energy-unit {unit} converts" in text


def test_pseudopotential_and_binding_energies_are_left_alone():
    for energy in (-14.2, -468.0, -10.0, 3.0):  # of water: VASP, norm-conserving, binding
        assert energy_unit([Frame(molecule("H2O"), 1, "x", energy=energy)]) is None
    assert energy_unit([Frame(molecule("H2"), 1, "x", energy=-1.17)]) is None


def test_mixed_periodicity_is_counted():
    frames = [Frame(water_like(i, pbc=i < 3), i + 1, "a.xyz", energy=0.0) for i in range(10)]
    (text,) = [t for t in suspicious(frames, []) if "mixed periodicity" in t]
    assert "3 are periodic along abc (first: frame 1" in text
    assert "7 are not periodic (first: frame 4" in text
    assert not any("mixed" in t for t in suspicious(frames[:3], []))


def test_two_levels_of_theory_in_one_composition():
    rng = np.random.default_rng(0)
    frames = [
        Frame(water_like(i), i + 1, "a", energy=-10.0 + 0.1 * rng.normal() - 9.0 * (i % 5 == 0))
        for i in range(20)
    ]
    (text,) = [t for t in suspicious(frames, []) if "two groups" in t]
    assert "H2O fall into two groups" in text and "(4 and 16 frames; first of each: frame" in text
    same = [Frame(water_like(i), i, "a", energy=-10.0 + rng.normal()) for i in range(20)]
    assert not any("two groups" in t for t in suspicious(same, []))


def test_energies_that_do_not_fit_between_compositions():
    def frames(wrong: float) -> list[Frame]:
        found = []
        for i, name in enumerate(("H2O", "CH4", "CH3OH", "C2H6", "CO2", "HCOOH")):
            atoms = molecule(name)
            e0 = {1: -13.6, 6: -1027.0, 8: -2041.0}
            energy = sum(e0[n] for n in atoms.numbers) - 4.0 * len(atoms)
            energy += wrong * len(atoms) * (name == "CH3OH")
            found.append(Frame(atoms, i + 1, "a", energy=energy))
        return found

    assert not any("compositions" in t for t in suspicious(frames(0.0), []))
    (text,) = [t for t in suspicious(frames(9.0), []) if "between compositions" in t]
    assert "eV per atom away" in text


def write_mixed(path) -> None:
    """Good frames, one without forces, one with NaN, one that cannot be used."""
    images = [labelled(water_like(seed)) for seed in range(10)]
    images[2].calc.results.pop("forces")
    images[4].calc.results["energy"] = float("nan")
    images[6].positions[0] = np.nan
    ase.io.write(path, images)


def configuration(path, **data):
    return config_from_dict(
        {"model": {"r_max": 3.0}, "data": {"train": str(path), "valid_fraction": 0.2, **data}}
    )


def test_bad_frames_are_refused_or_counted(tmp_path):
    write_mixed(tmp_path / "a.xyz")
    with pytest.raises(TDNError, match=r"frame 7 of a\.xyz: positions or cell contain NaN"):
        load_dataset(configuration(tmp_path / "a.xyz"))
    dataset = load_dataset(configuration(tmp_path / "a.xyz", bad_frames="skip"))
    assert len(dataset.train) + len(dataset.valid) == 7
    for reason in ("no forces", "NaN or infinite labels", "NaN or infinite positions"):
        assert any(w.startswith(f"1 left out: {reason} (first: frame") for w in dataset.warnings)


def test_no_usable_frame_is_left(tmp_path):
    images = [water_like(seed) for seed in range(3)]
    for atoms in images:
        atoms.info["energy"] = 1.0
    ase.io.write(tmp_path / "a.xyz", images)
    with pytest.raises(TDNError, match=r"no usable training frame is left: \d left out: no forces"):
        load_dataset(configuration(tmp_path / "a.xyz", bad_frames="skip"))


def test_frames_behind_damage_are_lost_with_a_warning(tmp_path):
    ase.io.write(tmp_path / "a.xyz", [labelled(water_like(seed)) for seed in range(6)])
    text = (tmp_path / "a.xyz").read_text().splitlines()
    (tmp_path / "b.xyz").write_text("\n".join([*text[:-3], "O 1.0 nonsense", *text[-2:]]))
    with pytest.raises(TDNError, match=r"frame 6 of .*b\.xyz cannot be read"):
        load_dataset(configuration(tmp_path / "b.xyz"))
    dataset = load_dataset(configuration(tmp_path / "b.xyz", bad_frames="skip"))
    assert len(dataset.train) + len(dataset.valid) == 5
    assert any("1 left out: damaged frame (first: frame 6 of" in w for w in dataset.warnings)
    # without its line, where the next frame begins is not known
    (tmp_path / "c.xyz").write_text("\n".join([*text[:-3], *text[-2:]]))
    dataset = load_dataset(configuration(tmp_path / "c.xyz", bad_frames="skip"))
    assert len(dataset.train) + len(dataset.valid) == 5
    assert any("damaged, and everything behind it" in w for w in dataset.warnings)


def test_problems_are_errors_unless_skipped():
    with pytest.raises(TDNError, match="frame 1"):
        Problems().add("reason", "frame 1 is bad")
    problems = Problems(skip=True)
    for number in (1, 2, 3):
        problems.add("reason", f"frame {number} is bad")
    assert problems.lines() == ["3 left out: reason (first: frame 1 is bad)"]


def test_trajectories_are_not_split():
    frames = [Frame(water_like(0), i + 1, "a", group=f"{i // 5}") for i in range(50)]
    rest, part = split_frames(frames, 0.2, seed=1)
    assert len(part) == 10 and len(rest) == 40
    assert not {f.group for f in rest} & {f.group for f in part}
