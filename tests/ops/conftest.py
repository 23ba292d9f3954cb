"""Shared by the operator tests: the compiled library, and the CUDA kernels as host code."""

from __future__ import annotations

import ctypes
import fcntl
import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tdn.ops import build, loading
from tdn.system.errors import TDNError
from tdn.system.paths import OPS_LIBRARY, library_dir

# libraries of tests, by the hash of what they are made of; `make clean` removes them
CACHE = Path(__file__).parents[2] / "build" / "tests"


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


@pytest.fixture(scope="session")
def compile_library() -> Callable[..., ctypes.CDLL]:
    """Compile and load a source of this folder; once for all sessions and workers."""

    def compile_once(source: str, *options: str) -> ctypes.CDLL:
        compiler = os.environ.get("CXX", "c++").split()
        if shutil.which(compiler[0]) is None:
            pytest.skip("no C++ compiler")
        path = Path(__file__).with_name(source)
        command = [*compiler, "-std=c++17", "-shared", "-fPIC", f"-I{build.SOURCE_DIR}", str(path)]
        command += options
        made_of = (command, build.compiler_version(), build.source_hash(), path.read_text())
        digest = hashlib.sha256(repr(made_of).encode())
        library = CACHE / f"{path.stem}-{digest.hexdigest()[:16]}.so"
        CACHE.mkdir(parents=True, exist_ok=True)
        with open(CACHE / f"{path.stem}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not library.exists():
                for old in CACHE.glob(f"{path.stem}-*.so"):
                    old.unlink()
                partial = library.with_suffix(".tmp")
                subprocess.run([*command, "-o", str(partial)], check=True)
                partial.rename(library)
        return ctypes.CDLL(str(library))

    return compile_once


@pytest.fixture(scope="session")
def compile_torch_library(compiled, compile_library) -> Callable[..., ctypes.CDLL]:
    """The same for operators for a GPU, compiled for the host with PyTorch."""

    def compile_once(source: str, *options: str) -> ctypes.CDLL:
        folder, library = Path(torch.__file__).parent, loading.library_path()
        include = folder / "include"
        return compile_library(
            source,
            *("-std=c++20", "-O1", "-iquote", str(Path(__file__).with_name("on_host"))),
            *("-isystem", str(include), "-isystem", str(include / "torch/csrc/api/include")),
            f"-D_GLIBCXX_USE_CXX11_ABI={int(torch._C._GLIBCXX_USE_CXX11_ABI)}",
            *(f"-L{folder / 'lib'}", "-ltorch_cpu", "-lc10", f"-Wl,-rpath,{folder / 'lib'}"),
            *(str(library), f"-Wl,-rpath,{library.parent}"),
            *options,
        )

    return compile_once


@pytest.fixture(scope="session")
def host_kernels(compile_library) -> ctypes.CDLL:
    """The CUDA kernels, compiled for the host."""
    loaded = compile_library("cuda_kernels_on_host.cpp", "-O0", "-Wall", "-Wextra", "-Werror")
    loaded.set_max_blocks.argtypes = [ctypes.c_int64]
    return loaded


@pytest.fixture(params=[None, 2], ids=["grid covers all", "grid of 2 blocks"])
def grid(request, host_kernels):
    """A grid that covers everything, and one whose threads take many items each."""
    host_kernels.set_max_blocks(request.param or 2**31 - 1)
    yield
    host_kernels.set_max_blocks(2**31 - 1)
