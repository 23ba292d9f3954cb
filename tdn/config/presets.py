"""Named sets of model options; what a user writes beside ``preset`` overrides them."""

from __future__ import annotations

from typing import Any

# arXiv 2507.01131, section 4.1 and appendix C, and the released code: the PubChemQCR runs
PAPER: dict[str, Any] = {
    "architecture": "attention",
    "r_max": 4.5,
    "l_max": 1,
    "num_channels": 256,
    "num_layers": 6,
    "num_heads": 4,
    "num_gaussians": 256,
    "radial_hidden": (64, 64),
    "paths": "all",
    "path_coefficients": "one",
    "forces": "direct",
    "envelope": None,
    "subtract_isolated": False,
    "layer_norm_epsilon": 1e-5,
    "attention_dropout": 0.2,
    "avg_num_atoms": 36.6,
    "avg_num_neighbors": 18.6,
    "constants": "released",
}
PAPER_DATA: dict[str, Any] = {"atomic_energies": "none", "energy_scale": "none"}
# AdamW without decay is Adam; the rate falls to a tenth after the third epoch without progress
PAPER_TRAIN: dict[str, Any] = {
    "max_epochs": 100,
    "batch_size": 64,
    "optimizer": "adamw",
    "weight_decay": 0.0,
    "learning_rate": 5e-4,
    "min_learning_rate": 0.0,
    "warmup_epochs": 0.0,
    "schedule": "plateau",
    "plateau_epochs": 3,
    "clip_norm": 0.0,
    "ema_decay": 0.0,
    "loss": "molecule",
    "energy_weight": 1.0,
    "forces_weight": 1.0,
}

# docs/training.md compares them; medium is what the program does without a preset
NANO: dict[str, Any] = {"l_max": 2, "num_channels": 16, "num_layers": 1, "correlation": 4}
SMALL: dict[str, Any] = {"l_max": 1, "num_channels": 32, "num_layers": 2, "correlation": 2}
MEDIUM: dict[str, Any] = {}
LARGE: dict[str, Any] = {
    "l_max": 3,
    "num_channels": 128,
    "num_layers": 2,
    "correlation": 3,
    "radial_hidden": (64, 64),
    "readout_hidden": 64,
}

PRESETS = {"nano": NANO, "small": SMALL, "medium": MEDIUM, "large": LARGE, "paper": PAPER}
# what a preset says about the other sections
OTHER_SECTIONS = {"paper": {"data": PAPER_DATA, "train": PAPER_TRAIN}}


def apply_preset(values: dict[str, Any]) -> dict[str, Any]:
    """Fill in what ``model.preset`` says about keys that the sections lack.

    Parameters
    ----------
    values : sections as they were written; unknown presets and sections that are no dictionaries
        are left to the checks of their keys
    """
    model = values.get("model")
    name = model.get("preset") if isinstance(model, dict) else None
    if not isinstance(name, str) or name not in PRESETS:
        return values
    resolved = dict(values)
    for section, preset in {"model": PRESETS[name], **OTHER_SECTIONS.get(name, {})}.items():
        written = values.get(section) or {}
        if isinstance(written, dict):
            resolved[section] = {**preset, **written}
    l_max = resolved["model"].get("l_max")
    if name == "paper" and "rank" not in model and isinstance(l_max, int):
        resolved["model"]["rank"] = max(1, 7 * l_max**2)  # the schedule 7 L^2 of section 4.1
    return resolved
