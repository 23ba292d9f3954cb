"""Structures without order and with close contacts: what melts and explosions visit."""

from __future__ import annotations

from itertools import combinations_with_replacement

import ase
import numpy as np
from ase.data import covalent_radii
from ase.neighborlist import neighbor_list

# angstrom, within which the shortest distance of two elements is looked for
REACH = 6.0
# displacements of disordered structures (RMS of a component), of the mean distance of atoms
SCATTER = 0.4
# no two atoms of them are closer than this share of the shortest distance of their elements
CORE = 0.8
# lengths of their cells, relative: a melt may be denser or far less dense than its crystal
SHRUNK, STRETCHED = 0.98, 1.09
SWEEPS = 300
# shortest distance of atoms that are pushed together, of the shortest of their elements
CLOSEST = 0.7
# one contact for so many atoms
ATOMS_PER_CONTACT = 16


def shortest_distances(atoms: ase.Atoms) -> dict[tuple[str, str], float]:
    """Of each pair of elements, both orders; of covalent radii where it is beyond `REACH`."""
    i, j, d = neighbor_list("ijd", atoms, REACH)
    found = {}
    symbols = np.array(atoms.get_chemical_symbols())
    for a, b in combinations_with_replacement(sorted(set(atoms.symbols)), 2):
        there = d[(symbols[i] == a) & (symbols[j] == b)]
        numbers = [atoms.numbers[symbols == symbol][0] for symbol in (a, b)]
        length = there.min() if len(there) else covalent_radii[numbers].sum()
        found[a, b] = found[b, a] = float(length)
    return found


def disordered(atoms: ase.Atoms, rng: np.random.Generator, share: float) -> ase.Atoms:
    """Atoms far from their places, pushed apart until no two of them overlap.

    Each pair of elements keeps its own distance, so that ions of the same charge stay apart.

    Parameters
    ----------
    atoms : periodic in three directions
    share : in (0, 1], from the densest to the least dense
    """
    core = {pair: CORE * d for pair, d in shortest_distances(atoms).items()}
    work = atoms.copy()
    stretch = SHRUNK + (STRETCHED - SHRUNK) * share
    work.set_cell(stretch * work.cell.array, scale_atoms=True)
    spacing = (work.get_volume() / len(work)) ** (1 / 3)
    work.positions += SCATTER * spacing * rng.standard_normal(work.positions.shape)
    for _ in range(SWEEPS):
        i, j, d, vectors = neighbor_list("ijdD", work, core)
        if not len(i):
            break
        # each pair comes twice, and moves each of its atoms by half of what is missing
        wanted = np.array(
            [core[a, b] for a, b in zip(work.symbols[i], work.symbols[j], strict=True)]
        )
        moves = 0.5 * (1.001 * wanted - d)[:, None] * vectors / d[:, None]
        np.add.at(work.positions, i, -moves)
    return work


def with_contacts(atoms: ase.Atoms, rng: np.random.Generator, share: float) -> ase.Atoms:
    """Some pairs of atoms moved towards each other, closer than they come in a crystal.

    The elements of each pair are drawn first: like ions meet as often as unlike ones.

    Parameters
    ----------
    share : in (0, 1], how close
    """
    shortest = shortest_distances(atoms)
    work = atoms.copy()
    free = np.ones(len(work), dtype=bool)
    symbols = np.array(work.get_chemical_symbols())
    closest = 1 - (1 - CLOSEST) * share
    for _ in range(max(1, len(work) // ATOMS_PER_CONTACT)):
        first = int(rng.choice(np.flatnonzero(free)))
        free[first] = False
        partners = np.flatnonzero(free & (symbols == rng.choice(np.unique(symbols[free]))))
        vectors = work.get_distances(first, partners, mic=True, vector=True)
        lengths = np.linalg.norm(vectors, axis=1)
        nearest = int(lengths.argmin())
        second = int(partners[nearest])
        free[second] = False
        target = closest * shortest[symbols[first], symbols[second]]
        move = 0.5 * (lengths[nearest] - target) * vectors[nearest] / lengths[nearest]
        work.positions[first] += move
        work.positions[second] -= move
    return work
