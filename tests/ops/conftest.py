"""Shared by the operator tests: the compiled library, and random problems of any shape."""

import ctypes
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tdn import ops
from tdn.ops import build, loading
from tdn.system.errors import TDNError
from tdn.system.paths import OPS_LIBRARY, library_dir


@pytest.fixture(scope="session")
def compiled() -> None:
    """The compiled operators, built if necessary."""
    try:
        build.build_ops()
    except TDNError as error:
        if "not found" in str(error) or "no C++ compiler" in str(error):
            pytest.skip(str(error))
        raise
    if not loading.load():
        pytest.skip("TDN_OPS=reference: the compiled operators are switched off")


@pytest.fixture
def library_copy(compiled, tmp_path, monkeypatch):
    """The built library, in a folder of its own."""
    for name in (OPS_LIBRARY, build.STAMP_NAME):
        shutil.copy2(library_dir() / name, tmp_path / name)
    monkeypatch.setenv("TDN_LIB_DIR", str(tmp_path))
    return tmp_path


@dataclass
class Problem:
    """Inputs of cp_message, and a cotangent."""

    u: Tensor  # [num_nodes, R, C]
    b: Tensor  # [E, L, R]
    w: Tensor  # [E, L, C]
    g: Tensor  # [num_centres, R, C]
    edges: ops.Edges

    @property
    def inputs(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.u, self.b, self.w


@pytest.fixture
def make_problem() -> Callable[..., Problem]:
    def make(
        num_centres: int = 7,
        num_nodes: int = 9,
        num_edges: int = 40,
        rank: int = 6,
        channels: int = 8,
        degrees: int = 3,
        dtype: torch.dtype = torch.float64,
        seed: int = 0,
    ) -> Problem:
        generator = torch.Generator().manual_seed(seed)
        options = {"generator": generator, "dtype": dtype}
        if num_edges:
            centre = torch.randint(num_centres, (num_edges,), generator=generator).sort().values
            neighbour = torch.randint(num_nodes, (num_edges,), generator=generator)
        else:
            centre = neighbour = torch.zeros(0, dtype=torch.int64)
        return Problem(
            torch.randn(num_nodes, rank, channels, **options).requires_grad_(),
            torch.randn(num_edges, degrees, rank, **options).requires_grad_(),
            torch.randn(num_edges, degrees, channels, **options).requires_grad_(),
            torch.randn(num_centres, rank, channels, **options).requires_grad_(),
            ops.sort_edges(torch.stack([centre, neighbour]), num_centres, num_nodes),
        )

    return make


@pytest.fixture(scope="session")
def host_kernels(tmp_path_factory) -> ctypes.CDLL:
    """The CUDA kernels, compiled for the host."""
    compiler = shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        pytest.skip("no g++ or clang++")
    library = tmp_path_factory.mktemp("host") / "libkernels.so"
    source = Path(__file__).with_name("cuda_kernels_on_host.cpp")
    command = [compiler, "-std=c++17", "-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]
    command += ["-I", str(build.SOURCE_DIR), str(source), "-o", str(library)]
    subprocess.run(command, check=True)
    loaded = ctypes.CDLL(str(library))
    loaded.set_max_blocks.argtypes = [ctypes.c_int64]
    return loaded


@pytest.fixture(params=[None, 2], ids=["grid covers all", "grid of 2 blocks"])
def grid(request, host_kernels):
    """A grid that covers everything, and one whose threads take many items each."""
    host_kernels.set_max_blocks(request.param or 2**31 - 1)
    yield
    host_kernels.set_max_blocks(2**31 - 1)
