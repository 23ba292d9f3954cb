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


def apply_preset(values: dict[str, Any]) -> dict[str, Any]:
    """Fill in what the preset of a ``model`` section says about keys that the section lacks.

    Parameters
    ----------
    values : the section as it was written; unknown presets are left to the checks of its keys
    """
    name = values.get("preset")
    if not isinstance(name, str) or name not in PRESETS:
        return values
    resolved = {**PRESETS[name], **values}
    if name != "paper":
        return resolved
    l_max = resolved["l_max"]
    if "rank" not in values and isinstance(l_max, int):
        resolved["rank"] = max(1, 7 * l_max**2)  # the schedule 7 L^2 of section 4.1
    return resolved
