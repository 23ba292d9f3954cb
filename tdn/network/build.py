"""From a configuration to a network."""

import torch
from ase.data import atomic_numbers as number_of_symbol

from tdn.config import ModelConfig
from tdn.system.errors import TDNError

from .attention_model import AttentionModel
from .base import Network
from .convolution_model import ConvolutionModel


def _check(config: ModelConfig) -> None:
    """What the checks of single keys cannot see."""
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
        raise TDNError("model.avg_num_neighbors is not set: give the mean number of neighbours")
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
    """Build a network in float64 with random weights.

    The one place where a configuration becomes a model. Weights are drawn in float64, so that the
    same seed gives the same network in either precision.

    Raises
    ------
    TDNError
        If the configuration lacks species or ``avg_num_neighbors``, names an unknown element, or
        combines options that do not go together.
    """
    _check(config)
    default = torch.get_default_dtype()
    with torch.random.fork_rng(devices=[], enabled=seed is not None):
        if seed is not None:
            torch.manual_seed(seed)
        torch.set_default_dtype(torch.float64)
        try:
            if config.architecture == "attention":
                return AttentionModel(config)
            return ConvolutionModel(config)
        finally:
            torch.set_default_dtype(default)
