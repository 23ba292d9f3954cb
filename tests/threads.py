"""Results that may not depend on the number of threads."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch


def same_bits_on_threads(function: Callable[[], Sequence[torch.Tensor]]) -> list[torch.Tensor]:
    """Assert that tensors are the same on 1, 2 and 3 threads, and give them."""
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            results.append(list(function()))
    finally:
        torch.set_num_threads(before)
    first, *others = results
    for other in others:
        assert all(torch.equal(x, y) for x, y in zip(first, other, strict=True))
    return first
