"""Layers and slabs: directions that a file calls periodic and that only hold vacuum."""

from __future__ import annotations

import ase
import numpy as np

# angstrom between neighboring planes of atoms, from which there is nothing in between: planes of
# layered crystals and of the largest metals are 3 to 4 apart, images of slabs 8 or more
GAP = 6.0


def matter_directions(atoms: ase.Atoms) -> np.ndarray:
    """Directions along which matter goes on: periodic ones without a layer of vacuum.

    Programs of plane waves know periodic cells only, so that their files call slabs periodic in
    three directions.

    Returns
    -------
    np.ndarray
        bool [3]
    """
    found = atoms.pbc.copy()
    if not len(atoms) or not found.any():
        return found
    heights = 1 / np.linalg.norm(atoms.cell.reciprocal().array[found], axis=1)
    for axis, height in zip(np.flatnonzero(found), heights, strict=True):
        places = np.sort(atoms.get_scaled_positions()[:, axis] % 1.0)
        gaps = np.diff(places, append=places[0] + 1.0)
        found[axis] = height * gaps.max() < GAP
    return found


def is_bulk(atoms: ase.Atoms) -> bool:
    """Whether matter goes on in all three directions: no molecule, layer, slab or wire."""
    return bool(matter_directions(atoms).all())
