"""What a network takes from its training data before the fit: E0, energy scale, neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import ase
import ase.geometry
import numpy as np
from ase.data import atomic_numbers, chemical_symbols

from tdn.graph import Graph
from tdn.system.errors import TDNError, UsageError

from .frames import Frame

E0_METHODS = ("auto", "isolated", "least_squares", "none")
# angstrom between periodic images; beyond it an atom has the energy of a free one
FREE_DISTANCE = 10.0
# eV per atom; no matter is bound so strongly
LARGEST_BINDING = 10.0


@dataclass(frozen=True)
class AtomicEnergies:
    """Energies E0 per element in eV, where each comes from, and what a user should know."""

    values: dict[str, float]
    origin: dict[str, str]
    notes: tuple[str, ...] = field(default=())

    def warnings(self, frames: Sequence[Frame]) -> list[str]:
        """The notes, and whether values that do not come from the frames contradict them."""
        fitted = set(self.origin.values()) == {"least squares"}
        found = None if fitted else contradicting_energies(frames, self.values)
        return [*self.notes, *([found] if found else [])]


def image_distance(atoms: ase.Atoms) -> float:
    """Distance of an atom from its nearest periodic image in angstrom; infinite without any."""
    if not atoms.pbc.any():
        return np.inf
    cell, _ = ase.geometry.minkowski_reduce(atoms.cell, atoms.pbc)
    return float(np.linalg.norm(np.asarray(cell)[atoms.pbc], axis=1).min())


def _named_isolated(frame: Frame) -> bool:
    name = (frame.config_type or "").lower().replace("_", "").replace(" ", "")
    return name == "isolatedatom"


def is_isolated_atom(frame: Frame, r_max: float) -> bool:
    """One atom without an image within the cutoff, or one whose config_type is IsolatedAtom.

    Networks give such an atom the energy E0 exactly.
    """
    if len(frame.atoms) != 1:
        return False
    return _named_isolated(frame) or image_distance(frame.atoms) >= r_max


def isolated_energies(frames: Sequence[Frame]) -> dict[str, float]:
    """E0 of every element from frames of isolated atoms.

    Of several frames of an element those named IsolatedAtom count first, then the one whose
    periodic images are farthest away.

    Raises
    ------
    TDNError
        If a frame has no energy, or two frames that are equally good disagree by more than 1 meV.
    """
    groups: dict[str, list[tuple[float, Frame]]] = {}
    for frame in frames:
        symbol = chemical_symbols[frame.atoms.numbers[0]]
        if frame.energy is None or not np.isfinite(frame.energy):
            raise TDNError(f"{frame.where} is an isolated {symbol} atom without an energy")
        reach = np.inf if _named_isolated(frame) else image_distance(frame.atoms)
        groups.setdefault(symbol, []).append((reach, frame))
    values: dict[str, float] = {}
    for symbol, group in groups.items():
        best, first = max(group, key=lambda item: item[0])
        for reach, frame in group:
            if reach >= min(best, FREE_DISTANCE) and abs(frame.energy - first.energy) > 1e-3:
                raise TDNError(
                    f"{frame.where} is an isolated {symbol} atom of {frame.energy:.6f} eV, another "
                    f"frame gives {first.energy:.6f} eV; keep one, or set data.atomic_energies"
                )
        values[symbol] = first.energy
    return values


def contradicting_energies(frames: Sequence[Frame], energies: dict[str, float]) -> str | None:
    """A warning if energies minus E0 are too large to be binding energies."""
    labeled = [
        f
        for f in frames
        if f.energy is not None
        and np.isfinite(f.energy)
        and set(f.atoms.get_chemical_symbols()) <= set(energies)
    ]
    if not labeled:
        return None
    counts = count_elements(labeled, list(energies))
    values = np.array([f.energy for f in labeled]) - counts @ np.array(list(energies.values()))
    values /= counts.sum(axis=1)
    bad = np.abs(values) > LARGEST_BINDING
    if not bad.any():
        return None
    worst = int(np.abs(values).argmax())
    return (
        f"E0 contradict the energies: after subtracting them, energies of {int(bad.sum())} of "
        f"{len(labeled)} frames are off by more than {LARGEST_BINDING:g} eV per atom (largest: "
        f"{values[worst]:.4g} in {labeled[worst].where}); take E0 from the same program, level of "
        "theory and pseudopotentials, in eV"
    )


def least_squares_energies(
    compositions: np.ndarray, energies: np.ndarray
) -> tuple[np.ndarray, bool]:
    """Energies per element that explain total energies best, per atom; of least norm if many do.

    Parameters
    ----------
    compositions : [F, S], atoms of each element in every frame
    energies : [F], eV

    Returns
    -------
    values : [S], eV
    degenerate : whether the compositions leave a combination of elements undetermined
    """
    atoms = compositions.sum(axis=1)
    matrix = compositions / atoms[:, None]
    values, _, rank, _ = np.linalg.lstsq(matrix, energies / atoms, rcond=1e-10)
    return values, bool(rank < compositions.shape[1])


def count_elements(frames: Sequence[Frame], species: Sequence[str]) -> np.ndarray:
    """Atoms of each element in every frame, [F, S]."""
    numbers = np.array([atomic_numbers[s] for s in species])
    return np.array([(f.atoms.numbers[:, None] == numbers).sum(axis=0) for f in frames], float)


def find_atomic_energies(
    setting: str | dict[str, float],
    species: Sequence[str],
    frames: Sequence[Frame],
    isolated: Sequence[Frame],
) -> AtomicEnergies:
    """E0 of every element of the model.

    Parameters
    ----------
    setting : ``auto`` (isolated atoms where there are any, least squares for the rest),
        ``isolated``, ``least_squares``, ``none`` (zero), or a value in eV per symbol
    species : chemical symbols of the model
    frames : training frames without isolated atoms
    isolated : frames of isolated atoms

    Raises
    ------
    TDNError
        If an element gets no E0.
    """
    if isinstance(setting, dict):
        unknown = [s for s in setting if s not in atomic_numbers or s == "X"]
        if unknown:
            raise UsageError(f"data.atomic_energies: '{unknown[0]}' is not a chemical symbol")
        values = {s: setting[s] for s in species if s in setting}
        _check_complete(values, species, "give a value for it in data.atomic_energies")
        return AtomicEnergies(values, dict.fromkeys(species, "given"))
    if setting not in E0_METHODS:
        raise UsageError(
            f"data.atomic_energies = {setting!r}: expected {', '.join(E0_METHODS)} or a value "
            "per symbol, e.g. {H: -13.6, O: -2041.8}"
        )
    if setting == "none":
        return AtomicEnergies(dict.fromkeys(species, 0.0), dict.fromkeys(species, "none"))
    known = {} if setting == "least_squares" else isolated_energies(isolated)
    known = {s: known[s] for s in species if s in known}
    if setting == "isolated":
        _check_complete(
            known,
            species,
            "add a frame of the isolated atom (data.isolated_atoms), or use "
            "data.atomic_energies=least_squares",
        )
    rest = [s for s in species if s not in known]
    origin = dict.fromkeys(known, "isolated atom")
    if not rest:
        return AtomicEnergies(known, origin)
    labeled = [f for f in frames if f.energy is not None]
    counts = count_elements(labeled, list(species)) if labeled else np.zeros((0, len(species)))
    absent = [s for s in rest if not counts[:, list(species).index(s)].any()]
    if absent:
        raise TDNError(
            f"no E0 for element {', '.join(absent)}: no training frame with an energy contains it "
            "and no isolated atom is given; set data.atomic_energies or data.isolated_atoms"
        )
    columns = [list(species).index(s) for s in rest]
    offset = counts @ np.array([known.get(s, 0.0) for s in species])
    chosen = counts[:, columns].sum(axis=1) > 0
    energies = np.array([f.energy for f in labeled]) - offset
    fitted, degenerate = least_squares_energies(counts[chosen][:, columns], energies[chosen])
    notes = []
    if degenerate:
        notes.append(
            f"the compositions of the frames do not determine E0 of {', '.join(rest)} one by one; "
            "the solution of least norm is used: right for these compositions, arbitrary for "
            "others (data.isolated_atoms gives physical values)"
        )
    values = {**known, **dict(zip(rest, map(float, fitted), strict=True))}
    origin.update(dict.fromkeys(rest, "least squares"))
    return AtomicEnergies(
        {s: values[s] for s in species}, {s: origin[s] for s in species}, tuple(notes)
    )


def _check_complete(values: dict[str, float], species: Sequence[str], advice: str) -> None:
    missing = [s for s in species if s not in values]
    if missing:
        raise TDNError(f"no E0 for element {', '.join(missing)}: {advice}")


def energy_scale(frames: Sequence[Frame], species: Sequence[str], setting: str) -> np.ndarray:
    """Energy scale of every element, [S] in eV: `force_scale` as ``data.energy_scale`` says."""
    if setting == "none":
        return np.ones(len(species))
    return force_scale(frames, species, setting == "per_species")


def force_scale(frames: Sequence[Frame], species: Sequence[str], per_species: bool) -> np.ndarray:
    """Root mean square of the force components, the natural scale of energies, [S] in eV.

    Elements without forces get the value of all elements together; without any force it is one.
    """
    labeled = [f for f in frames if f.forces is not None]
    if not labeled:
        return np.ones(len(species))
    forces = np.concatenate([f.forces for f in labeled])
    numbers = np.concatenate([f.atoms.numbers for f in labeled])
    total = float(np.sqrt(np.mean(forces**2)))
    if total < 1e-8:
        return np.ones(len(species))
    scale = np.full(len(species), total)
    if per_species:
        for index, symbol in enumerate(species):
            chosen = forces[numbers == atomic_numbers[symbol]]
            if len(chosen) and (rms := float(np.sqrt(np.mean(chosen**2)))) > 1e-8:
                scale[index] = rms
    return scale


def mean_neighbors(graphs: Sequence[Graph]) -> float:
    """Mean number of neighbours per atom; one where nothing has a neighbour."""
    edges = sum(g.num_edges for g in graphs)
    return edges / sum(g.num_atoms for g in graphs) if edges else 1.0
