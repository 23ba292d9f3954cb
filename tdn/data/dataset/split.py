"""Splitting frames into training and validation sets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from tdn.system.errors import TDNError

T = TypeVar("T")


def split_frames(frames: Sequence[T], fraction: float, seed: int) -> tuple[list[T], list[T]]:
    """Split off a random part; the same seed gives the same split on every machine.

    Where every frame belongs to a group (a trajectory), whole groups are split off: frames of one
    trajectory are alike, and a validation set that shares them would make errors look too small.

    Parameters
    ----------
    frames : anything
    fraction : part that goes into the second list; at least one frame unless zero
    seed : of the permutation

    Returns
    -------
    rest, part
        Both in the order of ``frames``.

    Raises
    ------
    TDNError
        If nothing would be left for training.
    """
    if fraction == 0:
        return list(frames), []
    groups = [getattr(frame, "group", None) for frame in frames]
    if all(group is not None for group in groups) and len(set(groups)) > 1:
        names = list(dict.fromkeys(groups))
        _, part = split_frames(names, fraction, seed)
        chosen_names = set(part)
        return (
            [f for f, g in zip(frames, groups, strict=True) if g not in chosen_names],
            [f for f, g in zip(frames, groups, strict=True) if g in chosen_names],
        )
    count = max(1, round(fraction * len(frames)))
    if count >= len(frames):
        raise TDNError(
            f"splitting {fraction:g} of {len(frames)} frames off for validation leaves none for "
            "training; give more frames, a smaller data.valid_fraction (0: no validation) or a "
            "file data.valid"
        )
    chosen = np.zeros(len(frames), dtype=bool)
    chosen[np.random.Generator(np.random.PCG64(seed)).permutation(len(frames))[:count]] = True
    rest = [frame for frame, is_valid in zip(frames, chosen, strict=True) if not is_valid]
    part = [frame for frame, is_valid in zip(frames, chosen, strict=True) if is_valid]
    return rest, part
