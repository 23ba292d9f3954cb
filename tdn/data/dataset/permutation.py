"""Which frames of a large set an epoch takes: permutations that need no memory."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_MASK = 2**64 - 1
ROUNDS = 6


def _mix(value: int) -> int:
    """Scramble 64 bits (the finaliser of SplitMix64, Steele et al. 2014)."""
    value = (value + 0x9E3779B97F4A7C15) & _MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)


class Permutation(Sequence[int]):
    """A pseudo-random permutation of ``range(length)`` whose elements are computed when asked for.

    A Feistel network permutes the numbers below the next power of four; those beyond the length are
    sent through it again (cycle walking), so every number appears exactly once.

    Parameters
    ----------
    length : how many numbers
    seed : another seed, another permutation
    """

    def __init__(self, length: int, seed: int) -> None:
        self._length = length
        self._half = max(1, (max(length - 1, 1).bit_length() + 1) // 2)
        self._keys = [_mix(_mix(seed) + i) for i in range(ROUNDS)]

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, position: int) -> int:
        if not 0 <= position < self._length:
            raise IndexError(position)
        value, half = position, self._half
        mask = (1 << half) - 1
        while True:
            left, right = value >> half, value & mask
            for key in self._keys:
                left, right = right, left ^ (_mix(right ^ key) & mask)
            value = (left << half) | right
            if value < self._length:
                return value


class Complement(Sequence[int]):
    """The numbers of ``range(length)`` that are not excluded, in increasing order.

    Parameters
    ----------
    excluded : different numbers; only they are kept in memory
    """

    def __init__(self, length: int, excluded: Sequence[int]) -> None:
        excluded = np.sort(np.asarray(excluded, dtype=np.int64))
        self._length = length - len(excluded)
        # excluded[k] - k numbers that are kept lie before the k-th excluded one
        self._before = excluded - np.arange(len(excluded))

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, position: int) -> int:
        if not 0 <= position < self._length:
            raise IndexError(position)
        return position + int(np.searchsorted(self._before, position, side="right"))


class EpochOrder(Sequence[int]):
    """The frames of an epoch: a window that moves through permutations of the whole set.

    One pass after the other takes every frame once; an epoch is a part of a pass or a whole one, so
    neither the list of an epoch's batches nor the time between validations grows with the set.

    Parameters
    ----------
    frames : numbers of the frames
    epoch_frames : frames per epoch, at most
    seed : of the permutations
    """

    def __init__(self, frames: Sequence[int], epoch_frames: int, seed: int) -> None:
        self._frames = frames
        self._length = min(epoch_frames, len(frames))
        self._seed = seed
        self.epoch = 0
        self._passes: dict[int, Permutation] = {}

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, position: int) -> int:
        if not 0 <= position < self._length:
            raise IndexError(position)
        number, place = divmod(self.epoch * self._length + position, len(self._frames))
        if number not in self._passes:
            self._passes = {number: Permutation(len(self._frames), self._seed * 1_000_003 + number)}
        return self._frames[self._passes[number][place]]


def choose(length: int, count: int, seed: int) -> np.ndarray:
    """Different random numbers below ``length``, sorted; memory grows with ``count`` alone."""
    permutation = Permutation(length, seed)
    return np.sort(np.array([permutation[i] for i in range(min(count, length))], dtype=np.int64))
