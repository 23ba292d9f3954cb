"""``train.compile``: the network through `torch.compile`, where that can be trained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from tdn.data.dataset.subset import Subset
from tdn.graph import Graph, collate
from tdn.network.potential import Potential
from tdn.system.ranks import Ranks
from tdn.training.loss import Loss

from .initial_network import NORMALIZE_FRAMES

WARNING = (
    "train.compile: this network cannot be trained compiled ({reason}); training goes on with the "
    "fused operators of tdn alone, which need no compilation"
)


class _CompiledDirect(torch.nn.Module):
    """A network with direct forces, of which `Potential` calls another method than ``forward``."""

    direct_forces = True

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self._compiled = torch.compile(network.energies_and_forces, dynamic=True)

    def energies_and_forces(self, *inputs: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """Those of the network, whose floats are constants: as inputs they are traced twice."""
        with torch._dynamo.config.patch(specialize_float=True):
            return self._compiled(*inputs)


def compiled_network(
    model: torch.nn.Module, graph: Graph, loss: Loss, ranks: Ranks
) -> tuple[torch.nn.Module, str | None]:
    """The compiled network, or ``model`` itself and a warning that says why.

    A loss on forces that are a gradient differentiates the network twice, which compiled code of
    PyTorch up to 2.13 refuses. Networks with direct forces are differentiated once; whether they
    compile is found out on one batch.

    Parameters
    ----------
    graph : some training frames, on the model's device
    """
    if not model.direct_forces:
        reason = (
            "PyTorch differentiates compiled code once, and energies with gradient forces twice"
        )
        return model, WARNING.format(reason=reason)
    reason = None
    try:
        compiled = _CompiledDirect(model)
        prediction = Potential(compiled)(graph, training=True)
        loss.weighted(loss.terms(prediction, graph)).backward(
            inputs=[p for p in model.parameters() if p.requires_grad]
        )
    # the compiler's own exceptions have no common base, and any of them means the same here
    except Exception as error:
        reason = " ".join(str(error).split())[:150] or type(error).__name__
    finally:
        model.zero_grad(set_to_none=True)
    if not ranks.any(reason is not None):
        return compiled, None
    # without a reason here another rank has one, and says so
    return model, None if reason is None else WARNING.format(reason=reason)


def compiled_networks(
    networks: Sequence[torch.nn.Module], frames: Subset, loss: Loss, ranks: Ranks
) -> tuple[list[torch.nn.Module], list[str]]:
    """The network of each level of theory, compiled where that can be, and warnings.

    Parameters
    ----------
    frames : for training; some of them show whether the compiled networks can be trained
    """
    device = next(networks[0].parameters()).device
    chosen = range(min(len(frames), NORMALIZE_FRAMES))
    graph = collate([frames.graphs[i] for i in chosen]).to(device)
    found = [compiled_network(network, graph, loss, ranks) for network in networks]
    return [network for network, _ in found], [text for _, text in found if text is not None]
