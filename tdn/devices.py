"""Names of devices as users write them."""

from __future__ import annotations

import torch

from .errors import TDNError, UsageError


def select_device(name: str | torch.device) -> torch.device:
    """Turn ``auto``, ``cpu``, ``cuda`` or ``cuda:N`` into a device that exists.

    Raises
    ------
    UsageError
        For any other name.
    TDNError
        If this machine, or this PyTorch, has no such CUDA device.
    """
    if str(name) == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise UsageError(f"device is '{name}', expected auto, cpu, cuda or cuda:N")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise TDNError(
            f"device is '{name}', but PyTorch {torch.__version__} finds "
            f"{torch.cuda.device_count()} CUDA devices here; use cpu or auto"
        )
    return device
