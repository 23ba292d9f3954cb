"""Scalars for TensorBoard, if a run asks for them."""

from __future__ import annotations

from pathlib import Path

from tdn.system.errors import TDNError

# how columns of log.csv are grouped there
GROUPS = {"train": "training", "valid": "validation"}


def check_tensorboard() -> None:
    """Raise `TDNError` if the package is missing (before hours of work)."""
    try:
        import torch.utils.tensorboard  # noqa: F401
    except ImportError:
        raise TDNError(
            "train.tensorboard needs the package tensorboard: pip install tensorboard, or set "
            "train.tensorboard=false (log.csv has the same numbers)"
        ) from None


class TensorBoard:
    """Writes rows of ``log.csv`` as scalars over the steps of the optimizer.

    Parameters
    ----------
    folder : made if needed; ``tensorboard --logdir`` takes it
    step : where the run goes on; what was written after it is hidden
    """

    def __init__(self, folder: Path, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder), purge_step=step + 1)

    def append(self, row: dict[str, float | None]) -> None:
        """Write one row."""
        for name, value in row.items():
            if value is None or name in ("epoch", "step"):
                continue
            group, _, rest = name.partition("_")
            tag = f"{GROUPS[group]}/{rest}" if group in GROUPS else f"run/{name}"
            self._writer.add_scalar(tag, value, int(row["step"]))
        self._writer.add_scalar("run/epoch", row["epoch"], int(row["step"]))

    def close(self) -> None:
        """Write what is left."""
        self._writer.close()
