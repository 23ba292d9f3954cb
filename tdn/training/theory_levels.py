"""Training frames and subsets, taken apart by the level of theory whose network they are for."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from tdn.data import Dataset
from tdn.data.dataset.theory_levels import head_slices
from tdn.evaluation.errors import Evaluation, evaluate, join_evaluations
from tdn.network.potential import Potential
from tdn.system.ranks import Ranks


def shares_of_levels(
    batches: Sequence[list[int]], dataset: Dataset, ranks: Ranks
) -> list[tuple[int, list[int]]]:
    """Frames of this rank's share of a step, with the number of the level that they are for.

    Parameters
    ----------
    batches : frames of each batch of the step
    """
    slices = head_slices(dataset, "train")
    shares = []
    for batch in batches:
        mine = ranks.share(batch)
        for level, frames in enumerate(slices):
            chosen = [i for i in mine if i in frames]
            if chosen:
                shares.append((level, chosen))
    return shares


def evaluate_subset(
    dataset: Dataset,
    name: str,
    model: torch.nn.Module,
    batch_size: int,
    device: torch.device,
    ranks: Ranks,
) -> Evaluation:
    """Evaluate the frames of each level with the network of that level; on all ranks.

    Parameters
    ----------
    name : of the subset, such as ``valid``
    model : has ``networks``, one for each level; it is moved to the device
    """
    graphs = getattr(dataset, name).report.graphs
    networks = model.to(device).networks
    parts = []
    for network, frames in zip(networks, head_slices(dataset, name), strict=True):
        potential = Potential(network).eval()
        # frames of the only level need no copy of the list, which may not fit in memory
        chosen = graphs if len(networks) == 1 else [graphs[i] for i in frames]
        if len(chosen):
            parts.append(evaluate(potential, chosen, batch_size, device, ranks=ranks))
    return join_evaluations(parts)
