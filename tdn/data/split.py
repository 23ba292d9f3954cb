"""Splitting frames into training and validation sets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from ..errors import TDNError

T = TypeVar("T")


def split_frames(frames: Sequence[T], fraction: float, seed: int) -> tuple[list[T], list[T]]:
    """Split off a random part; the same seed gives the same split on every machine.

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
