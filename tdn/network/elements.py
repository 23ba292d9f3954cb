"""What in a network depends on its elements, and networks of fewer elements."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from ase.data import chemical_symbols
from torch import Tensor

from tdn.config import ModelConfig, stored_model_config
from tdn.system.errors import TDNError
from tdn.system.printable import printable

from .build import empty_network

# numbers of elements for which networks are built to see what depends on the elements
PROBES = (3, 5)


def species_axes(config: ModelConfig) -> dict[str, dict[int, int]]:
    """Which axes of a network's tensors count elements (1) or pairs of them (2).

    Found by building the network for two numbers of elements and comparing shapes, so that it holds
    for every architecture.
    """
    few, many = (_shapes(config, count) for count in PROBES)
    found: dict[str, dict[int, int]] = {}
    for name, shape in few.items():
        for axis, (a, b) in enumerate(zip(shape, many[name], strict=True)):
            if a == b:
                continue
            power = {PROBES: 1, tuple(p**2 for p in PROBES): 2}.get((a, b))
            if power is None:
                raise TDNError(f"'{name}' cannot be carried over to other elements")
            found.setdefault(name, {})[axis] = power
    return found


def _shapes(config: ModelConfig, count: int) -> dict[str, tuple[int, ...]]:
    species = tuple(chemical_symbols[1 : count + 1])
    # CP matrices know nothing of elements: any rank will do
    network = empty_network(dataclasses.replace(config, species=species, rank=1))
    state: dict[str, Tensor] = network.state_dict()
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def pick_species(value: Tensor, axes: dict[int, int], source: Tensor, count: int) -> Tensor:
    """Rows of a tensor along the axes that count elements or pairs of them.

    Parameters
    ----------
    axes : of this tensor, from `species_axes`
    source : [S'] which of the ``count`` elements each new one takes
    """
    for axis, power in axes.items():
        index = source if power == 1 else (source[:, None] * count + source[None]).flatten()
        value = value.index_select(axis, index)
    return value


def select_species(content: dict[str, Any], species: Sequence[str], path: str | Path) -> dict:
    """A checkpoint with some of its elements only; for these it computes what it did before.

    Parameters
    ----------
    content : of one network, as `read_checkpoint` and `select_head` give it
    species : chemical symbols; they keep the order of the checkpoint

    Raises
    ------
    TDNError
        If the checkpoint lacks one of them, or none is given.
    """
    config = stored_model_config(content["config"])
    unknown = [symbol for symbol in species if symbol not in config.species]
    if unknown or not species:
        found = f"has no element {printable(unknown[0])}" if unknown else "must keep an element"
        raise TDNError(f"{path} {found}; it knows {', '.join(map(printable, config.species))}")
    kept = tuple(symbol for symbol in config.species if symbol in species)
    source = torch.tensor([config.species.index(symbol) for symbol in kept])
    axes = species_axes(config)
    for name, counted in axes.items():
        for axis, power in counted.items():
            found, expected = content["state"][name].size(axis), len(config.species) ** power
            if found != expected:
                raise IndexError(f"{name} has {found} rows for elements, expected {expected}")
    state = {
        name: pick_species(value, axes.get(name, {}), source, len(config.species))
        for name, value in content["state"].items()
    }
    return {**content, "config": {**content["config"], "species": list(kept)}, "state": state}
