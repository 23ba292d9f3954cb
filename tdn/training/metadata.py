"""What a checkpoint says about its training."""

from __future__ import annotations

import dataclasses
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from ..config import config_to_dict
from ..evaluation import Errors
from ..version import __version__

if TYPE_CHECKING:
    from .trainer import Trainer


def training_metadata(
    trainer: Trainer, found: dict[str, dict[str, Errors | None]], seconds: float
) -> dict[str, Any]:
    """Plain values for the metadata of ``model.pt``.

    Parameters
    ----------
    found : errors per subset
    seconds : of training so far
    """
    dataset, progress = trainer.dataset, trainer.progress
    settings = config_to_dict(trainer.config.train)
    settings.pop("run_dir")
    return {
        "tdn_version": __version__,
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "epoch": progress.epoch,
        "step": progress.step,
        "seconds": round(seconds, 1),
        "num_parameters": trainer.num_parameters,
        "ranks": trainer.ranks.size,
        "frames": {name: len(getattr(dataset, name)) for name in ("train", "valid", "test")},
        "data_fingerprint": dataset.fingerprint,
        "atomic_energies": dict(dataset.atomic_energies.values),
        "atomic_energies_from": dict(dataset.atomic_energies.origin),
        "errors": {
            subset: {n: dataclasses.asdict(e) for n, e in row.items() if e is not None}
            for subset, row in found.items()
        },
        "train": settings,
    }
