"""What kind of matter a structure is, as far as temperatures and seeds depend on it."""

from __future__ import annotations

import ase
import numpy as np
from ase.data import atomic_numbers, covalent_radii
from ase.neighborlist import neighbor_list
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from tdn.evaluation.stability import BOND

NONMETALS = frozenset(atomic_numbers[s] for s in "H C N O F P S Cl Se Br I".split())
# melting points in K (CRC Handbook of Chemistry and Physics); helium has none at no pressure
NOBLE_GASES = {"Ne": 24.6, "Ar": 83.8, "Kr": 115.8, "Xe": 161.4, "Rn": 202.0}


def is_molecular(atoms: ase.Atoms) -> bool:
    """Whether it has hydrogen, or falls into molecules: it would not survive high temperatures."""
    return 1 in atoms.numbers or not atoms.pbc.any() or _has_small_molecules(atoms)


def _has_small_molecules(atoms: ase.Atoms) -> bool:
    """Whether bonded groups are finite, of nonmetals only.

    Twice the cell in every direction has eight times as many finite groups; chains, layers and
    networks grow instead.
    """
    if not set(atoms.numbers.tolist()) <= NONMETALS:
        return False
    directions = tuple(1 + atoms.pbc)
    return _groups(atoms.repeat(directions)) == np.prod(directions) * _groups(atoms)


def _groups(atoms: ase.Atoms) -> int:
    radii = covalent_radii[atoms.numbers]
    i, j, d = neighbor_list("ijd", atoms, 2 * BOND * radii.max())
    bonded = d < BOND * (radii[i] + radii[j])
    graph = coo_matrix((np.ones(bonded.sum()), (i[bonded], j[bonded])), shape=(len(atoms),) * 2)
    return int(connected_components(graph)[0])


def melting_point(atoms: ase.Atoms) -> float | None:
    """Of solid noble gases, the highest of their elements in K; None for all else."""
    points = [NOBLE_GASES.get(symbol) for symbol in set(atoms.get_chemical_symbols())]
    return None if None in points else max(points)
