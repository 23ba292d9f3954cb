"""Compiling with AOTInductor: a network as machine code for this kind of processor.

Forward and gradient become one graph, which TorchInductor turns into C++ (on GPUs Triton) and then
into a shared library; the operators of ``torch.ops.tdn`` stay calls. The compiled function takes an
int64 tensor with ``num_local`` elements in place of the number, as only sizes of tensors stay
variable. `tdn.inference.aotinductor` loads it.
"""

from __future__ import annotations

import tempfile
import warnings
import zipfile
from pathlib import Path

import torch
from torch import Tensor, nn
from torch._inductor.cpp_builder import get_cpp_compiler
from torch._inductor.runtime.runtime_utils import cache_dir

from tdn import ops
from tdn.graph import Graph
from tdn.inference.torchscript import plain_execution
from tdn.system.errors import TDNError
from tdn.system.printable import printable

# nothing of the machine that compiles but what the metadata's `target` says: no names of source
# files, no processor beyond its family; loops that split over as many threads as there are later
OPTIONS = {
    "aot_inductor.enable_line_tables": False,
    "cpp.march": "",
    "cpp.dynamic_threads": True,
    "cpp.threads": 8,
}


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
