"""What tests on a GPU share."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tdn import ops
from tdn.ops import build

DEVICE = "cuda"


def require_gpu() -> None:
    """Skip the test unless there is a GPU and the operators have kernels for it."""
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    stamp = build.read_stamp().get("cuda", "none")
    if stamp.startswith("none"):
        pytest.skip(f"the operators have no CUDA kernels: {stamp}")


def to_gpu(x):
    """A leaf with the same numbers there; anything but a tensor stays as it is."""
    if not isinstance(x, Tensor):
        return x
    return x.detach().to(DEVICE).requires_grad_(x.requires_grad)


def edges_to_gpu(edges: ops.Edges) -> ops.Edges:
    return ops.Edges(*map(to_gpu, edges))


def arguments_to_gpu(arguments: tuple) -> tuple:
    """Tensors and edges of an operator there."""
    return tuple(edges_to_gpu(x) if isinstance(x, ops.Edges) else to_gpu(x) for x in arguments)


def is_there(x: Tensor) -> bool:
    return x.device.type == DEVICE
