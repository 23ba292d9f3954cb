"""The network at the beginning of a run, and which of its parameters are trained."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch

from tdn.config import Config
from tdn.data import Dataset
from tdn.data.dataset.theory_levels import head_statistics
from tdn.graph import collate
from tdn.network.base import set_dtype
from tdn.network.build import build_model, empty_network, stored_config
from tdn.network.initial_norms import normalize_activations
from tdn.network.theory_levels import MultiHeadNetwork, load_weights
from tdn.system.errors import UsageError

from .finetuning import start_from_checkpoint, take_energies

# training frames that set the norms of a new network
NORMALIZE_FRAMES = 16


def initial_model(
    config: Config,
    dataset: Dataset,
    dtype: torch.dtype,
    stored: dict[str, Any] | None = None,
) -> tuple[torch.nn.Module, list[str]]:
    """The network with E0, scale and norms, on the CPU, and lines that a user should read.

    A new network, or that of ``train.init_from``; with ``data.heads`` one with several readouts;
    parameters of ``train.freeze`` do not ask for gradients.

    Parameters
    ----------
    stored : the network of a run that goes on (`tdn.network.checkpoint.model_to_dict`)

    Raises
    ------
    TDNError
        If a checkpoint does not fit, or a pattern of ``train.freeze`` names no parameter.
    """
    settings = config.train
    statistics = head_statistics(dataset)
    # CP factors are looked up for new networks only: stored ones have their own
    if stored is not None:
        model = empty_network(stored_config(stored))
    elif settings.init_from is not None:
        model = empty_network(dataset.model_config)
    else:
        model = build_model(dataset.model_config, seed=settings.seed)
    model.set_statistics(*statistics[0])
    if settings.init_from is None and stored is None:
        frames = range(min(len(dataset.train), NORMALIZE_FRAMES))
        normalize_activations(model, collate([dataset.train.graphs[i] for i in frames]))
    if dataset.heads:
        model = MultiHeadNetwork(model, dataset.heads)
        for network, values in zip(model.networks, statistics, strict=True):
            network.set_statistics(*values)
    notes = []
    if stored is not None:
        load_weights(model, stored)
        if settings.init_from is not None:
            take_energies(model, dataset)
    elif settings.init_from is not None:
        notes = start_from_checkpoint(model, settings.init_from, dataset, settings.seed)
    first, *others = model.networks
    set_dtype(first, dtype)
    for other in others:
        # the body is converted already; rounding it again would spoil its exact constants
        other.float64_constants = first.float64_constants
        set_dtype(other, dtype)
    freeze(model, settings.freeze)
    return model, notes


def freeze(model: torch.nn.Module, patterns: Sequence[str]) -> None:
    """Exclude parameters from training.

    Parameters
    ----------
    patterns : names of parameters or modules as in ``named_parameters``, with the wildcards of a
        shell; those of a network with heads are taken as in a network with one

    Raises
    ------
    UsageError
        If a pattern matches nothing, naming the nearest parameter, or nothing is left to train.
    """
    networks = model.networks
    names = sorted({name for network in networks for name, _ in network.named_parameters()})
    modules = {name.rpartition(".")[0] for name in names} | {n.partition(".")[0] for n in names}
    for pattern in patterns:
        chosen = [
            n
            for n in names
            if fnmatchcase(n, pattern) or fnmatchcase(n, pattern.rstrip(".") + ".*")
        ]
        if not chosen:
            candidates = [*names, *sorted(modules - {""})]
            near = difflib.get_close_matches(pattern, candidates, n=1, cutoff=0.3)
            raise UsageError(
                f"train.freeze: no parameter matches '{pattern}'; did you mean "
                f"'{(near or names)[0]}'?"
            )
        for network in networks:
            for name, parameter in network.named_parameters():
                if name in chosen:
                    parameter.requires_grad_(False)
    if not any(p.requires_grad for p in model.parameters()):
        raise UsageError("train.freeze leaves no parameter to train; name fewer")
