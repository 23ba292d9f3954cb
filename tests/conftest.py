"""Fixtures of all tests."""

from __future__ import annotations

import tdn  # noqa: F401  before torch, since it sets how threads wait

# isort: split
import pytest
import torch
from structures import CONFIGS, STRUCTURES, TRAINED_MODEL, random_model

from tdn.network.checkpoint import load_model


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


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
