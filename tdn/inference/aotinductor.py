"""The only place that uses AOTInductor: compiling to machine code, and loading it.

Forward and gradient become one graph, which TorchInductor turns into C++ (on GPUs Triton) and then
into a shared library; the operators of ``torch.ops.tdn`` stay calls. The library fits one kind of
device, one family of processors and one version of PyTorch.

The compiled function takes an int64 tensor with ``num_local`` elements in place of the number, as
only sizes of tensors stay variable. PyTorch takes sizes that vary to be two or more, so smaller
structures get two more atoms, which nothing else sees.
"""

from __future__ import annotations

import tempfile
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch._inductor.cpp_builder import get_cpp_compiler
from torch._inductor.runtime.runtime_utils import cache_dir

from tdn import ops
from tdn.graph import Graph
from tdn.system.errors import TDNError
from tdn.system.printable import printable

from .torchscript import plain_execution

# nothing of the machine that compiles but what `target` says: no names of source files, no
# processor beyond its family; loops that split over as many threads as there are when they run
OPTIONS = {
    "aot_inductor.enable_line_tables": False,
    "cpp.march": "",
    "cpp.dynamic_threads": True,
    "cpp.threads": 8,
}
PROCESSORS = ("DEFAULT", "AVX2", "AVX512")  # each runs what is compiled for those before it
PADDING = 2  # atoms, with an edge from one to the other and back


def check_tools() -> None:
    """Raise `TDNError` if there is no C++ compiler, or no compiled operators to call."""
    if not ops.is_compiled():
        raise TDNError(
            "the backend aotinductor needs the compiled operators; run `tdn-ops build`, or use "
            "--backend torchscript"
        )
    try:
        get_cpp_compiler()
    except RuntimeError:
        raise TDNError(
            "the backend aotinductor needs a C++ compiler and found none; install g++, or set CXX "
            "to yours, or use --backend torchscript"
        ) from None


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


class _Sized(nn.Module):
    """A module with the number of local atoms given as the size of a tensor."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(
        self, species: Tensor, edge_index: Tensor, edge_vec: Tensor, local: Tensor
    ) -> tuple[Tensor, Tensor]:
        return self.module(species, edge_index, edge_vec, local.size(0))


def save_bytes(module: nn.Module, graph: Graph, extra_files: dict[str, str]) -> bytes:
    """Compile a module and return the package with text files inside.

    Parameters
    ----------
    module : (species, edge_index, edge_vec, num_local) -> two tensors
    graph : example on the device for which the module is compiled
    extra_files : contents by name

    Raises
    ------
    TDNError
        If PyTorch cannot compile the module.
    """
    from torch.fx.experimental.proxy_tensor import make_fx

    # ghosts, since equal sizes would be taken to be always equal
    ghosts = graph.species[:1].expand(3)
    species = torch.cat([graph.species, ghosts])
    local = torch.zeros_like(graph.species)
    example = (species, graph.edge_index.contiguous(), graph.edge_vec.contiguous(), local)
    dynamic = torch.export.Dim.DYNAMIC
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of PyTorch about itself
        try:
            with plain_execution():  # e3nn runs compiled code, which is traced through
                traced = make_fx(
                    _Sized(module), tracing_mode="symbolic", _allow_non_fake_inputs=True
                )(*example)
            program = torch.export.export(
                traced, example, dynamic_shapes=({0: dynamic}, {1: dynamic}, *[{0: dynamic}] * 2)
            )
            package = torch._inductor.aoti_compile_and_package(
                program, package_path=f"{folder}/model.pt2", inductor_configs=OPTIONS
            )
        except Exception as error:  # compilers raise whatever they like
            reason = printable(" ".join(str(error).split()), 200) or type(error).__name__
            raise TDNError(
                f"PyTorch {torch.__version__} cannot compile this network with AOTInductor: "
                f"{reason}; use --backend torchscript"
            ) from error
        result = Path(folder) / "result"
        with zipfile.ZipFile(package) as full, zipfile.ZipFile(result, "w") as archive:
            top = full.namelist()[0].partition("/")[0]
            for member in full.infolist():
                if not member.filename.endswith((".cpp", ".kernel_metadata.json")):
                    name = zipfile.ZipInfo(member.filename)
                    content = _without_folders(full.read(member))
                    archive.writestr(name, content, zipfile.ZIP_STORED)
            for name, text in extra_files.items():
                archive.writestr(zipfile.ZipInfo(f"{top}/extra/{name}"), text)
        return result.read_bytes()


def _without_folders(content: bytes) -> bytes:
    """Machine code that names no folders of this machine, which its error messages would."""
    for folder in (cache_dir(), str(Path(torch.__file__).parent.parent)):
        name = folder.encode()
        content = content.replace(name, b"/" * len(name))
    return content


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
            atom_energy, second = self.function(
                species.contiguous(), edge_index.contiguous(), edge_vec.contiguous(), local
            )
        if not small:
            return atom_energy, second
        return atom_energy[PADDING:], second[PADDING:]


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
