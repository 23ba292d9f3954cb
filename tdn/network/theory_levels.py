"""Several levels of theory in one network: a shared body, a readout with E0 and scale per head.

Each head is a whole `Network` whose body is the very same module in all of them, so that a head is
evaluated, checked and exported like any network with one. A batch with frames of several heads is
split by head; its loss is a sum over frames, which does not care.
"""

from __future__ import annotations

import copy
import difflib
from typing import Any

from torch import Tensor, nn

from tdn.config import ModelConfig
from tdn.system.errors import TDNError, UsageError
from tdn.system.printable import printable

from .base import Network

# what each head has for itself, by architecture: modules and buffers of the network
OWN_MODULES = ("readouts", "energy_head", "force_head")
OWN_BUFFERS = ("atomic_energies", "scale")


def _own(name: str) -> bool:
    """Whether an entry of a network's state belongs to one head."""
    return name.partition(".")[0] in (*OWN_MODULES, *OWN_BUFFERS)


class MultiHeadNetwork(nn.Module):
    """Networks that share their body.

    Parameters
    ----------
    network : gives body and first readout, in its final precision
    names : of the heads
    """

    def __init__(self, network: Network, names: tuple[str, ...]) -> None:
        super().__init__()
        self.heads = names
        self.networks = nn.ModuleList([network, *(_with_own_readout(network) for _ in names[1:])])

    @property
    def config(self) -> ModelConfig:
        return self.networks[0].config

    @property
    def embedding(self) -> nn.Parameter:
        """Tells the precision, as that of a network does."""
        return self.networks[0].embedding

    @property
    def direct_forces(self) -> bool:
        return self.networks[0].direct_forces

    def head_states(self) -> dict[str, dict[str, Tensor]]:
        """What each head has for itself, on the CPU."""
        return {
            name: {k: t.detach().cpu().clone() for k, t in net.state_dict().items() if _own(k)}
            for name, net in zip(self.heads, self.networks, strict=True)
        }


def _with_own_readout(network: Network) -> Network:
    """Another network over the same body; its readout begins as a copy."""
    other = copy.copy(network)
    # a shallow copy shares even the tables of modules, parameters and buffers
    for table in ("_modules", "_parameters", "_buffers"):
        setattr(other, table, copy.copy(getattr(network, table)))
    for name in OWN_MODULES:
        if name in network._modules:
            other._modules[name] = copy.deepcopy(network._modules[name])
    for name in OWN_BUFFERS:
        other._buffers[name] = network._buffers[name].clone()
    return other


def select_head(values: dict[str, Any], head: str | None, path: object) -> dict[str, Any]:
    """A checkpoint's content with the state of one head in place of several.

    Raises
    ------
    UsageError
        If the file has several heads and none is named, or none of this name.
    """
    heads = values.get("heads", {})
    known = ", ".join(map(printable, heads))
    if head is None:
        if len(heads) > 1:
            raise UsageError(f"{path} has the heads {known}; choose one (--head, or head= in ASE)")
        return values
    if not heads:
        raise UsageError(f"{path} has no heads, found head '{head}' asked for; leave it out")
    if head not in heads:
        near = difflib.get_close_matches(head, heads, n=1, cutoff=0.5)
        hint = f"did you mean '{printable(near[0])}'?" if near else f"heads: {known}"
        raise UsageError(f"{path} has no head '{head}'; {hint}")
    return {**values, "state": {**values["state"], **heads[head]}}


def load_weights(model: Network | MultiHeadNetwork, values: dict[str, Any]) -> None:
    """Take the weights of `tdn.network.checkpoint.model_to_dict` into a model of the same form.

    Raises
    ------
    TDNError
        If the heads differ.
    """
    heads = values.get("heads", {})
    if tuple(heads) != model.heads:
        raise TDNError(
            f"heads {', '.join(map(printable, heads))} there, {', '.join(model.heads)} here"
        )
    for network, own in zip(model.networks, list(heads.values()) or [{}], strict=True):
        network.load_state_dict({**values["state"], **own})
