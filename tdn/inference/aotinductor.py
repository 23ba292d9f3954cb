"""Loading of packages that AOTInductor compiled: machine code for one kind of processor.

The library fits one kind of device, one family of processors and one release of PyTorch.
`tdn_export.machine_code` writes it. PyTorch takes sizes that vary to be two or more, so smaller
structures get two more atoms, which nothing else sees.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tdn.system.errors import TDNError
from tdn.system.printable import printable

PROCESSORS = ("DEFAULT", "AVX2", "AVX512")  # each runs what is compiled for those before it
PADDING = 2  # atoms, with an edge from one to the other and back


def target(device: torch.device) -> dict[str, dict[str, str]]:
    """What metadata say about where a file runs that is compiled here for ``device``."""
    found = {"device": device.type, "torch": _release(torch.__version__)}
    if device.type == "cuda":
        found["processor"] = "sm_{}{}".format(*torch.cuda.get_device_capability(device))
    else:
        found["processor"] = torch.backends.cpu.get_cpu_capability()
    return {"target": found}


def _release(version: str) -> str:
    return ".".join(version.split(".")[:2])


class LoadedModel:
    """A compiled function with the calls of a TorchScript module."""

    def __init__(self, function: Any) -> None:
        self.function = function

    def __call__(
        self, species: Tensor, edge_index: Tensor, edge_vec: Tensor, num_local: int
    ) -> tuple[Tensor, Tensor]:
        """See `tdn_export.deployed.DeployedModel`."""
        small = min(num_local, edge_index.size(1)) < PADDING
        if small:
            species, edge_index, edge_vec = _pad(species, edge_index, edge_vec)
        local = species.new_zeros(num_local + PADDING * small)
        with torch.no_grad():
            atom_energy, gradient_or_forces = self.function(
                species.contiguous(), edge_index.contiguous(), edge_vec.contiguous(), local
            )
        if not small:
            return atom_energy, gradient_or_forces
        return atom_energy[PADDING:], gradient_or_forces[PADDING:]


def _pad(species: Tensor, edge_index: Tensor, edge_vec: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Put two local atoms that see each other only before all others, and their edges too."""
    pair = edge_index.new_tensor([[0, 1], [1, 0]])
    vectors = edge_vec.new_tensor([[1.0, 0.0, 0.0], [-1.0, 0.0, 0.0]])
    return (
        torch.cat([species.new_zeros(PADDING), species]),
        torch.cat([pair, edge_index + PADDING], dim=1),
        torch.cat([vectors, edge_vec]),
    )


def load(path: str | Path, metadata: dict[str, Any], device: torch.device) -> LoadedModel:
    """Load a package; its operators must be registered already.

    Raises
    ------
    TDNError
        If it is compiled for another device, processor or version of PyTorch.
    RuntimeError
        If PyTorch cannot load it.
    """
    compiled, here = metadata.get("target"), target(device)["target"]
    if not isinstance(compiled, dict):
        raise TDNError(f"{path}: its metadata does not say for what it is compiled")
    again = "export the checkpoint here, or use a TorchScript file (*.tdn.pth)"
    for name in ("device", "torch"):
        if compiled.get(name) != here[name]:
            raise TDNError(
                f"{path} is compiled for {name} {printable(compiled.get(name))}, found "
                f"{here[name]}; {again}"
            )
    if not _runs(compiled.get("processor"), here["processor"]):
        raise TDNError(
            f"{path} is compiled for processors with {printable(compiled.get('processor'))}, this "
            f"one has {here['processor']}; {again}"
        )
    index = -1 if device.index is None else device.index
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of PyTorch about itself
        try:
            function = torch._inductor.aoti_load_package(str(path), device_index=index)
        except Exception as error:  # it takes damaged names of parts for whatever they resemble
            raise RuntimeError(str(error) or type(error).__name__) from None
    return LoadedModel(function)


def _runs(compiled: Any, here: str) -> bool:
    """Whether a processor runs machine code for another one."""
    if compiled in PROCESSORS and here in PROCESSORS:
        return PROCESSORS.index(compiled) <= PROCESSORS.index(here)
    return compiled == here
