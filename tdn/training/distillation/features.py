"""What a network makes of frames, and frames that are far from each other in it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import ase
import numpy as np
import torch
from torch import nn

from tdn.graph import graph_from_atoms
from tdn.network.checkpoint import load_model
from tdn.network.convolution_model import ConvolutionModel


def frame_features(model: Path, frames: Sequence[ase.Atoms]) -> np.ndarray:
    """One row of numbers per frame, from the scalar features that a network's readouts see.

    For each element, mean and standard deviation over its atoms of every feature of every layer:
    the mean says which phase it is, the deviation whether some atoms are unlike the others.

    Parameters
    ----------
    model : checkpoint

    Returns
    -------
    np.ndarray
        float64 [F, 2 S C], S elements and C features
    """
    network, _ = load_model(model)
    if isinstance(network, ConvolutionModel):
        readouts: list[nn.Module] = list(network.readouts)
    else:
        readouts = [network.energy_head]
    caught: list[torch.Tensor] = []
    hooks = [
        readout.register_forward_pre_hook(lambda _, arguments: caught.append(arguments[0]))
        for readout in readouts
    ]
    rows = []
    with torch.no_grad():
        for atoms in frames:
            caught.clear()
            graph = graph_from_atoms(atoms, network.atomic_numbers, network.r_max)
            network(graph.species, graph.edges, graph.edge_vec, graph.num_atoms)
            # the attention network appends an isolated atom of each element
            features = torch.cat([part[: graph.num_atoms] for part in caught], dim=1).double()
            rows.append(_by_element(features, graph.species, network.num_species))
    for hook in hooks:
        hook.remove()
    return torch.stack(rows).numpy()


def _by_element(features: torch.Tensor, species: torch.Tensor, count: int) -> torch.Tensor:
    parts = []
    for index in range(count):
        mine = features[species == index]
        if len(mine):
            parts += [mine.mean(0), mine.std(0, correction=0)]
        else:
            parts += [features.new_zeros(2 * features.size(1))]
    return torch.cat(parts)


def farthest_points(
    known: np.ndarray, found: np.ndarray, count: int, weights: np.ndarray | None = None
) -> list[int]:
    """Rows of ``found`` that are far from all known rows and from each other, the farthest first.

    Every column is divided by its standard deviation over all rows. Greedy: each choice maximizes
    the distance to what is known and was chosen before (Gonzalez, 1985).

    Parameters
    ----------
    known : [K, D], may have no rows
    found : [F, D]
    count : how many to choose, at most
    weights : [F], factors of distances: what matters more is chosen where it is as far
    """
    if not len(found):
        return []
    scale = np.concatenate([known, found]).std(axis=0)
    scale[scale < 1e-12] = 1.0
    known, found = known / scale, found / scale
    if len(known):
        distance = np.min([((found - row) ** 2).sum(axis=1) for row in known], axis=0)
    else:
        distance = ((found - found.mean(axis=0)) ** 2).sum(axis=1)
    factors = np.ones(len(found)) if weights is None else weights**2
    chosen: list[int] = []
    while len(chosen) < min(count, len(found)):
        best = int((factors * distance).argmax())
        if chosen and distance[best] <= 0:
            break
        chosen.append(best)
        distance = np.minimum(distance, ((found - found[best]) ** 2).sum(axis=1))
    return chosen
