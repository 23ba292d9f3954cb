"""Frames to graphs with reference values, once before training."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import numpy as np
import torch
from tqdm import tqdm

from tdn.graph import Graph, graph_from_atoms
from tdn.system.errors import TDNError

from .frames import COINCIDENT, Frame, StoredNeighbors

# below this number of frames a progress bar would only flash
BAR_FROM = 500


def graph_from_frame(frame: Frame, atomic_numbers: list[int], r_max: float) -> Graph:
    """The graph of one frame; labels that it lacks are NaN.

    Raises
    ------
    TDNError
        For an unknown element or an impossible structure, naming the frame.
    """
    try:
        graph = graph_from_atoms(
            frame.atoms, atomic_numbers, r_max, _stored_pairs(frame.neighbors, r_max)
        )
    except TDNError as error:
        raise TDNError(f"{frame.where}: {error}") from None
    if graph.num_edges and torch.linalg.vector_norm(graph.edge_vec, dim=1).min() < COINCIDENT:
        raise TDNError(f"{frame.where}: two atoms are at the same place; remove the frame")
    count = len(frame.atoms)
    nan = float("nan")
    energy = nan if frame.energy is None else frame.energy
    graph.energy = torch.tensor([energy], dtype=torch.float64)
    graph.forces = (
        torch.full((count, 3), nan, dtype=torch.float64)
        if frame.forces is None
        else torch.tensor(frame.forces)
    )
    graph.stress = (
        torch.full((1, 3, 3), nan, dtype=torch.float64)
        if frame.stress is None
        else torch.tensor(frame.stress)[None]
    )
    graph.weight = torch.tensor([frame.weight], dtype=torch.float64)
    return graph


def _stored_pairs(
    neighbors: StoredNeighbors | None, r_max: float
) -> tuple[np.ndarray, np.ndarray] | None:
    """A neighbour list that came with the frame, if it reaches far enough."""
    if neighbors is None or neighbors.cutoff is None or neighbors.cutoff < r_max:
        return None
    return neighbors.edge_index, neighbors.shift


def build_graphs(
    frames: Sequence[Frame], atomic_numbers: list[int], r_max: float, name: str = "frames"
) -> list[Graph]:
    """Graphs of all frames, with a progress bar on a terminal if there are many."""
    quiet = len(frames) < BAR_FROM or not sys.stderr.isatty()
    return [
        graph_from_frame(frame, atomic_numbers, r_max)
        for frame in tqdm(frames, desc=f"neighbors of {name}", disable=quiet, leave=False)
    ]
