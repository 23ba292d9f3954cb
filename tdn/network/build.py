"""From a configuration to a network."""

import dataclasses
from typing import Any

import torch
from ase.data import atomic_numbers as number_of_symbol

from tdn.config import ModelConfig, stored_model_config
from tdn.cp import load_factors
from tdn.system.errors import TDNError

from .attention_model import AttentionModel
from .base import Network
from .convolution_model import ConvolutionModel
from .cp_matrices import CPMatrices
from .layers import num_components


def check_config(config: ModelConfig) -> None:
    """Refuse what the checks of single keys cannot see."""
    if not config.species:
        raise TDNError("model.species is empty: name the chemical symbols, e.g. [H, O]")
    unknown = [s for s in config.species if s not in number_of_symbol or s == "X"]
    if unknown:
        raise TDNError(f"model.species: '{unknown[0]}' is not a chemical symbol")
    if len(set(config.species)) != len(config.species):
        raise TDNError(f"model.species names an element twice: {', '.join(config.species)}")
    if min(config.radial_hidden, default=1) < 1:
        raise TDNError(
            f"model.radial_hidden = {list(config.radial_hidden)}: expected widths from 1"
        )
    if config.avg_num_neighbors is None:
        raise TDNError("model.avg_num_neighbors is not set: give the mean number of neighbors")
    if config.architecture == "attention":
        if config.num_channels % config.num_heads:
            raise TDNError(
                f"model.num_channels = {config.num_channels} is not a multiple of "
                f"model.num_heads = {config.num_heads}; every head takes an equal share"
            )
        if config.forces == "direct" and config.l_max == 0:
            raise TDNError("model.forces = 'direct' needs vectors: set model.l_max to 1 or more")
        return
    for key, value, needed in (
        ("forces", config.forces, "gradient"),
        ("path_coefficients", config.path_coefficients, "free"),
        ("constants", config.constants, "unit_variance"),
        ("preset", config.preset == "paper", False),
    ):
        if value != needed:
            raise TDNError(
                f"model.{key} = {getattr(config, key)!r} needs model.architecture = 'attention', "
                f"found '{config.architecture}'"
            )
    if config.envelope is None:
        raise TDNError(
            "model.envelope is null, which model.architecture = 'attention' alone allows; "
            f"give a power, e.g. {ModelConfig().envelope}"
        )


def build_model(config: ModelConfig, seed: int | None = None) -> Network:
    """Build a new network in float64 with random weights.

    Weights are drawn in float64, so that the same seed gives the same network in either precision.
    The configuration of the network names the rank of its CP factors, also if ``config`` does not.

    Raises
    ------
    TDNError
        If the configuration lacks species or ``avg_num_neighbors``, names an unknown element, or
        combines options that do not go together.
    """
    check_config(config)
    factors = load_factors(
        config.l_max,
        paths=config.paths,
        rank=config.rank,
        free_coefficients=config.path_coefficients == "free",
        normalized=config.constants != "released",
    )
    config = dataclasses.replace(config, rank=factors.rank)
    return _network(config, CPMatrices.from_factors(factors), seed)


def empty_network(config: ModelConfig) -> Network:
    """A network in float64 that waits for the weights and CP matrices of a stored state.

    CP factors are neither read nor solved for: the state has those of the network.

    Parameters
    ----------
    config : of the stored network (`stored_config`), maybe with other species

    Raises
    ------
    TDNError
        As `build_model`.
    """
    check_config(config)
    return _network(config, CPMatrices.empty(config.l_max, config.rank), seed=0)


def stored_config(values: dict[str, Any]) -> ModelConfig:
    """The configuration of a network from what `tdn.network.checkpoint.model_to_dict` gives.

    Where the configuration leaves the rank of the CP factors open, the stored matrices have it.
    """
    config = stored_model_config(values["config"])
    if config.rank is not None:
        return config
    rows = num_components(config.l_max)
    matrices = (m for name, m in values["state"].items() if name.endswith("input1"))
    rank = next((m.size(1) for m in matrices if m.size(0) == rows), 1)
    return dataclasses.replace(config, rank=rank)


def _network(config: ModelConfig, factors: CPMatrices, seed: int | None) -> Network:
    network = AttentionModel if config.architecture == "attention" else ConvolutionModel
    default = torch.get_default_dtype()
    with torch.random.fork_rng(devices=[], enabled=seed is not None):
        if seed is not None:
            torch.manual_seed(seed)
        torch.set_default_dtype(torch.float64)
        try:
            return network(config, factors)
        finally:
            torch.set_default_dtype(default)
