"""Things in reference data that are often a mistake: one line of warning each."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from ..graph import Graph
from .frames import Frame
from .statistics import count_elements

# limits beyond which a value is suspicious
NET_FORCE = 0.01  # eV/angstrom per atom
LARGE_FORCE = 100.0  # eV/angstrom
ENERGY_SPREAD = 10.0  # eV per atom around the best E0
SHORT_DISTANCE = 0.4  # angstrom


def suspicious(frames: Sequence[Frame], graphs: Sequence[Graph]) -> list[str]:
    """Warnings about frames and their graphs, each one line.

    Looked for: duplicate frames, forces that do not add up to zero, forces and energies of
    impossible size, energies per atom where totals are expected, atoms that are too close, and
    cutoffs that reach no neighbour.
    """
    warnings = [
        _duplicates(frames),
        _net_forces(frames),
        _large_forces(frames),
        _energies(frames),
        _distances(frames, graphs),
        _no_edges(frames, graphs),
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
    labelled = [f for f in frames if f.forces is not None and len(f.forces) > 1]
    net = np.array([np.linalg.norm(f.forces.sum(axis=0)) / len(f.forces) for f in labelled])
    bad = int((net > NET_FORCE).sum())
    if not bad:
        return None
    worst = int(net.argmax())
    return (
        f"forces of {_plural(bad, len(labelled))} do not add up to zero (largest: "
        f"{net[worst]:.3g} eV/A per atom in {labelled[worst].where}); no energy of isolated "
        "structures gives such forces: unconverged, constrained or in an external field?"
    )


def _large_forces(frames: Sequence[Frame]) -> str | None:
    labelled = [f for f in frames if f.forces is not None]
    largest = np.array([np.abs(f.forces).max() for f in labelled])
    bad = int((largest > LARGE_FORCE).sum())
    if bad:
        worst = int(largest.argmax())
        return (
            f"{_plural(bad, len(labelled))} have forces above {LARGE_FORCE:g} eV/A (largest: "
            f"{largest[worst]:.4g} in {labelled[worst].where}); check units and outliers"
        )
    if len(labelled) > 1 and largest.max() < 1e-4:
        return f"all forces are below 1e-4 eV/A (largest {largest.max():.2g}); check their units"
    return None


def _energies(frames: Sequence[Frame]) -> str | None:
    labelled = [f for f in frames if f.energy is not None]
    if len(labelled) < 3:
        return None
    energies = np.array([f.energy for f in labelled])
    symbols = sorted({s for f in labelled for s in set(f.atoms.get_chemical_symbols())})
    counts = count_elements(labelled, symbols)
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
            f"the energy of {labelled[worst].where} is {spread[worst]:.3g} eV per atom away from "
            "the others; check units, and that all frames come from one level of theory"
        )
    return None


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
    bare = [f for f, g in zip(frames, graphs, strict=True) if g.num_edges == 0]
    if not bare:
        return None
    return (
        f"{_plural(len(bare), len(frames))} have no two atoms within model.r_max (first: "
        f"{bare[0].where}); check that positions are in angstrom"
    )
