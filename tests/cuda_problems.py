"""What tests on a GPU share."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tdn.ops import build

DEVICE = "cuda"


def require_gpu() -> None:
    """Skip the test unless there is a GPU and the operators have kernels for it."""
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    stamp = build.read_stamp().get("cuda", "none")
    if stamp.startswith("none"):
        pytest.skip(f"the operators have no CUDA kernels: {stamp}")


def is_there(x: Tensor) -> bool:
    return x.device.type == DEVICE
