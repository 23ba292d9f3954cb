"""Checkpoints of a network: plain values and tensors, read without unpickling any code."""

from __future__ import annotations

import pickle
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from tdn.config import config_to_dict
from tdn.system.archives import damaged_member
from tdn.system.atomic_files import atomic_write
from tdn.system.errors import TDNError
from tdn.system.printable import printable
from tdn.system.version import __version__

from .base import Network, exact_constants, model_dtype, set_dtype
from .build import empty_network, stored_config
from .elements import select_species
from .theory_levels import MultiHeadNetwork, select_head

FORMAT = "tdn-checkpoint"
# Of checkpoints and of ``last.pt``. From the first release on, a change of either raises it and
# adds a function to upgrades.py, beside this file, that turns the version before into the new one.
FORMAT_VERSION = 1
DTYPES = {"float32": torch.float32, "float64": torch.float64}


def model_to_dict(model: Network | MultiHeadNetwork) -> dict[str, Any]:
    """Everything that is needed to build the network again."""
    network = model.networks[0]
    state = {name: tensor.detach().cpu().clone() for name, tensor in network.state_dict().items()}
    state.update(exact_constants(network))
    values = {
        "config": config_to_dict(model.config),
        "dtype": str(model_dtype(model)).removeprefix("torch."),
        "state": state,
    }
    if model.heads:
        values["heads"] = model.head_states()
    return values


def model_from_dict(values: dict[str, Any]) -> Network:
    """The inverse of `model_to_dict`, in the precision in which the network was stored."""
    model = empty_network(stored_config(values))
    model.load_state_dict(values["state"])
    set_dtype(model, DTYPES[values["dtype"]])
    return model.requires_grad_(False).eval()


def save_model(
    path: str | Path, model: Network | MultiHeadNetwork, metadata: dict[str, Any]
) -> None:
    """Write a checkpoint; ``metadata`` holds plain values that describe its training.

    Raises
    ------
    TDNError
        If the file cannot be written.
    """
    content = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "tdn_version": __version__,
        "torch_version": str(torch.__version__),
        "metadata": metadata,
        **model_to_dict(model),
    }
    write_checkpoint(path, content)


def write_checkpoint(path: str | Path, content: dict[str, Any]) -> None:
    """Write what `read_checkpoint` gives.

    Raises
    ------
    TDNError
        If the file cannot be written.
    """
    with atomic_write(path) as temporary:
        torch.save(content, temporary)


def read_checkpoint(path: str | Path, kind: str = FORMAT) -> dict[str, Any]:
    """Read a file that `torch.save` wrote and check that it is of the wanted ``kind``.

    Raises
    ------
    TDNError
        If the file is missing, cut short, of another kind or of a newer format.
    """
    path = Path(path)
    if not path.is_file():
        raise TDNError(f"checkpoint {path} not found; tdn-train writes it as model.pt")
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            damaged = damaged_member(archive)  # torch.load does not compare check sums
    # zipfile raises all of these for damaged tables of contents
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, RuntimeError, ValueError):
        raise TDNError(
            f"{path} is not a checkpoint of TDN (foreign or cut short); "
            "expected a model.pt that tdn-train wrote"
        ) from None
    if damaged is not None:
        raise TDNError(
            f"{path} is damaged (part {printable(damaged)}); copy it again or train again"
        )
    if any(name.endswith(("/metadata.json", "/constants.pkl")) for name in names):
        raise TDNError(
            f"{path} is a compiled file; expected a checkpoint (the model.pt it was exported from)"
        )
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError, KeyError, ValueError) as error:
        raise TDNError(
            f"{path} cannot be read as a checkpoint of TDN: it is damaged or holds foreign objects "
            f"({type(error).__name__})"
        ) from None
    if not isinstance(content, dict) or content.get("format") != kind:
        found = content.get("format") if isinstance(content, dict) else type(content).__name__
        raise TDNError(f"{path} is not a {kind} file (found {printable(repr(found))})")
    version = content.get("format_version")
    if version != FORMAT_VERSION:
        raise TDNError(
            f"{path} has format version {printable(repr(version))}, expected {FORMAT_VERSION}; use "
            f"the version of tdn that wrote it ({printable(content.get('tdn_version'))})"
        )
    return content


@torch.inference_mode(False)
def load_model(
    path: str | Path,
    device: str | torch.device = "cpu",
    dtype: str | torch.dtype | None = None,
    head: str | None = None,
    species: Sequence[str] | None = None,
) -> tuple[Network, dict[str, Any]]:
    """Load a network for inference.

    Parameters
    ----------
    device : where to put it
    dtype : float32 or float64; None keeps the precision of the checkpoint
    head : which head of a network trained on several levels of theory; it becomes a plain network
    species : chemical symbols, to keep these elements only; None keeps all

    Returns
    -------
    model, metadata

    Raises
    ------
    TDNError
        If the file is no checkpoint, its weights do not fit its configuration, or it lacks the head
        or an element that is asked for.
    """
    content = select_head(read_checkpoint(path), head, path)
    try:
        if species is not None:
            content = select_species(content, species, path)
        model = model_from_dict(content)
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError) as error:
        reason = printable(" ".join(str(error).split()), 200)
        raise TDNError(f"{path}: weights and configuration do not fit together: {reason}") from None
    if dtype is not None:
        set_dtype(model, DTYPES[dtype] if isinstance(dtype, str) else dtype)
    metadata = content.get("metadata", {})
    if head is not None:  # what holds for this head; errors of all heads together say nothing
        metadata = {**metadata, **metadata.get("heads", {}).get(head, {}), "head": head}
        metadata.pop("heads", None)
    return model.to(device), metadata
