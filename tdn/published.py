"""Networks of the released code of arXiv 2507.01131 as networks of this package.

The released code stores the weights of its network and nothing about it: what shapes do not tell
(cutoff, mean numbers of atoms and neighbors) has the values that the code has as constants.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from ase.data import chemical_symbols
from torch import Tensor

from tdn.config import ModelConfig, model_config_from_dict
from tdn.network.base import Network, set_dtype
from tdn.network.build import empty_network
from tdn.system.errors import TDNError
from tdn.system.printable import printable

# what torch.nn.DataParallel and torch.compile put into names
WRAPPERS = re.compile(r"^module\.|_orig_mod\.")
FACTORS = {"input1": "cp_a", "input2": "cp_b", "output": "cp_c"}
# modules of an attention, ours and released; matrices are stored transposed there
SHARED_LINEAR = {
    "merge_source": "merge_src",
    "merge_target": "merge_dst",
    "projection": "proj",
}


class _Released:
    """A released state, every entry of which has to be used.

    Parameters
    ----------
    state : tensors by released name
    """

    def __init__(self, state: Mapping[str, Any]) -> None:
        self.state = {WRAPPERS.sub("", str(name)): value for name, value in state.items()}
        self.unused = set(self.state)

    def take(self, name: str) -> Tensor:
        """An entry by its name."""
        if not isinstance(self.state.get(name), Tensor):
            raise TDNError(
                f"not a state of the released network: {name} is missing; expected the state_dict "
                "of its TensorDecompositionNetwork"
            )
        self.unused.discard(name)
        return self.state[name].detach().cpu()

    def linear(self, name: str, ours: str) -> dict[str, Tensor]:
        """A linear map over channels, with its bias if it has one, as [inputs, outputs]."""
        found = {f"{ours}.weight": self.take(f"{name}.linear.weight").t()}
        if f"{name}.bias" in self.state:
            found[f"{ours}.bias"] = self.take(f"{name}.bias").flatten()
        return found

    def gated(self, name: str, ours: str) -> dict[str, Tensor]:
        """A map to 2 C channels whose scalars of the second half are gates."""
        value, gate = self.take(f"{name}.linear.weight").chunk(2)
        bias, gate_bias = self.take(f"{name}.bias").flatten().chunk(2)
        return {
            f"{ours}.value.weight": value.t(),
            f"{ours}.value.bias": bias,
            f"{ours}.gate": gate.t(),
            f"{ours}.gate_bias": gate_bias,
        }

    def norm(self, name: str, ours: str) -> dict[str, Tensor]:
        """A layer norm per degree."""
        return {
            f"{ours}.weight": self.take(f"{name}.affine_weight").squeeze(1),
            f"{ours}.bias": self.take(f"{name}.affine_bias").flatten(),
        }

    def radial(self, name: str, ours: str) -> dict[str, Tensor]:
        """Radial weights: linear maps and layer norms alternate, and the last map has no bias."""
        last = 3 * len(self.radial_widths(name))
        found = {
            f"{ours}.weight": self.take(f"{name}.net.{last}.weight").t(),
            f"{ours}.offset": self.take(f"{name}.offset"),
        }
        for i in range(0, last, 3):
            for part in (i, i + 1):
                for kind in ("weight", "bias"):
                    found[f"{ours}.hidden.{part}.{kind}"] = self.take(f"{name}.net.{part}.{kind}")
        return found

    def radial_widths(self, name: str) -> list[int]:
        """Widths of the hidden layers of a radial network."""
        widths = []
        while f"{name}.net.{3 * len(widths) + 1}.weight" in self.state:
            widths.append(len(self.state[f"{name}.net.{3 * len(widths)}.weight"]))
        return widths

    def attention(self, name: str, ours: str) -> dict[str, Tensor]:
        """One attention: its factors are those of the network."""
        found = {
            f"{ours}.logit_mixing": self.take(f"{name}.lin_alpha.linear.weight").t(),
            f"{ours}.logit_bias": self.take(f"{name}.lin_alpha.bias").flatten(),
            f"{ours}.logit_weight": self.take(f"{name}.alpha_dot"),
            **self.radial(f"{name}.rad", f"{ours}.radial"),
            **self.gated(f"{name}.lin_value", f"{ours}.value"),
        }
        for part, released in SHARED_LINEAR.items():
            found |= self.linear(f"{name}.{released}", f"{ours}.{part}")
        return found

    def factors(self) -> dict[str, Tensor]:
        """The CP factors, which every product of the network holds a copy of."""
        found = {}
        for ours, released in FACTORS.items():
            copies = [n for n in self.state if n.endswith(f"cp_tp.{released}")]
            values = [self.take(n) for n in copies] or [
                self.take(f"edge_embed.tp.cp_tp.{released}")
            ]
            for name, value in zip(copies, values, strict=False):
                if not torch.equal(value, values[0]):
                    raise TDNError(
                        f"{name} differs from {copies[0]}; expected one set of CP factors in all "
                        "products, as the released code makes them"
                    )
            found[ours] = values[0]
        return found


def _config(
    released: _Released, r_max: float, avg_num_atoms: float, avg_num_neighbors: float
) -> ModelConfig:
    """The configuration that the shapes of a state tell."""
    blocks = {name.split(".")[1] for name in released.state if name.startswith("blocks.")}
    channels, elements = released.take("atom_embed.atom_type_lin.weight").shape
    factor = released.take("edge_embed.tp.cp_tp.cp_c")
    return model_config_from_dict(
        {
            "preset": "paper",
            # row 0 of the embedding belongs to no element
            "species": chemical_symbols[1:elements],
            "r_max": r_max,
            "avg_num_atoms": avg_num_atoms,
            "avg_num_neighbors": avg_num_neighbors,
            "l_max": len(released.take("norm.affine_weight")) - 1,
            "num_channels": channels,
            "num_layers": len(blocks),
            "num_heads": len(released.take("force_head.alpha_dot")),
            "num_gaussians": released.take("rbf.mean").numel(),
            "radial_hidden": released.radial_widths("edge_embed.rad"),
            "rank": factor.shape[1],
        }
    )


def load_released(
    state: Mapping[str, Any],
    *,
    r_max: float = 4.5,
    avg_num_atoms: float = 36.6,
    avg_num_neighbors: float = 18.6,
) -> Network:
    """The network of a state of the released code, which computes the same.

    Its energies and forces are those of the released network in evaluation mode, where no atom has
    more than 100 neighbors (the released code drops others) or none (it drops such atoms).

    Parameters
    ----------
    state : ``state_dict`` of the released network with direct forces, tensors by name
    r_max : cutoff in angstrom; a state does not tell
    avg_num_atoms, avg_num_neighbors : constants of the released code: energies are divided by the
        root of the one, sums of messages by that of the other

    Returns
    -------
    Network
        For inference, in the precision of the state, with all elements that the state has rows for.

    Raises
    ------
    TDNError
        If the state is another one.

    Examples
    --------
    >>> model = load_released(read_released("tdn_best_model.pth"))  # doctest: +SKIP
    """
    released = _Released(state)
    try:
        config = _config(released, r_max, avg_num_atoms, avg_num_neighbors)
        new = _converted(released, config.num_layers)
        factors = released.factors()
        if released.unused:
            raise TDNError(
                f"the released network has no {printable(min(released.unused))}; expected the "
                "state_dict of its TensorDecompositionNetwork"
            )
        model = empty_network(config)
        for name in model.state_dict():
            if (part := name.rpartition(".")[2]) in factors:
                new[name] = factors[part]
        new |= {name: getattr(model, name) for name in ("atomic_energies", "scale")}
        model.load_state_dict(new)
    except (RuntimeError, ValueError, IndexError) as error:
        reason = printable(" ".join(str(error).split()), 200)
        raise TDNError(f"shapes of the released state do not fit together: {reason}") from None
    set_dtype(model, new["embedding"].dtype)
    return model.requires_grad_(False).eval()


def _converted(released: _Released, num_layers: int) -> dict[str, Tensor]:
    """Our weights by our names, but for the CP factors."""
    embedding = released.take("atom_embed.atom_type_lin.weight")
    with_bias = embedding + released.take("atom_embed.atom_type_lin.bias").unsqueeze(1)
    new = {
        "embedding": with_bias.t()[1:],
        "basis.mean": released.take("rbf.mean").flatten(),
        "basis.width": released.take("rbf.std").flatten(),
        "basis.slope": released.take("rbf.weight").flatten(),
        "basis.shift": released.take("rbf.bias").flatten(),
        **released.linear("edge_embed.exp", "degree_embedding.expand"),
        **released.radial("edge_embed.rad", "degree_embedding.radial"),
        "degree_embedding.projection.weight": released.take("edge_embed.proj.linear.weight").t(),
        "degree_embedding.bias": released.take("edge_embed.proj.bias").flatten(),
        **released.norm("norm", "norm"),
        "energy_head.mixing": released.take("head.0.linear.weight").t(),
        "energy_head.mixing_bias": released.take("head.0.bias").flatten(),
        "energy_head.weight": released.take("head.2.linear.weight").flatten(),
        "energy_head.bias": released.take("head.2.bias").flatten(),
        **released.attention("force_head", "force_head.attention"),
        "force_head.weight": released.take("force_proj.linear.weight").flatten(),
    }
    released.take("force_proj.bias")  # of scalars, which are no force
    for block in (f"blocks.{i}" for i in range(num_layers)):
        new |= released.norm(f"{block}.norm1", f"{block}.norm1")
        new |= released.attention(f"{block}.attn", f"{block}.attention")
        new |= released.norm(f"{block}.norm2", f"{block}.norm2")
        new |= released.gated(f"{block}.ffn.0", f"{block}.feed_forward.gated")
        new |= released.linear(f"{block}.ffn.2", f"{block}.feed_forward.out")
    return new


def read_released(path: str | Path) -> Mapping[str, Any]:
    """The state in a file that the released code wrote: weights alone, or a checkpoint with them.

    Raises
    ------
    TDNError
        If the file is missing or holds anything else.
    """
    path = Path(path)
    if not path.is_file():
        raise TDNError(f"{path} not found; expected a file of the released code, with its weights")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError, KeyError, ValueError) as error:
        raise TDNError(
            f"{path} cannot be read: it is damaged or holds foreign objects "
            f"({type(error).__name__}); expected a state_dict, as torch.save writes it"
        ) from None
    if isinstance(content, dict) and isinstance(content.get("model_state_dict"), dict):
        content = content["model_state_dict"]
    if not isinstance(content, dict):
        raise TDNError(
            f"{path} holds a {type(content).__name__}, expected a state_dict of the released code"
        )
    return content
