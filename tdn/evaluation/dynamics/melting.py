"""Has a run that should melt a crystal done so?"""

from __future__ import annotations

from collections.abc import Sequence

import ase
import numpy as np

from .plan import Sample

# displacement from the places in the crystal, RMS of the atoms of an element in units of the mean
# spacing, below which it is a solid: crystals melt at 0.1 to 0.2 (rule of Lindemann) and hold no
# longer than 0.25 when superheated, while atoms of a liquid have left their places for good
SOLID = 0.3
# part of a run, its end, whose samples are averaged
END = 0.25


def displacement_in_spacings(start: ase.Atoms, samples: Sequence[Sample]) -> float:
    """How far the atoms of the slowest element are from where they began, at the end of a run.

    Root mean square over its atoms and the last quarter of the samples, without the motion of the
    whole, in units of the mean spacing (volume per atom)^(1/3). The slowest element decides: where
    only one sort of ions moves about, the crystal of the others is still there.

    Parameters
    ----------
    start : structure at which the run began, periodic in three directions
    samples : in their order, with atoms in the order of ``start``; positions may be wrapped
    """
    places = [start.cell.scaled_positions(start.positions)]
    for sample in samples:
        now = sample.atoms.cell.scaled_positions(sample.atoms.positions)
        step = now - places[-1]
        places.append(places[-1] + step - np.round(step))
    masses = start.get_masses()
    squares = []
    for sample, now in zip(samples, places[1:], strict=True):
        moved = (now - places[0]) @ sample.atoms.cell.array
        moved -= masses @ moved / masses.sum()
        spacing = (sample.atoms.get_volume() / len(start)) ** (1 / 3)
        squares.append((moved**2).sum(axis=1) / spacing**2)
    last = np.array(squares[-max(1, round(END * len(squares))) :])
    return min(
        float(np.sqrt(last[:, start.numbers == number].mean())) for number in set(start.numbers)
    )
