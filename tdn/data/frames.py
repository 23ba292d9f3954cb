"""Reference frames: structures with their energies, forces and stresses."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import ase
import ase.geometry
import numpy as np
from scipy.spatial import cKDTree

from .bad_frames import Problems

# angstrom; the directions of shorter edges mean nothing
COINCIDENT = 1e-3


@dataclass(frozen=True)
class LabelKeys:
    """Under which keys frames carry their reference values.

    Attributes
    ----------
    energy, forces, stress : None: whatever common name a frame uses (`tdn.data.readers.labels`)
    config_type : a name that groups frames
    split : train, valid or test; None: frames belong to no part
    stress_unit : unit of the stresses; with a minus sign if they are positive under compression
    """

    energy: str | None = None
    forces: str | None = None
    stress: str | None = None
    config_type: str = "config_type"
    split: str | None = None
    stress_unit: str = "eV/A^3"


def label_keys(settings: Any) -> LabelKeys:
    """The keys as section ``data`` of a configuration or the options of a command name them."""
    return LabelKeys(
        energy=settings.energy_key,
        forces=settings.forces_key,
        stress=settings.stress_key,
        config_type=settings.config_type_key,
        split=settings.split_key,
        stress_unit=settings.stress_unit,
    )


@dataclass(frozen=True)
class StoredNeighbors:
    """A neighbour list that came with a frame.

    Attributes
    ----------
    edge_index : int64 [2, E], centre and neighbour, sorted by centre
    shift : int64 [E, 3], in lattice vectors
    cutoff : angstrom, or None where it is not known
    """

    edge_index: np.ndarray
    shift: np.ndarray
    cutoff: float | None = None


@dataclass(frozen=True)
class Frame:
    """One structure with its reference values.

    Attributes
    ----------
    atoms : without calculator
    number : position in its file, counted from one
    source : name of the file
    energy : total energy in eV, None where there is none
    forces : float64 [N, 3] in eV/angstrom, or None
    stress : float64 [3, 3] in eV/angstrom^3 with the sign of ASE, or None
    weight : of the frame in the loss
    config_type : a name that groups frames, or None
    split : train, valid, test or None
    group : a name that frames of one trajectory share, or None; a group is never split
    neighbors : a neighbour list that was stored with the frame, or None
    """

    atoms: ase.Atoms
    number: int
    source: str
    energy: float | None = None
    forces: np.ndarray | None = None
    stress: np.ndarray | None = None
    weight: float = 1.0
    config_type: str | None = None
    split: str | None = None
    group: str | None = None
    neighbors: StoredNeighbors | None = None

    @property
    def where(self) -> str:
        """How messages name this frame."""
        return f"frame {self.number} of {self.source}"


def structure_problem(frame: Frame) -> tuple[str, str] | None:
    """Reason and message of what makes a structure unusable for any network."""
    atoms, where = frame.atoms, frame.where
    if len(atoms) == 0:
        return "no atoms", f"{where} has no atoms; remove it"
    if (atoms.numbers == 0).any():
        return "unknown element", f"{where} has an atom of unknown element 'X'; name its element"
    if not (np.isfinite(atoms.positions).all() and np.isfinite(atoms.cell.array).all()):
        return "NaN or infinite positions", (
            f"{where}: positions or cell contain NaN or infinity; remove the frame"
        )
    cell, pbc = atoms.cell.array, np.asarray(atoms.pbc)
    if np.linalg.matrix_rank(cell[pbc], tol=1e-3) < pbc.sum():
        return "flat cell", (
            f"{where}: the cell is flat along a periodic direction; check cell and pbc"
        )
    same = _same_place(atoms.positions, cell, pbc)
    if same is not None:
        return "atoms at the same place", (
            f"{where}: two atoms are at the same place (numbers {same[0]} and {same[1]}, from "
            "zero); remove the frame"
        )
    return None


def _same_place(positions: np.ndarray, cell: np.ndarray, pbc: np.ndarray) -> tuple[int, int] | None:
    """Two atoms closer than `COINCIDENT`, images included."""
    if not pbc.all():
        cell = ase.geometry.complete_cell(np.where(pbc[:, None], cell, 0.0))
    inverse = np.linalg.inv(cell)
    scaled = positions @ inverse
    scaled[:, pbc] %= 1.0
    scaled[:, pbc] %= 1.0  # a small negative number gives 1.0 first
    tree = cKDTree(scaled, boxsize=pbc.astype(float))
    # distances in scaled coordinates are at most those in angstrom times the norm of the inverse
    reach = COINCIDENT * np.sqrt((inverse**2).sum())
    for first, second in sorted(tree.query_pairs(reach)):
        step = scaled[second] - scaled[first]
        step[pbc] -= np.round(step[pbc])
        if np.linalg.norm(step @ cell) < COINCIDENT:
            return first, second
    return None


def require_labels(
    frames: list[Frame],
    energy: bool,
    forces: bool,
    keys: LabelKeys,
    problems: Problems | None = None,
) -> list[Frame]:
    """The frames that carry what training needs, as finite numbers.

    Raises
    ------
    TDNError
        For the first frame without a needed label, or with one that is NaN or infinite, unless
        ``problems`` skips those.
    """
    problems = problems or Problems()
    kept = []
    for frame in frames:
        found = _label_problem(frame, frames, energy, forces, keys, problems)
        if found is None:
            kept.append(frame)
        else:
            problems.add(*found)
    return kept


def _label_problem(
    frame: Frame,
    frames: list[Frame],
    energy: bool,
    forces: bool,
    keys: LabelKeys,
    problems: Problems,
) -> tuple[str, str] | None:
    """Reason and message of what is wrong with the labels of a frame."""
    labels = (
        ("energy", "an energy", keys.energy, frame.energy, energy),
        ("forces", "forces", keys.forces, frame.forces, forces),
    )
    for name, phrase, key, value, needed in labels:
        if value is None and needed:
            count = sum(getattr(f, name) is None for f in frames)
            under = f"under the key '{key}'" if key else "under a common name"
            return f"no {name}", (
                f"{frame.where} has no {phrase.removeprefix('an ')} {under} ({count} of "
                f"{len(frames)} frames have none{problems.candidates(name)}); set "
                f"data.{name}_key to the file's key, remove such frames (data.bad_frames=skip), "
                f"or set train.{name}_weight=0"
            )
        if value is not None and not np.isfinite(value).all():
            return "NaN or infinite labels", (
                f"{frame.where}: '{key or name}' contains NaN or infinity (a calculation that "
                "failed?); remove the frame, or set data.bad_frames=skip"
            )
    if frame.stress is not None and not np.isfinite(frame.stress).all():
        return "NaN or infinite labels", (
            f"{frame.where}: '{keys.stress or 'stress'}' contains NaN or infinity; remove the "
            "value or the frame"
        )
    return None


def drop_bad_labels(frames: list[Frame]) -> tuple[list[Frame], int]:
    """Treat labels that are not finite as absent; how many frames had such labels."""
    kept, changed = [], 0
    for frame in frames:
        bad = {
            name: None
            for name in ("energy", "forces", "stress")
            if getattr(frame, name) is not None and not np.isfinite(getattr(frame, name)).all()
        }
        changed += bool(bad)
        kept.append(replace(frame, **bad))
    return kept, changed
