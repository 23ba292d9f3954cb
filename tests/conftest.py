"""Fixtures of all tests."""

from __future__ import annotations

import os

import pytest
import torch
from shared_files import SharedFiles
from structures import CONFIGS, STRUCTURES, TRAINED_MODEL, random_model

from tdn.network.checkpoint import load_model


def pytest_configure() -> None:
    """One thread for each process, here and in programs that tests start; files run in parallel."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    torch.set_num_threads(1)  # it has read the variable already


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come first, so that in parallel runs no worker ends long after all."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def shared_files(tmp_path_factory: pytest.TempPathFactory) -> SharedFiles:
    """Files that several tests need, made by the first one that asks."""
    return SharedFiles(tmp_path_factory)


@pytest.fixture(params=[*CONFIGS, "trained"])
def model(request):
    """Every kind of network in float64: random weights and trained ones."""
    if request.param == "trained":
        return load_model(TRAINED_MODEL, dtype="float64")[0]
    return random_model(request.param)


@pytest.fixture(params=list(STRUCTURES))
def atoms(request):
    """Structures with and without periodicity."""
    return STRUCTURES[request.param]()
