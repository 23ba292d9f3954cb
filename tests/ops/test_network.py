"""Whole networks: compiled operators against the reference ones."""

from __future__ import annotations

import pytest
import torch
from network_problems import assert_networks_agree, everything
from structures import CONVOLUTION, STRUCTURES, random_model

from tdn import ops
from tdn.graph import graph_from_atoms
from tdn.network.base import set_dtype


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("where", list(STRUCTURES))
@pytest.mark.parametrize("name", CONVOLUTION)
def test_networks_agree(name, where, dtype):
    """To 1e-12 and 1e-5 of the largest entry (weights: four times that): sums in another order."""
    model = set_dtype(random_model(name), dtype).requires_grad_(True)
    graph = graph_from_atoms(STRUCTURES[where](), model.atomic_numbers, model.r_max)
    found = everything(model, graph)
    with ops.use_reference():
        expected = everything(model, graph)
    assert_networks_agree(found, expected, 1e-12 if dtype == torch.float64 else 1e-5)
