"""Is a teacher usable? Asked on the first structures, before anything long starts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import ase
import numpy as np

from tdn.data.statistics import LARGEST_BINDING
from tdn.evaluation.teachers.process import CalculatorProcess, Label, NoForces
from tdn.evaluation.teachers.source import CalculatorSource
from tdn.system.errors import TDNError

# forces that change with the order of atoms by more than this share of the largest one (at least
# of 1 eV/angstrom) are no noise of float32 or of a self-consistent field
ORDER_TOLERANCE = 5e-3
# seconds; a label that takes longer is not repeated to measure its time
SLOW = 10.0
# angstrom, of the box around an isolated atom
BOX = 20.0


@dataclass(frozen=True)
class TeacherReport:
    """What was found out about a teacher.

    Attributes
    ----------
    name, version : of the calculator
    seconds_per_atom : of one label
    has_stress : whether it gives stresses of periodic structures
    labels : of the structures that were tried
    isolated : labels of isolated atoms by their symbol
    notes : what a user should know
    """

    name: str
    version: str
    seconds_per_atom: float
    has_stress: bool
    labels: list[Label]
    isolated: dict[str, Label]
    notes: list[str]


def check_teacher(
    source: CalculatorSource,
    structures: list[ase.Atoms],
    symbols: list[str],
    folder: Path,
    isolated: bool = True,
) -> TeacherReport:
    """Label some structures, one of them in another order of its atoms, and isolated atoms.

    Parameters
    ----------
    structures : displaced a little, since forces of a perfect crystal vanish
    symbols : elements whose isolated atoms are asked for
    isolated : whether to ask for them

    Raises
    ------
    TDNError
        If the teacher fails on a structure, has no forces, gives NaN or depends on the order of
        atoms.
    """
    process = CalculatorProcess(source, folder)
    process.start()
    try:
        labels = [_checked(process, atoms) for atoms in structures]
        _check_order(process, structures[0], labels[0])
        # the first call includes what compilers and caches do once
        again = process.label(structures[0]) if labels[0].seconds < SLOW else labels[0]
        notes: list[str] = []
        atoms_found = _isolated(process, symbols, structures, labels, notes) if isolated else {}
    finally:
        process.close()
    return TeacherReport(
        name=process.name,
        version=process.version,
        seconds_per_atom=again.seconds / len(structures[0]),
        has_stress=labels[0].stress is not None,
        labels=labels,
        isolated=atoms_found,
        notes=notes,
    )


def _checked(process: CalculatorProcess, atoms: ase.Atoms) -> Label:
    what = f"a structure of {len(atoms)} atoms with {', '.join(sorted(set(atoms.symbols)))}"
    try:
        label = process.label(atoms)
    except NoForces:
        raise
    except TDNError as error:
        raise TDNError(
            f"the teacher cannot label {what}: {error}; choose one that knows these elements, or "
            "other structures"
        ) from None
    if not label.finite:
        raise TDNError(f"the teacher gives NaN or infinity for {what}; choose another one")
    return label


def _check_order(process: CalculatorProcess, atoms: ase.Atoms, label: Label) -> None:
    order = np.random.default_rng(0).permutation(len(atoms))
    other = process.label(atoms[order])
    scale = max(1.0, float(np.abs(label.forces).max()))
    change = float(np.abs(other.forces - label.forces[order]).max())
    energy = abs(other.energy - label.energy) / len(atoms)
    if change > ORDER_TOLERANCE * scale or energy > ORDER_TOLERANCE:
        raise TDNError(
            f"{process.name} depends on the order of the atoms: forces change by {change:.3g} "
            f"eV/angstrom, the energy by {energy:.3g} eV per atom; it is no potential, choose "
            "another one"
        )


def _isolated(
    process: CalculatorProcess,
    symbols: list[str],
    structures: list[ase.Atoms],
    labels: list[Label],
    notes: list[str],
) -> dict[str, Label]:
    """Labels of isolated atoms, if the teacher has them all and they make sense."""
    periodic = bool(structures[0].pbc.any())
    found = {}
    for symbol in symbols:
        atom = isolated_atom(symbol, periodic)
        try:
            label = process.label(atom)
        except TDNError as error:
            notes.append(f"no E0 of {symbol} from the teacher ({error}); fitted instead")
            return {}
        if not label.finite:
            notes.append(f"no E0 of {symbol} from the teacher (NaN); fitted instead")
            return {}
        found[symbol] = label
    for atoms, label in zip(structures, labels, strict=True):
        if set(atoms.symbols) <= set(found):
            free = sum(found[symbol].energy for symbol in atoms.symbols)
            binding = (free - label.energy) / len(atoms)
            if not -1.0 < binding < LARGEST_BINDING:
                notes.append(
                    f"the teacher's isolated atoms mean a binding energy of {binding:.3g} eV per "
                    "atom, which cannot be; E0 are fitted instead"
                )
                return {}
    return found


def isolated_atom(symbol: str, periodic: bool) -> ase.Atoms:
    """One atom, in a large box where the structures are periodic."""
    if not periodic:
        return ase.Atoms(symbol)
    return ase.Atoms(symbol, cell=[BOX] * 3, pbc=True, positions=[[BOX / 2] * 3])
