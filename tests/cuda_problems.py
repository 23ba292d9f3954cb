"""What tests on a GPU share."""

from __future__ import annotations

import os

import pytest
import torch
from structures import CONVOLUTION, STRUCTURES, random_model
from torch import Tensor

from tdn.graph import graph_from_atoms
from tdn.inference.network import inference_network
from tdn.inference.pair_list import pair_list
from tdn.inference.positions import PositionNetwork
from tdn.ops import build

# deterministic algorithms want this; PyTorch looks at it once, in the first matrix product there
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

DEVICE = "cuda"
# from positions to forces: names of networks in structures.py, with and without widths of their own
NETWORKS = [
    *((name, {}) for name in CONVOLUTION),
    ("default", {"num_channels": 64}),
    ("l3", {"num_channels": 33}),
    ("l1", {"num_channels": 130}),
]
QUANTITIES = ("energy", "forces", "virial", "atom_virial", "centroid")


def require_gpu() -> None:
    """Skip the test unless there is a GPU and the operators have kernels for it."""
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    stamp = build.read_stamp().get("cuda", "none")
    if stamp.startswith("none"):
        pytest.skip(f"the operators have no CUDA kernels: {stamp}")


def is_there(x: Tensor) -> bool:
    return x.device.type == DEVICE


def positions_to_forces(network: PositionNetwork, pairs, dtype, device) -> dict[str, Tensor]:
    """Everything that a network gives for a list of pairs, on the device."""
    workspace = torch.empty(0, dtype=dtype, device=device)
    with torch.no_grad():
        results = network.to(device)(*(x.to(device) for x in pairs), True, workspace)
    return dict(zip(QUANTITIES, results, strict=True))


def check_positions(case: tuple[str, dict], dtype: torch.dtype, device: str) -> None:
    """A network from positions to forces on a device against the CPU.

    Forces and virials are sums of some 50 terms of a pair, which cancel by two digits at most.
    """
    name, changes = case
    model = inference_network(random_model(name, **changes), dtype)
    network = PositionNetwork(model)
    tolerance = {torch.float64: 3e-11, torch.float32: 3e-4}[dtype]
    for make in STRUCTURES.values():
        graph = graph_from_atoms(make(), model.atomic_numbers, model.r_max + 0.5)
        pairs = pair_list(graph)
        expected = positions_to_forces(network, pairs, dtype, "cpu")
        found = positions_to_forces(network, pairs, dtype, device)
        again = positions_to_forces(network, pairs, dtype, device)
        for quantity, value in expected.items():
            assert found[quantity].device.type == device
            assert torch.equal(found[quantity], again[quantity]), (name, quantity)  # same bits
            offset = model.atomic_energies.cpu()[graph.species] if quantity == "energy" else 0.0
            error = (found[quantity].cpu() - value).abs().max()
            assert error <= tolerance * (value - offset).abs().max(), (name, quantity, float(error))
