"""What a checkpoint says about its training."""

from __future__ import annotations

import dataclasses
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from tdn.config import config_to_dict
from tdn.data.dataset.theory_levels import head_slices
from tdn.evaluation.errors import Errors
from tdn.network.theory_levels import networks_of
from tdn.system.version import __version__

if TYPE_CHECKING:
    from tdn.training.trainer import Trainer

PARTS = ("train", "valid", "test")


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
        "frames": {name: getattr(dataset, name).total for name in PARTS},
        "data_fingerprint": dataset.fingerprint,
        "atomic_energies": dict(dataset.atomic_energies.values),
        "atomic_energies_from": dict(dataset.atomic_energies.origin),
        "errors": {
            subset: {n: dataclasses.asdict(e) for n, e in row.items() if e is not None}
            for subset, row in found.items()
        },
        "train": settings,
        **_heads(trainer),
    }


def _heads(trainer: Trainer) -> dict[str, Any]:
    """E0 and numbers of frames of each head, if there are heads."""
    dataset = trainer.dataset
    names = getattr(dataset, "heads", ())
    if not names:
        return {}
    frames = {part: [len(r) for r in head_slices(dataset, part)] for part in PARTS}
    return {
        "heads": {
            name: {
                "atomic_energies": dict(
                    zip(dataset.model_config.species, network.atomic_energies.tolist(), strict=True)
                ),
                "frames": {part: counts[number] for part, counts in frames.items()},
            }
            for number, (name, network) in enumerate(
                zip(names, networks_of(trainer.model), strict=True)
            )
        }
    }
