"""Crystals in the report on two calculators: constants, vacancies, phonons."""

from __future__ import annotations

import ase
import ase.io
import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT
from pair_potential import argon, lennard_jones

from tdn.evaluation.comparison import crystal as crystal_module
from tdn.evaluation.comparison import vacancy
from tdn.evaluation.comparison.cli import crystals_among
from tdn.evaluation.comparison.compare import Subjects, compare
from tdn.evaluation.comparison.crystal import (
    elastic_constants,
    elastic_matrix,
    equation_of_state,
    relaxed,
    relaxed_by_both,
)
from tdn.evaluation.comparison.phonons import frequencies, phonon_frequencies
from tdn.evaluation.comparison.section import Pair, guarded
from tdn.evaluation.comparison.vacancy import formula_unit, vacancy_energy
from tdn.system.errors import TDNError


def test_elastic_constants_of_a_pair_potential():
    """Without stress C12 = C44 (Cauchy), and (C11 + 2 C12) / 3 is the bulk modulus."""
    pair = Pair(lennard_jones(), lennard_jones(1.1), ("one", "other"))
    crystal = relaxed_by_both(pair, argon())
    constants = elastic_constants(pair, argon(), crystal).values
    modulus = equation_of_state(pair, crystal).values["bulk modulus"]
    for who in ("reference", "student"):
        c11, c12, c44 = (constants[name][who] for name in ("C11", "C12", "C44"))
        # C12 - C44 is twice the pressure that relaxing leaves: 1e-3 eV per 37 angstrom^3 and atom
        assert c12 == pytest.approx(c44, abs=2 * 1e-3 / 37 * 160.2)
        # the fit of Birch and Murnaghan over 12 % of volume is good to a percent or two
        assert modulus[who] == pytest.approx((c11 + 2 * c12) / 3, rel=2e-2)
    # everything is proportional to epsilon
    for name in ("C11", "C12", "C44"):
        assert constants[name]["difference_percent"] == pytest.approx(10.0, abs=0.05)
    assert modulus["difference_percent"] == pytest.approx(10.0, abs=0.05)


def test_the_lattice_constant_is_that_of_the_smallest_energy():
    pair = Pair(EMT(), EMT(), ("one", "other"))
    crystal = relaxed_by_both(pair, bulk("Cu", "fcc", a=3.7, cubic=True))
    values = equation_of_state(pair, crystal).values
    found = values["lattice constant a"]["reference"]
    lengths = np.linspace(found - 0.01, found + 0.01, 5)
    energies = []
    for length in lengths:
        atoms = bulk("Cu", "fcc", a=length, cubic=True)
        atoms.calc = EMT()
        energies.append(atoms.get_potential_energy())
    fit = np.polyfit(lengths - found, energies, 2)
    assert abs(-fit[1] / (2 * fit[0])) < 2e-3
    assert values["volume"]["reference"] == pytest.approx(found**3 / 4, rel=1e-6)
    assert values["bulk modulus"]["difference_percent"] == 0.0
    assert "lattice constant b" not in values


def test_the_elastic_matrix_is_a_tensor():
    """In a cell turned by 45 degrees about z, C11 is (C11 + C12) / 2 + C44 of the cube."""
    straight = relaxed(bulk("Cu", "fcc", a=3.6, cubic=True), EMT())
    side = straight.cell[0, 0]
    turned = ase.Atoms(
        "Cu2",
        scaled_positions=[[0, 0, 0], [0.5, 0.5, 0.5]],
        cell=[side / np.sqrt(2), side / np.sqrt(2), side],
        pbc=True,
    )
    one, other = elastic_matrix(straight, EMT()), elastic_matrix(turned, EMT())
    assert other[0, 0] == pytest.approx(0.5 * (one[0, 0] + one[0, 1]) + one[3, 3], rel=1e-3)
    assert other[2, 2] == pytest.approx(one[2, 2], rel=1e-3)


@pytest.mark.parametrize("turn", [(1.0, 1.0, 1.0, 0.0), (0.0, 0.0, 1.0, 30.0)])
def test_a_primitive_cell_has_the_constants_of_its_cube(turn):
    """Three constants along the cube's axes, however the cell was turned."""
    pytest.importorskip("spglib")
    primitive = bulk("Cu", "fcc", a=3.6)
    primitive.rotate(turn[3], turn[:3], rotate_cell=True)
    ((name, cube),) = crystals_among([primitive]).items()
    assert name == "Cu4" and cube.cell.lengths() == pytest.approx([3.6] * 3)
    whole = bulk("Cu", "fcc", a=3.6, cubic=True)
    one, other = (elastic_matrix(relaxed(atoms, EMT()), EMT()) for atoms in (cube, whole))
    # relaxed to 1e-3 eV/angstrom each
    assert np.allclose(one, other, atol=0.1)


def test_a_tetragonal_crystal_in_a_cube_has_its_own_constants():
    """CuAu as it is often drawn: relaxed, it is shorter along the axis across its layers."""
    atoms = bulk("Cu", "fcc", a=3.8, cubic=True)
    atoms.numbers[:2] = 79
    pair = Pair(EMT(), EMT(), ("one", "other"))
    crystal = relaxed_by_both(pair, atoms)
    across = int(crystal["one"].cell.lengths().argmin())
    assert crystal["one"].cell.lengths()[across] < 3.6 < 3.9 < crystal["one"].cell.lengths().max()
    values = elastic_constants(pair, atoms, crystal).values
    assert {"C11", "C22", "C33", "C12", "C13", "C23", "C44", "C55", "C66"} <= set(values)
    diagonal = [values[f"C{i}{i}"]["reference"] for i in (1, 2, 3)]
    one, other = (diagonal[i] for i in range(3) if i != across)
    # equal by symmetry, the third is not
    assert one == pytest.approx(other, rel=1e-2)
    assert abs(diagonal[across] / one - 1) > 0.05


def test_cells_that_are_no_cubes_stay():
    hexagonal = bulk("Zn", "hcp", a=2.66, c=4.95)
    ((name, atoms),) = crystals_among([hexagonal]).items()
    assert name == "Zn2" and np.array_equal(atoms.cell.array, hexagonal.cell.array)
    given = bulk("Cu", "fcc", a=3.6, cubic=True)
    assert crystals_among([given])["Cu4"] is given


def test_the_vacancy_of_an_element():
    """Unrelaxed and for pairs alone it is the binding energy of one atom; relaxing lowers it."""
    crystal = relaxed(argon(), lennard_jones())
    pair = Pair(lennard_jones(), lennard_jones(), ("one", "other"))
    found = vacancy_energy(pair, {"one": crystal, "other": crystal}).values["formation energy"]
    binding = -crystal.get_potential_energy() / len(crystal)
    assert 0.95 * binding < found["reference"] < binding
    assert found["reference"] == found["student"]


def test_formula_units():
    salt = bulk("NaCl", "rocksalt", a=5.6, cubic=True) * 2
    unit = formula_unit(salt)
    assert sorted(salt.numbers[unit]) == [11, 17]
    assert salt.get_distance(*unit, mic=True) == pytest.approx(2.8)
    fluorite = bulk("CaF2", "fluorite", a=5.5, cubic=True)
    assert sorted(fluorite.numbers[formula_unit(fluorite)]) == [9, 9, 20]


def test_phonons_of_a_pair_potential():
    """At X of fcc the longitudinal branch is higher; sums of squares follow from the springs."""
    pytest.importorskip("phonopy")
    crystal = relaxed(argon(), lennard_jones())
    softer = frequencies(crystal, lennard_jones())
    stiffer = frequencies(crystal, lennard_jones(4.0))
    assert np.allclose(softer[0], 0.0, atol=1e-3)  # acoustic branches at the zone center
    for soft, stiff in zip(softer[1:], stiffer[1:], strict=True):
        assert np.allclose(np.array(stiff), 2 * np.array(soft), rtol=1e-3)  # the root of 4
        assert soft[0] > 0.1


def test_crystals_of_different_symmetry_have_no_phonons_to_compare():
    """Cells of another size have other branches; the rest of the report does not suffer."""
    pytest.importorskip("phonopy")
    crystal = bulk("Ar", "fcc", a=5.3, cubic=True)
    other = crystal.copy()
    other.positions[0, 0] += 1e-3
    pair = Pair(lennard_jones(), lennard_jones(), ("reference", "student"))
    section = guarded(
        "Phonons", lambda: phonon_frequencies(pair, {"reference": crystal, "student": other})
    )
    assert "primitive cells have 1 and 4 atoms" in section.values["missing"]


def test_a_crystal_that_does_not_relax_is_tried_once_and_named(monkeypatch):
    asked = []

    def count(atoms, calculator, cell=True):
        asked.append(calculator)
        raise TDNError("the structure does not relax within 300 steps")

    monkeypatch.setattr(crystal_module, "relaxed", count)
    pair = Pair(lennard_jones(), lennard_jones(), ("teacher", "student"))
    sections = compare(pair, Subjects(crystals={"Ar4": argon()}))
    assert asked == [pair.reference]
    (section,) = sections
    assert section.title == "Crystal: Ar4"
    assert section.values["missing"] == "teacher: the structure does not relax within 300 steps"


def test_a_vacancy_whose_atoms_still_move_is_an_upper_bound(monkeypatch):
    crystal = relaxed(argon(), lennard_jones())
    pair = Pair(lennard_jones(), lennard_jones(), ("one", "other"))
    monkeypatch.setattr(vacancy, "RELAXED", 1e-4)
    found = {}
    for steps in (300, 1):
        monkeypatch.setattr(vacancy, "MOST_STEPS", steps)
        found[steps] = vacancy_energy(pair, {"one": crystal, "other": crystal})
    assert "upper bound" not in found[300].text
    assert found[1].text.count("upper bound") == 2 and "after 1 steps" in found[1].text
    assert found[1].values["one_largest_force_eV_per_A"] > 1e-4
    energies = {n: s.values["formation energy"]["reference"] for n, s in found.items()}
    assert energies[1] > energies[300]
