"""Things in reference data that are often a mistake: one line of warning each."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from tdn.data.frames import Frame
from tdn.data.statistics import count_elements
from tdn.graph import Graph

from .stress_checks import stress_consistency
from .unit_checks import energy_unit, force_consistency

# limits beyond which a value is suspicious
NET_FORCE = 0.01  # eV/angstrom per atom
LARGE_FORCE = 100.0  # eV/angstrom
ENERGY_SPREAD = 10.0  # eV per atom around the best E0
SHORT_DISTANCE = 0.4  # angstrom
ENERGY_GAP = 1.0  # eV per atom between two groups of frames of one composition
COMPOSITION_SPREAD = 2.0  # eV per atom between compositions


def suspicious(frames: Sequence[Frame], graphs: Sequence[Graph]) -> list[str]:
    """Warnings about frames and their graphs, each one line.

    Looked for: duplicate frames, forces that do not add up to zero, forces and energies of
    impossible size, energies per atom where totals are expected, energies that differ between
    compositions or fall apart within one, units other than eV and angstrom,
    forces or stresses of the opposite sign, periodic and non-periodic frames together, atoms that
    are too close, and cutoffs that reach no neighbour.

    Parameters
    ----------
    frames : all frames to look at
    graphs : of the first frames, or of all
    """
    with_graphs = frames[: len(graphs)]
    warnings = [
        _duplicates(frames),
        _net_forces(frames),
        _large_forces(frames),
        _energies(frames),
        _compositions(frames),
        energy_unit(frames),
        force_consistency(frames),
        stress_consistency(frames),
        _periodicity(frames),
        _distances(with_graphs, graphs),
        _no_edges(with_graphs, graphs),
    ]
    return [text for text in warnings if text]


def _plural(count: int, total: int) -> str:
    return f"{count} of {total} frames"


def _duplicates(frames: Sequence[Frame]) -> str | None:
    seen: dict[bytes, Frame] = {}
    pairs = []
    for frame in frames:
        atoms = frame.atoms
        parts = (atoms.numbers, np.round(atoms.positions, 6), np.round(atoms.cell.array, 6))
        key = b"".join((part + 0).tobytes() for part in parts)  # + 0 turns -0.0 into 0.0
        if key in seen:
            pairs.append((seen[key], frame))
        else:
            seen[key] = frame
    if not pairs:
        return None
    first, second = pairs[0]
    return (
        f"{_plural(len(pairs), len(frames))} repeat an earlier one (first: {second.where} and "
        f"{first.where}); duplicates in training and validation make errors look too small"
    )


def _net_forces(frames: Sequence[Frame]) -> str | None:
    labeled = [f for f in frames if f.forces is not None and len(f.forces) > 1]
    net = np.array([np.linalg.norm(f.forces.sum(axis=0)) / len(f.forces) for f in labeled])
    bad = int((net > NET_FORCE).sum())
    if not bad:
        return None
    worst = int(net.argmax())
    return (
        f"forces of {_plural(bad, len(labeled))} do not add up to zero (largest: "
        f"{net[worst]:.3g} eV/A per atom in {labeled[worst].where}); no energy of isolated "
        "structures gives such forces: unconverged, constrained or in an external field?"
    )


def _large_forces(frames: Sequence[Frame]) -> str | None:
    labeled = [f for f in frames if f.forces is not None]
    largest = np.array([np.abs(f.forces).max() for f in labeled])
    bad = int((largest > LARGE_FORCE).sum())
    if bad:
        worst = int(largest.argmax())
        return (
            f"{_plural(bad, len(labeled))} have forces above {LARGE_FORCE:g} eV/A (largest: "
            f"{largest[worst]:.4g} in {labeled[worst].where}); check units and outliers"
        )
    if len(labeled) > 1 and largest.max() < 1e-4:
        return f"all forces are below 1e-4 eV/A (largest {largest.max():.2g}); check their units"
    return None


def _energies(frames: Sequence[Frame]) -> str | None:
    labeled = [f for f in frames if f.energy is not None]
    if len(labeled) < 3:
        return None
    energies = np.array([f.energy for f in labeled])
    symbols = sorted({s for f in labeled for s in set(f.atoms.get_chemical_symbols())})
    counts = count_elements(labeled, symbols)
    atoms = counts.sum(axis=1)

    def residual(matrix: np.ndarray) -> np.ndarray:
        return energies - matrix @ np.linalg.lstsq(matrix, energies, rcond=1e-10)[0]

    total = residual(counts)
    if atoms.max() >= 1.5 * atoms.min():
        each = residual(counts / atoms[:, None])
        if np.std(total) > 3 * np.std(each) + 1e-6:
            return (
                "energies do not grow with the number of atoms: energies per atom? Total energies "
                "in eV are expected"
            )
    spread = np.abs(total / atoms)
    if spread.max() > ENERGY_SPREAD:
        worst = int(spread.argmax())
        return (
            f"the energy of {labeled[worst].where} is {spread[worst]:.3g} eV per atom away from "
            "the others; check units, and that all frames come from one level of theory"
        )
    return None


def _compositions(frames: Sequence[Frame]) -> str | None:
    """Energies that fall apart into two groups within one composition, or between compositions."""
    labeled = [f for f in frames if f.energy is not None]
    groups: dict[str, list[Frame]] = {}
    for frame in labeled:
        groups.setdefault(frame.atoms.get_chemical_formula(), []).append(frame)
    for formula, group in groups.items():
        if len(group) < 4:
            continue
        group = sorted(group, key=lambda f: f.energy)
        energies = np.array([f.energy for f in group]) / len(group[0].atoms)
        gaps = np.diff(energies)
        at = int(gaps.argmax())
        rest = max(energies[at] - energies[0], energies[-1] - energies[at + 1])
        if gaps[at] > ENERGY_GAP and gaps[at] > 10 * rest and 1 <= at + 1 < len(group):
            return (
                f"energies of {formula} fall into two groups {gaps[at]:.3g} eV per atom apart "
                f"({at + 1} and {len(group) - at - 1} frames; first of each: {group[0].where}, "
                f"{group[at + 1].where}); two levels of theory?"
            )
    if len(groups) < 3:
        return None
    symbols = sorted({s for g in groups.values() for s in g[0].atoms.get_chemical_symbols()})
    counts = count_elements([g[0] for g in groups.values()], symbols)
    if np.linalg.matrix_rank(counts) < len(symbols) or len(groups) <= len(symbols):
        return None
    atoms = counts.sum(axis=1)
    means = np.array([np.mean([f.energy for f in g]) for g in groups.values()]) / atoms
    matrix = counts / atoms[:, None]
    off = means - matrix @ np.linalg.lstsq(matrix, means, rcond=1e-10)[0]
    worst = int(np.abs(off).argmax())
    if abs(off[worst]) < COMPOSITION_SPREAD:
        return None
    formula = list(groups)[worst]
    return (
        f"energies per atom are not consistent between compositions: {formula} "
        f"({len(groups[formula])} frames) is {abs(off[worst]):.3g} eV per atom away from what E0 "
        "of its elements give; another reference or level of theory?"
    )


def _periodicity(frames: Sequence[Frame]) -> str | None:
    kinds: dict[str, list[Frame]] = {}
    for frame in frames:
        if len(frame.atoms) > 1:
            pbc = frame.atoms.pbc
            name = "".join("abc"[i] for i in range(3) if pbc[i])
            kinds.setdefault(f"periodic along {name}" if name else "not periodic", []).append(frame)
    if len(kinds) < 2:
        return None
    counts = ", ".join(
        f"{len(found)} are {name} (first: {found[0].where})" for name, found in kinds.items()
    )
    return (
        f"mixed periodicity: {counts}; fine if it is meant, but check that no frame lost its cell "
        "or pbc"
    )


def _distances(frames: Sequence[Frame], graphs: Sequence[Graph]) -> str | None:
    shortest, where = np.inf, ""
    for frame, graph in zip(frames, graphs, strict=True):
        if graph.num_edges:
            distance = float(torch.linalg.vector_norm(graph.edge_vec, dim=1).min())
            if distance < shortest:
                shortest, where = distance, frame.where
    if shortest > SHORT_DISTANCE:
        return None
    return (
        f"atoms are only {shortest:.3g} A apart in {where}; "
        "check that positions are in angstrom and the cell is right"
    )


def _no_edges(frames: Sequence[Frame], graphs: Sequence[Graph]) -> str | None:
    pairs = zip(frames, graphs, strict=True)
    bare = [f for f, g in pairs if g.num_edges == 0 and g.num_atoms > 1]
    if not bare:
        return None
    return (
        f"{_plural(len(bare), len(frames))} have no two atoms within model.r_max (first: "
        f"{bare[0].where}); check that positions are in angstrom"
    )
