"""Fixtures of all tests."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import tdn  # noqa: F401  before torch, since it sets how threads wait

# isort: split
import forks
import pytest
import torch
from shared_files import SharedFiles
from structures import CONFIGS, STRUCTURES, TRAINED_MODEL, random_model

from tdn.cp import library
from tdn.network import build
from tdn.network.checkpoint import load_model
from tdn.system.errors import TDNError


def pytest_configure(config: pytest.Config) -> None:
    """One thread for each process, here and in programs that tests start; files run in parallel."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")  # else processes of its own
    # else it compiles for each instruction set of the processor to see whether the compiler can
    os.environ.setdefault("TORCHINDUCTOR_VEC_ISA_OK", "1")
    # nobody waits for what the code around compiled kernels takes
    os.environ.setdefault("AOT_INDUCTOR_COMPILE_WRAPPER_OPT_LEVEL", "O0")
    torch.set_num_threads(1)  # it has read the variable already
    if config.getoption("numprocesses", None):  # which is not set in the processes themselves
        forks.share_python_server()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come first, so that in parallel runs no worker ends long after all."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def float64_default():
    """New tensors have double precision."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture(scope="session")
def shared_files(tmp_path_factory: pytest.TempPathFactory) -> SharedFiles:
    """Files that several tests need, made by the first one that asks."""
    return SharedFiles(tmp_path_factory)


@pytest.fixture(scope="session")
def compiler() -> None:
    """What AOTInductor needs: a compiler and the compiled operators."""
    from tdn_export.machine_code import check_tools  # which most tests need not wait for

    try:
        check_tools()
    except TDNError as error:
        pytest.skip(str(error))


@pytest.fixture(params=[*CONFIGS, "trained"])
def model(request):
    """Every kind of network in float64: random weights and trained ones."""
    if request.param == "trained":
        return load_model(TRAINED_MODEL, dtype="float64")[0]
    return random_model(request.param)


@pytest.fixture
def forbid_factors(monkeypatch, tmp_path):
    """Once it is called, CP factors can be neither read nor solved for nor written."""

    def refuse(*_args, **_keys):
        raise AssertionError("CP factors were asked for")

    def forbid() -> None:
        for name in ("load_factors", "read_factors", "decompose"):
            monkeypatch.setattr(library, name, refuse)
        monkeypatch.setattr(build, "load_factors", refuse)
        monkeypatch.setattr(library, "SHIPPED", tmp_path / "absent")
        (tmp_path / "file").write_text("")  # no folder can be made below a file
        monkeypatch.setenv("TDN_CACHE_DIR", str(tmp_path / "file" / "cache"))

    return forbid


@pytest.fixture(params=list(STRUCTURES))
def atoms(request):
    """Structures with and without periodicity."""
    return STRUCTURES[request.param]()


@pytest.fixture
def module(monkeypatch):
    """Function that imports a script of the benchmarks by its name."""
    folder = Path(__file__).parents[1] / "examples" / "benchmarks"
    monkeypatch.syspath_prepend(str(folder))
    names = {path.stem for path in folder.glob("*.py")}  # common ones: tests/training is one
    hidden = {name: sys.modules.pop(name) for name in names & set(sys.modules)}
    yield __import__
    for name in names & set(sys.modules):
        del sys.modules[name]
    sys.modules.update(hidden)
