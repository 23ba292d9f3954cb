"""Structures without order and with contacts: distances, densities, what stays."""

from __future__ import annotations

import numpy as np
import pytest
from ase.build import bulk, molecule

from tdn.training.distillation.disorder import (
    ATOMS_PER_CONTACT,
    CLOSEST,
    CORE,
    SHRUNK,
    STRETCHED,
    disordered,
    shortest_distances,
    with_contacts,
)

SALT = bulk("NaCl", "rocksalt", a=5.6, cubic=True) * 2
COPPER = bulk("Cu", "fcc", a=3.6, cubic=True) * 2
SILICON = bulk("Si", "diamond", a=5.43, cubic=True) * 2


def test_shortest_distances_are_those_of_rock_salt():
    found = shortest_distances(SALT)
    assert found["Na", "Cl"] == found["Cl", "Na"] == pytest.approx(2.8)
    assert found["Na", "Na"] == found["Cl", "Cl"] == pytest.approx(5.6 / 2**0.5)


def test_elements_that_do_not_meet_have_the_distance_of_their_radii():
    found = shortest_distances(molecule("H2O"))
    assert found["O", "O"] == pytest.approx(2 * 0.66)  # twice the covalent radius of oxygen
    assert found["H", "H"] == pytest.approx(1.53, abs=0.02)


@pytest.mark.parametrize("atoms", [SALT, COPPER, SILICON], ids=str)
@pytest.mark.parametrize("share", [0.125, 0.5, 1.0])
def test_disordered_atoms_do_not_overlap_and_have_left_their_places(atoms, share):
    found = disordered(atoms, np.random.default_rng(3), share)
    assert np.array_equal(found.numbers, atoms.numbers)
    stretch = SHRUNK + share * (STRETCHED - SHRUNK)
    assert np.allclose(found.cell.array, stretch * atoms.cell.array)
    before, after = shortest_distances(atoms), shortest_distances(found)
    assert all(after[pair] >= CORE * before[pair] for pair in before)
    moved = (found.get_scaled_positions() - atoms.get_scaled_positions() + 0.5) % 1 - 0.5
    nearest = min(before.values())
    # Lindemann: a crystal melts when atoms move by a tenth of the distance of neighbors
    assert np.sqrt(((moved @ found.cell.array) ** 2).sum(axis=1).mean()) > 0.3 * nearest


def test_ions_of_the_same_charge_stay_apart():
    found = shortest_distances(disordered(SALT, np.random.default_rng(0), 1.0))
    assert found["Na", "Cl"] < 0.9 * found["Na", "Na"]


@pytest.mark.parametrize("share", [0.25, 1.0])
def test_contacts_are_as_close_as_they_should_be(share):
    before = shortest_distances(SALT)
    found = with_contacts(SALT, np.random.default_rng(1), share)
    moved = np.flatnonzero(np.abs(found.positions - SALT.positions).max(axis=1) > 1e-9)
    assert len(moved) == 2 * (len(SALT) // ATOMS_PER_CONTACT)
    distances = found.get_all_distances(mic=True)
    symbols = np.array(found.get_chemical_symbols())
    target = 1 - share * (1 - CLOSEST)
    pairs = [
        (i, j)
        for i in moved
        for j in moved
        if i < j and np.isclose(distances[i, j], target * before[symbols[i], symbols[j]])
    ]
    assert len({i for pair in pairs for i in pair}) == len(moved)
    # the middle of a pair does not move
    assert np.allclose(found.positions.sum(axis=0), SALT.positions.sum(axis=0))


def test_all_pairs_of_elements_meet():
    rng = np.random.default_rng(0)
    closest = {pair: np.inf for pair in shortest_distances(SALT)}
    for _ in range(10):
        for pair, d in shortest_distances(with_contacts(SALT, rng, 1.0)).items():
            closest[pair] = min(closest[pair], d)
    before = shortest_distances(SALT)
    assert all(closest[pair] < 1.001 * CLOSEST * before[pair] for pair in before)


def test_a_pair_of_atoms_is_enough():
    hydrogen = molecule("H2")
    found = with_contacts(hydrogen, np.random.default_rng(0), 1.0)
    length = hydrogen.get_distance(0, 1)
    assert found.get_distance(0, 1) == pytest.approx(CLOSEST * length)
