"""A Lennard-Jones crystal whose constants are known to any accuracy."""

from __future__ import annotations

import ase
from ase.build import bulk
from ase.calculators.lj import LennardJones

# of argon-like matter; the cutoff lies in a gap between shells of neighbors, so that strains of
# some percent do not change who interacts
SIGMA, EPSILON = 3.4, 0.0104


def lennard_jones(scale: float = 1.0) -> LennardJones:
    return LennardJones(sigma=SIGMA, epsilon=scale * EPSILON, rc=2.05 * SIGMA, smooth=False)


def argon() -> ase.Atoms:
    return bulk("Ar", "fcc", a=1.56 * SIGMA, cubic=True)
