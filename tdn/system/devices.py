"""Names of devices as users write them."""

from __future__ import annotations

import torch

from .errors import UsageError


def select_device(name: str | torch.device, option: str = "device") -> torch.device:
    """The device that a user named; ``auto`` takes a GPU if there is one.

    Parameters
    ----------
    option : what the setting is called in messages

    Raises
    ------
    UsageError
        For an unknown device or one that this machine lacks.
    """
    if str(name) == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise UsageError(f"{option} = '{name}': expected auto, cpu, cuda or cuda:N")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UsageError(
            f"{option} = '{name}': this machine has {torch.cuda.device_count()} usable CUDA "
            f"devices; use auto or cpu"
        )
    return device
