"""Reproducible random structures on which compiled networks are compared and checked."""

from __future__ import annotations

import ase
import numpy as np
from ase.data import covalent_radii

NEIGHBORS = 25  # aimed at within the cutoff: what a dense system has
CLOSE = 0.7  # of the cutoff: there the envelope lets an edge count
LARGEST_REFERENCE = 240  # atoms; every reader evaluates them


def _contact(a: np.ndarray, b: np.ndarray, r_max: float) -> np.ndarray:
    """Shortest distances allowed between elements in angstrom: a slightly compressed bond."""
    return np.minimum(0.9 * (covalent_radii[a] + covalent_radii[b]), 0.5 * r_max)


def _volume_per_atom(numbers: np.ndarray, r_max: float) -> float:
    """Room for one atom in angstrom^3: few enough neighbors, and not so dense that none fits."""
    largest = numbers[np.argmax(covalent_radii[numbers])]
    widest = _contact(largest, largest, r_max)
    return max(4 / 3 * np.pi * r_max**3 / NEIGHBORS, 2.5 * widest**3)


def species_sequence(atomic_numbers: list[int], count: int, rng: np.random.Generator) -> np.ndarray:
    """``count`` atomic numbers in random order, all species equally often (or one more)."""
    return rng.permutation(np.resize(np.array(atomic_numbers), count))


def random_cluster(atomic_numbers: list[int], count: int, r_max: float, seed: int) -> ase.Atoms:
    """Atoms at random in a sphere, none closer than a slightly compressed bond.

    Parameters
    ----------
    atomic_numbers : the species, each used at least once if ``count`` allows
    count : number of atoms
    r_max : cutoff in angstrom; sets the density
    seed : same seed, same structure
    """
    rng = np.random.default_rng(seed)
    numbers = species_sequence(atomic_numbers, count, rng)
    radius = (3 / (4 * np.pi) * count * _volume_per_atom(numbers, r_max)) ** (1 / 3)
    positions = np.zeros((0, 3))
    while len(positions) < count:
        radius *= 1.0005  # a crowded sphere grows until the atom fits
        direction = rng.normal(size=3)
        point = radius * rng.random() ** (1 / 3) * direction / np.linalg.norm(direction)
        new = numbers[len(positions)]
        contacts = _contact(new, numbers[: len(positions)], r_max)
        if (np.linalg.norm(positions - point, axis=1) >= contacts).all():
            positions = np.vstack([positions, point])
    return ase.Atoms(numbers, positions=positions)


def reference_cluster(atomic_numbers: list[int], r_max: float) -> ase.Atoms:
    """A small cluster in which every pair of species has close neighbors.

    Networks have weights for every pair; one that no edge uses could change unnoticed. Beyond
    `LARGEST_REFERENCE` atoms (about 18 species) every species appears, but not every pair.
    """
    count = max(12, len(atomic_numbers))
    while True:
        atoms = random_cluster(atomic_numbers, count, r_max, seed=0)
        missing = _meet_every_pair(atoms, len(atomic_numbers), r_max)
        if missing == 0 or count >= LARGEST_REFERENCE:
            return atoms
        count = min(count + max(4, count // 4), LARGEST_REFERENCE)


def _meet_every_pair(atoms: ase.Atoms, num_species: int, r_max: float) -> int:
    """Swap elements of a cluster until all pairs are neighbors; return how many are not."""
    rng = np.random.default_rng(0)
    distances = atoms.get_all_distances()
    i, j = np.nonzero(np.triu(distances < CLOSE * r_max, k=1))
    near = distances[i, j]

    def met(numbers: np.ndarray) -> int:
        if (near < _contact(numbers[i], numbers[j], r_max) - 1e-9).any():
            return -1
        low, high = np.minimum(numbers[i], numbers[j]), np.maximum(numbers[i], numbers[j])
        return len(np.unique(1000 * low + high))

    wanted = num_species * (num_species + 1) // 2
    numbers = atoms.numbers.copy()
    best = met(numbers)
    for _ in range(20 * len(numbers)):
        if best == wanted:
            break
        a, b = rng.integers(len(numbers), size=2)
        trial = numbers.copy()
        trial[[a, b]] = trial[[b, a]]
        count = met(trial)
        if count >= best:
            best, numbers = count, trial
    atoms.numbers[:] = numbers
    return wanted - best


def random_cell(atomic_numbers: list[int], count: int, r_max: float, seed: int) -> ase.Atoms:
    """A periodic triclinic cell with random atoms at the density of `random_cluster`."""
    rng = np.random.default_rng(seed)
    numbers = species_sequence(atomic_numbers, count, rng)
    shape = np.array([[1.0, 0.0, 0.0], [0.2, 1.0, 0.0], [-0.1, 0.15, 1.0]])
    cell = shape * (count * _volume_per_atom(numbers, r_max)) ** (1 / 3)
    fractions = np.zeros((0, 3))
    while len(fractions) < count:
        cell = cell * 1.0002
        point = rng.random(3)
        difference = fractions - point
        difference -= np.round(difference)  # nearest image: contacts are short against the cell
        new = numbers[len(fractions)]
        contacts = _contact(new, numbers[: len(fractions)], r_max)
        if (np.linalg.norm(difference @ cell, axis=1) >= contacts).all():
            fractions = np.vstack([fractions, point])
    return ase.Atoms(numbers, scaled_positions=fractions, cell=cell, pbc=True)


def tiny_cell(atomic_numbers: list[int], r_max: float) -> ase.Atoms:
    """Two atoms in a triclinic cell shorter than the cutoff: atoms see images of themselves."""
    numbers = np.resize(np.array(atomic_numbers), 2)
    cell = 0.8 * r_max * np.array([[1.0, 0.0, 0.0], [0.15, 0.95, 0.0], [-0.1, 0.2, 1.05]])
    fractions = [[0.05, 0.1, 0.0], [0.5, 0.55, 0.42]]
    return ase.Atoms(numbers, scaled_positions=fractions, cell=cell, pbc=True)


def standard_structures(atomic_numbers: list[int], r_max: float) -> dict[str, ase.Atoms]:
    """The structures on which every export is compared with the network it came from."""
    two = np.resize(np.array(atomic_numbers), 2)
    bond = 1.5 * _contact(two[0], two[1], r_max)
    return {
        "one atom": ase.Atoms(two[:1], positions=[[0.0, 0.0, 0.0]]),
        "no edges": ase.Atoms(two, positions=[[0.0, 0.0, 0.0], [0.0, 2 * r_max, r_max]]),
        "dimer": ase.Atoms(two, positions=[[0.1, 0.2, 0.3], [0.1 + bond, 0.2, 0.3]]),
        "cluster": random_cluster(atomic_numbers, max(20, len(atomic_numbers)), r_max, seed=1),
        "tiny cell": tiny_cell(atomic_numbers, r_max),
        "500 atoms": random_cell(atomic_numbers, 500, r_max, seed=2),
    }
