"""The first structures to label: supercells, displaced, strained, with defects, molten."""

from __future__ import annotations

from collections.abc import Callable

import ase
import numpy as np
from ase.data import atomic_numbers

from tdn.config.distillation import SeedsConfig
from tdn.data import read_frames
from tdn.data.supercell import supercell
from tdn.data.vacuum import is_bulk
from tdn.system.errors import TDNError, UsageError

from .candidates import Candidate
from .disorder import disordered, with_contacts
from .matter import is_molecular

# displacements, in angstrom, beside a strain, a defect or a surface
SMALL_RATTLE = 0.05
# largest component of strains about the structure itself: what its elastic constants are made of,
# which in some crystals change by half within 2 % (another shell of neighbors within the cutoff)
SMALL_STRAIN = 0.02


def read_structures(config: SeedsConfig) -> list[ase.Atoms]:
    """All structures of the files, as supercells.

    Raises
    ------
    TDNError
        If a file cannot be read, a structure is a single atom, or a substitution names elements
        that are not there.
    """
    names = config.structures
    names = [names] if isinstance(names, str) else list(names)
    found = [supercell(frame.atoms, config.atoms) for name in names for frame in read_frames(name)]
    for atoms in found:
        if len(atoms) == 1:
            raise UsageError(
                f"seeds.structures: a structure is a single atom ({atoms.symbols}), expected at "
                "least two; leave it out, or raise seeds.atoms if it is periodic"
            )
    present = {symbol for atoms in found for symbol in atoms.get_chemical_symbols()}
    for old, new in (config.substitutions or {}).items():
        if old not in present:
            raise UsageError(
                f"seeds.substitutions: no structure contains '{old}'; they contain "
                f"{', '.join(sorted(present))}"
            )
        if new not in atomic_numbers or new == "X":
            raise UsageError(f"seeds.substitutions: '{new}' is not a chemical symbol")
    return found


def make_seeds(
    structures: list[ase.Atoms], config: SeedsConfig, melting: bool = False
) -> list[Candidate]:
    """Every structure as it is, and its variants; the same for the same seed.

    Parameters
    ----------
    melting : whether the dynamics melt: then there are structures without order

    Raises
    ------
    TDNError
        If nothing is left to label.
    """
    made: list[Candidate] = []
    for number, atoms in enumerate(structures):
        made.append(Candidate(atoms.copy(), "structure"))
        for kind, (count, make) in _variants(atoms, config, melting).items():
            rng = np.random.default_rng([config.seed, number, sum(kind.encode())])
            for index in range(count):
                made.append(Candidate(make(rng, (index + 1) / count), kind))
    if not made:
        raise TDNError("no seed structure is left; raise the numbers in the section seeds")
    return made


def _variants(
    atoms: ase.Atoms, config: SeedsConfig, melting: bool
) -> dict[str, tuple[int, Callable[[np.random.Generator, float], ase.Atoms]]]:
    """Kind -> how many, and a function of a generator and a share in (0, 1]."""
    periodic, bulk = bool(atoms.pbc.any()), is_bulk(atoms)
    # in a molecule it would be another one, or none
    mixable = len(set(atoms.numbers.tolist())) > 1 and not is_molecular(atoms)
    substitutions = {
        old: new for old, new in (config.substitutions or {}).items() if old in atoms.symbols
    }

    def calm(rng: np.random.Generator) -> ase.Atoms:
        # elastic constants are those of atoms at rest; where whole shells of neighbors meet the
        # teacher's cutoff together, frames with displacements say nothing about these
        return displaced(atoms, rng, rng.choice((0.0, SMALL_RATTLE)))

    def rattled(rng: np.random.Generator, share: float) -> ase.Atoms:
        return displaced(atoms, rng, config.rattle * share)

    def strained(rng: np.random.Generator, share: float) -> ase.Atoms:
        return deformed(calm(rng), config.strain * (2 * share - 1) * np.eye(3))

    def sheared(rng: np.random.Generator, share: float) -> ase.Atoms:
        matrix = rng.uniform(-1, 1, (3, 3)) * config.shear * share
        return deformed(calm(rng), 0.5 * (matrix + matrix.T))

    def elastic(rng: np.random.Generator, share: float) -> ase.Atoms:
        matrix = rng.uniform(-1, 1, (3, 3)) * SMALL_STRAIN * share
        volume = rng.uniform(-SMALL_STRAIN, SMALL_STRAIN) / 2
        return deformed(atoms, 0.5 * (matrix + matrix.T) + volume * np.eye(3))

    def vacant(rng: np.random.Generator, share: float) -> ase.Atoms:
        work = displaced(atoms, rng, SMALL_RATTLE)
        del work[int(rng.integers(len(work)))]
        return work

    def cut(rng: np.random.Generator, share: float) -> ase.Atoms:
        axis = int(rng.integers(3))
        work = displaced(atoms, rng, SMALL_RATTLE)
        work.set_scaled_positions((work.get_scaled_positions() + rng.random(3)) % 1.0)
        cell = work.cell.array.copy()
        length = np.linalg.norm(cell[axis])
        cell[axis] *= (length + config.vacuum) / length
        work.set_cell(cell)
        return work

    def exchanged(rng: np.random.Generator, share: float) -> ase.Atoms:
        work = displaced(atoms, rng, SMALL_RATTLE)
        first = int(rng.integers(len(work)))
        others = np.flatnonzero(work.numbers != work.numbers[first])
        second = int(rng.choice(others))
        work.numbers[[first, second]] = work.numbers[[second, first]]
        return work

    def molten(rng: np.random.Generator, share: float) -> ase.Atoms:
        return disordered(atoms, rng, share)

    def pushed(rng: np.random.Generator, share: float) -> ase.Atoms:
        return with_contacts(displaced(atoms, rng, SMALL_RATTLE), rng, share)

    def replaced(rng: np.random.Generator, share: float) -> ase.Atoms:
        work = displaced(atoms, rng, SMALL_RATTLE)
        old = str(rng.choice(sorted(substitutions)))
        there = np.flatnonzero(work.numbers == atomic_numbers[old])
        count = max(1, round(share * len(there)))
        work.numbers[rng.choice(there, count, replace=False)] = atomic_numbers[substitutions[old]]
        return work

    return {
        "rattle": (config.rattles if len(atoms) > 1 else 0, rattled),
        "strain": (config.strains * periodic, strained),
        "shear": (config.shears * bulk, sheared),
        "elastic": (config.elastic * bulk, elastic),
        "vacancy": (config.vacancies if periodic and len(atoms) > 1 else 0, vacant),
        "surface": (config.surfaces * bulk, cut),
        "exchange": (config.exchanges * mixable, exchanged),
        "disorder": (config.disordered if bulk and melting else 0, molten),
        "contact": (config.contacts if len(atoms) > 1 else 0, pushed),
        "substitution": (config.replaced if substitutions else 0, replaced),
    }


def displaced(atoms: ase.Atoms, rng: np.random.Generator, deviation: float) -> ase.Atoms:
    """A copy with normally distributed displacements of this standard deviation, angstrom."""
    work = atoms.copy()
    work.positions += deviation * rng.standard_normal(work.positions.shape)
    return work


def deformed(atoms: ase.Atoms, strain: np.ndarray) -> ase.Atoms:
    """A copy whose cell and positions are multiplied by 1 + strain, [3, 3]."""
    work = atoms.copy()
    work.set_cell(work.cell.array @ (np.eye(3) + strain), scale_atoms=True)
    return work
