"""Which optimizer moves which weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from tdn.config import TrainConfig
from tdn.network.attention_layers import EnergyHead, GatedLinear, SharedLinear
from tdn.network.attention_model import GraphAttention
from tdn.network.attention_radial import RadialProfile
from tdn.network.layers import DegreeLinear, Gate, MLPReadout
from tdn.network.radial import RadialNetwork

from .flat_parameters import FlatParameters
from .soap import Soap

# weights that mix channels with one another, as matrices [..., n, m]; weights per species, degree
# and channel have several indices as well but are no linear maps
MATRICES = {
    DegreeLinear: "weight",
    RadialNetwork: "weights",
    Gate: "gates",
    MLPReadout: "mixing",
    SharedLinear: "weight",
    GatedLinear: "gate",
    EnergyHead: "mixing",
    GraphAttention: "logit_mixing",
    RadialProfile: "weight",
    nn.Linear: "weight",
}


def mixing_matrices(model: nn.Module) -> list[nn.Parameter]:
    """The trained weights of a network that are linear maps between channels."""
    found: list[nn.Parameter] = []
    for module in model.modules():
        name = MATRICES.get(type(module))
        if name is not None:
            value = getattr(module, name)
            found.extend(value if isinstance(value, nn.ParameterList) else [value])
    return [p for p in found if p.requires_grad]


def column_splits(model: nn.Module) -> dict[int, int]:
    """How many maps side by side make a matrix, by ``id`` of the weight; one where it is absent.

    Radial functions and gates of all degrees come out of one product, but each degree is a map of
    its own.
    """
    found = {}
    for module in model.modules():
        if isinstance(module, RadialNetwork):
            found[id(module.weights[-1])] = module.num_degrees
        elif isinstance(module, Gate) and module.gates.numel():
            found[id(module.gates)] = module.gates.size(1) // module.gates.size(0)
    return found


def parameter_groups(model: nn.Module, optimizer: str) -> list[list[nn.Parameter]]:
    """Trained weights in three groups: those of SOAP, others with weight decay, the rest.

    Decay is meant for arrays of several indices alone.
    """
    mixing = mixing_matrices(model) if optimizer == "soap" else []
    chosen = {id(p) for p in mixing}
    trained = [p for p in model.parameters() if p.requires_grad and id(p) not in chosen]
    return [mixing, [p for p in trained if p.ndim >= 2], [p for p in trained if p.ndim < 2]]


class OptimizerPair:
    """Two optimizers that are stepped, stored and restored together.

    Parameters
    ----------
    parts : the optimizers by name
    """

    def __init__(self, parts: dict[str, torch.optim.Optimizer]) -> None:
        self.parts = parts

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        return [group for part in self.parts.values() for group in part.param_groups]

    def step(self) -> None:
        for part in self.parts.values():
            part.step()

    def state_dict(self) -> dict[str, Any]:
        return {name: part.state_dict() for name, part in self.parts.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, part in self.parts.items():
            part.load_state_dict(state[name])


def build_optimizer(
    settings: TrainConfig,
    flat: FlatParameters,
    groups: Sequence[Sequence[nn.Parameter]],
    splits: dict[int, int] | None = None,
) -> torch.optim.Optimizer | OptimizerPair:
    """The optimizer of a run over flat weights.

    Parameters
    ----------
    groups : from `parameter_groups`; those that are not empty have an array in ``flat``
    splits : from `column_splits`
    """
    arrays = iter(flat.tensors)
    mixing, decayed, rest = (next(arrays) if group else None for group in groups)
    decays = ((decayed, settings.weight_decay), (rest, 0.0))
    parts: dict[str, torch.optim.Optimizer] = {}
    if mixing is not None:
        parts["soap"] = Soap(
            mixing,
            flat.blocks(0),
            settings.learning_rate,
            settings.weight_decay,
            [(splits or {}).get(id(p), 1) for p in groups[0]],
        )
    others = [{"params": [a], "weight_decay": decay} for a, decay in decays if a is not None]
    if others:
        parts["adamw"] = torch.optim.AdamW(others, lr=settings.learning_rate, fused=True)
    if len(parts) == 1:
        return next(iter(parts.values()))
    return OptimizerPair(parts)
