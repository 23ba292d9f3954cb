"""``last.pt``: everything that a run needs to go on as if it had never stopped."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from tdn.network.checkpoint import FORMAT_VERSION, read_checkpoint
from tdn.system.atomic_files import atomic_write
from tdn.system.errors import TDNError
from tdn.system.printable import printable
from tdn.system.version import __version__

FORMAT = "tdn-training"

# settings that may differ when a run goes on: they do not change what is computed per step, and
# the frames themselves are compared by their content
FREE_KEYS = frozenset(
    {
        "train.run_dir",
        "train.device",
        "train.num_threads",
        "train.valid_batch_size",
        "train.max_epochs",
        "train.matmul_precision",
        "train.compile",
        "train.save_interval",
        "train.tensorboard",
        "data.train",
        "data.valid",
        "data.test",
        "data.isolated_atoms",
        "data.num_workers",
        "data.cache_mb",
    }
)


@dataclass
class Progress:
    """How far a run has come.

    Attributes
    ----------
    epoch : finished epochs
    batch : finished steps of the epoch under way
    step : steps of the optimizer in all
    sums : sums of the loss and its terms over the steps of this epoch, and their number
    best : lowest validation loss so far
    best_epoch : epoch of the network that is kept, which may be a newer one
    good_metric : the last validation loss that raised no doubt
    seconds : time spent in training
    rate_factor : factor on the learning rate, lowered after non-finite losses and on plateaus
    skipped : batches in a row with a non-finite loss
    restores : how often the last good weights were brought back after losses that were not finite
    jumps : the same after finite validation losses that jumped
    lowest, lowest_epoch : lowest validation loss that `tdn.training.patience` has seen, and when
    cooling_from : epoch after which the run cooled down early; 0: it did not
    cooling_epochs : epochs that this takes
    plateau_best : lowest validation loss that ``schedule: plateau`` has seen
    plateau_waited : validations since then, or since the learning rate fell
    """

    epoch: int = 0
    batch: int = 0
    step: int = 0
    sums: list[float] = field(default_factory=lambda: [0.0] * 5)
    best: float = float("inf")
    best_epoch: int = 0
    good_metric: float = float("inf")
    seconds: float = 0.0
    rate_factor: float = 1.0
    skipped: int = 0
    restores: int = 0
    jumps: int = 0
    lowest: float = float("inf")
    lowest_epoch: int = 0
    cooling_from: int = 0
    cooling_epochs: int = 0
    plateau_best: float = float("inf")
    plateau_waited: int = 0

    def end_epoch(self) -> list[float]:
        """Count an epoch whose steps are done; means of the loss and its terms over them."""
        count = self.sums[4] or math.nan  # all batches may have been left out
        means = [value / count for value in self.sums[:4]]
        self.epoch += 1
        self.batch, self.sums = 0, [0.0] * 5
        return means


def save_state(
    path: Path,
    progress: Progress,
    config: dict[str, Any],
    fingerprint: str,
    tensors: dict[str, Any],
    write_model: Callable[[], None],
) -> None:
    """Write ``last.pt`` so that an interrupted write leaves the older one.

    Parameters
    ----------
    write_model : writes ``model.pt``, as soon as the disk has the new state beside the older one:
        no run goes on from a model alone
    """
    content = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "tdn_version": __version__,
        "torch_version": str(torch.__version__),
        "config": config,
        "fingerprint": fingerprint,
        "progress": asdict(progress),
        **tensors,
    }
    with atomic_write(path) as temporary:
        torch.save(content, temporary)
        write_model()


def load_state(path: Path, config: dict[str, Any], fingerprint: str) -> dict[str, Any]:
    """Read ``last.pt`` if it belongs to this configuration and these data.

    Raises
    ------
    TDNError
        If the file is damaged or belongs to another run.
    """
    advice = "choose another train.run_dir, or start over with --restart"
    try:
        content = read_checkpoint(path, FORMAT)
    except TDNError as error:
        raise TDNError(f"cannot go on from {path}: {error}; {advice}") from None
    differences = [
        f"{printable(key)}: {printable(repr(old))} there, {printable(repr(new))} here"
        for key, old, new in _differences(content["config"], config)
    ]
    if differences:
        more = f" and {len(differences) - 1} more" if len(differences) > 1 else ""
        raise TDNError(
            f"{path} belongs to another configuration ({differences[0]}{more}); {advice}"
        )
    if content["fingerprint"] != fingerprint:
        raise TDNError(f"{path} belongs to a run with other training frames; {advice}")
    return content


def _differences(old: dict[str, Any], new: dict[str, Any]) -> list[tuple[str, Any, Any]]:
    return [
        (f"{section}.{key}", old[section].get(key), value)
        for section, keys in new.items()
        for key, value in sorted(keys.items())
        if f"{section}.{key}" not in FREE_KEYS and old[section].get(key) != value
    ]
