"""How results of operators are compared."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

# sums of some hundred products; the reference of float32 is computed in float64
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5}
DTYPES = list(TOLERANCE)


def assert_close(
    found: Tensor, expected: Tensor, dtype: torch.dtype | None = None, factor: float = 1.0
) -> None:
    """To the tolerance of ``dtype`` (by default that of ``found``) times the largest number."""
    assert found.shape == expected.shape
    assert torch.isfinite(found).all()
    if found.numel():
        scale = expected.abs().max().clamp(min=1e-30)
        tolerance = factor * TOLERANCE[dtype or found.dtype]
        assert (found.cpu() - expected).abs().max() <= tolerance * scale


def assert_all_close(
    found: Iterable[Tensor],
    expected: Iterable[Tensor],
    dtype: torch.dtype | None = None,
    factor: float = 1.0,
) -> None:
    for x, y in zip(found, expected, strict=True):
        assert_close(x, y, dtype, factor)


def assert_equal(found: Iterable[Tensor], expected: Iterable[Tensor]) -> None:
    assert all(torch.equal(x, y) for x, y in zip(found, expected, strict=True))
