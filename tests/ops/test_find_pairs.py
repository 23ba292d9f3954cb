"""Pairs found in cells are those of a search through all pairs."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

pytestmark = pytest.mark.usefixtures("compiled")

DISTANCE = 3.0


def random_rows(count: int, side: float, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return side * (torch.rand(count, 3, dtype=torch.float64, generator=generator) - 0.3)


def on_a_lattice() -> Tensor:
    """Neighbors exactly as far away as the distance, whatever cell that is in."""
    return torch.cartesian_prod(*[torch.arange(7, dtype=torch.float64)] * 3) * (DISTANCE / 3)


PLACES = {
    "dense": (random_rows(300, 12.0), 300),
    "few are centers": (random_rows(300, 12.0), 40),
    "one cell": (random_rows(20, 1.0), 12),
    "plane": (random_rows(200, 20.0) * torch.tensor([1.0, 1.0, 0.0]), 150),
    "lattice": (on_a_lattice(), 343),
    # without wider cells there would be more of these than bytes
    "far apart": (torch.cat([random_rows(30, 6.0), random_rows(6, 1e8)]), 36),
    "same place": (random_rows(5, 2.0).repeat(2, 1), 10),
    "one": (random_rows(1, 1.0), 1),
    "no centers": (random_rows(4, 1.0), 0),
    "nothing": (torch.zeros(0, 3, dtype=torch.float64), 0),
}


def all_pairs(positions: Tensor, num_centers: int) -> set[tuple[int, int]]:
    """By looking at all of them."""
    vectors = positions[None] - positions[:num_centers, None]
    x, y, z = (vectors * vectors).unbind(-1)
    near = x + y + z <= DISTANCE * DISTANCE
    near[range(num_centers), range(num_centers)] = False
    return set(map(tuple, near.nonzero().tolist()))


def check(find: Callable, positions: Tensor, num_centers: int) -> tuple[Tensor, ...]:
    """Compare with a search through all pairs, and give what was found."""
    ptr, other, reached = find(positions, num_centers, DISTANCE)
    assert ptr.dtype == torch.int64 and other.dtype == torch.int32
    assert ptr.shape == (num_centers + 1,) and ptr[0] == 0 and ptr[-1] == len(other)
    center = torch.repeat_interleave(torch.arange(num_centers), ptr.diff())
    found = list(zip(center.tolist(), other.tolist(), strict=True))
    wanted = all_pairs(positions, num_centers)
    assert len(found) == len(wanted) and set(found) == wanted
    in_a_pair = torch.zeros(len(positions), dtype=torch.uint8)
    in_a_pair[other.long()] = 1
    assert torch.equal(reached, in_a_pair)
    return ptr, other, reached


@pytest.mark.parametrize("where", PLACES)
def test_finds_all_pairs(where):
    positions, num_centers = PLACES[where]
    pairs = check(torch.ops.tdn.find_pairs, positions, num_centers)[1]
    assert len(pairs) > 0 or where in ("one", "no centers", "nothing")


def test_lattice_has_pairs_at_the_distance():
    """Six neighbors of the middle atom are exactly that far away."""
    ptr, other, _ = torch.ops.tdn.find_pairs(on_a_lattice(), 343, DISTANCE)
    middle = 3 * 49 + 3 * 7 + 3
    vectors = on_a_lattice()[other[ptr[middle] : ptr[middle + 1]].long()] - DISTANCE
    assert (vectors.norm(dim=1) == DISTANCE).sum() >= 6


def test_same_order_on_any_number_of_threads():
    positions, num_centers = PLACES["dense"]
    threads, results = torch.get_num_threads(), []
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            results.append(torch.ops.tdn.find_pairs(positions, num_centers, DISTANCE))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(x, y) for x, y in zip(*results, strict=True))


@pytest.mark.parametrize(
    "change, message",
    [
        ({"positions": torch.zeros(3, 3)}, "contiguous float64"),
        ({"positions": torch.zeros(3, 2, dtype=torch.float64)}, "contiguous float64"),
        ({"positions": torch.full((3, 3), torch.nan, dtype=torch.float64)}, "must be finite"),
        ({"num_centers": 4}, r"num_centers must lie in 0\.\.3, found 4"),
        ({"distance": 0.0}, "the distance must be positive, found 0"),
    ],
)
def test_wrong_input_is_named(change, message):
    right = {"positions": random_rows(3, 1.0), "num_centers": 3, "distance": DISTANCE}
    with pytest.raises(ValueError, match=f"find_pairs: .*{message}"):
        torch.ops.tdn.find_pairs(**(right | change))
