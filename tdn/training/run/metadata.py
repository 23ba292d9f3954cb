"""What a checkpoint says about its training."""

from __future__ import annotations

import dataclasses
from datetime import datetime, timezone
from typing import Any

import torch

from tdn.config import TrainConfig, config_to_dict
from tdn.data import Dataset
from tdn.data.dataset.theory_levels import head_slices
from tdn.evaluation.errors import Errors
from tdn.system.version import __version__

from .resume import Progress

SUBSETS = ("train", "valid", "test")


def training_metadata(
    settings: TrainConfig,
    dataset: Dataset,
    model: torch.nn.Module,
    progress: Progress,
    ranks: int,
    valid_errors: dict[str, Errors | None],
) -> dict[str, Any]:
    """Plain values for the metadata of ``model.pt``.

    Parameters
    ----------
    ranks : number of processes
    valid_errors : errors on the validation frames
    """
    return {
        "tdn_version": __version__,
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "epoch": progress.epoch,
        "step": progress.step,
        "seconds": round(progress.seconds, 1),
        "num_parameters": sum(p.numel() for p in model.parameters()),
        "ranks": ranks,
        "frames": {part: getattr(dataset, part).total for part in SUBSETS},
        "data_fingerprint": dataset.fingerprint,
        "atomic_energies": dict(dataset.atomic_energies.values),
        "atomic_energies_from": dict(dataset.atomic_energies.origin),
        "errors": {
            "valid": {n: dataclasses.asdict(e) for n, e in valid_errors.items() if e is not None}
        },
        "train": {k: v for k, v in config_to_dict(settings).items() if k != "run_dir"},
        **_theory_levels(dataset, model),
    }


def _theory_levels(dataset: Dataset, model: torch.nn.Module) -> dict[str, Any]:
    """E0 and numbers of frames of each level of theory, if there are several."""
    if not dataset.heads:
        return {}
    frames = {part: [len(r) for r in head_slices(dataset, part)] for part in SUBSETS}
    return {
        "heads": {
            name: {
                "atomic_energies": dict(
                    zip(dataset.model_config.species, network.atomic_energies.tolist(), strict=True)
                ),
                "frames": {part: counts[number] for part, counts in frames.items()},
            }
            for number, (name, network) in enumerate(
                zip(dataset.heads, model.networks, strict=True)
            )
        }
    }
