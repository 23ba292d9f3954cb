"""Recorded evaluations on a GPU, tried on the host: arrays keep their places, or all starts anew.

A recorder that does the work again stands for a CUDA graph (``replay_on_host.cpp``). What it cannot
show is that everything in a network can be recorded.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from torch import Tensor

pytestmark = pytest.mark.slow  # what it needs takes ten seconds to compile

PLUGIN = Path(__file__).parents[2] / "lammps_plugin" / "src"


@pytest.fixture(scope="module")
def replay(compile_torch_library):
    """Names `torch.ops.tdn_replay`."""
    sources = b"".join(path.read_bytes() for path in sorted((PLUGIN / "model").glob("*.h")))
    digest = hashlib.sha256(sources).hexdigest()[:16]
    compile_torch_library("replay_on_host.cpp", f"-I{PLUGIN}", f"-DMADE_OF_{digest}")
    return torch.ops.tdn_replay


class Atoms:
    """A list of pairs that is made anew at every build, with other numbers of images and pairs."""

    def __init__(self, num_atoms: int = 6, num_images: int = 40, most_pairs: int = 30) -> None:
        self.generator = torch.Generator().manual_seed(1)
        self.n, self.num_images, self.most_pairs = num_atoms, num_images, most_pairs
        self.number = 0
        self.build()

    def integers(self, low: int, high: int, count: int) -> Tensor:
        return torch.randint(low, high, (count,), generator=self.generator, dtype=torch.int32)

    def build(self, fewer: int = 0) -> None:
        self.number += 1
        n, rows = self.n, self.n + self.num_images - fewer
        counts = self.integers(0, self.most_pairs, n).long()
        self.ptr = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        self.other = self.integers(0, rows, int(self.ptr[-1]))
        self.center = torch.arange(n, dtype=torch.int32)
        self.node = torch.cat([self.center, self.integers(0, n, rows - n)])
        self.species = self.integers(1, 4, n).long()
        self.positions = torch.zeros(rows, 3, dtype=torch.float64)

    def move(self) -> None:
        self.positions = torch.rand(
            self.positions.shape, generator=self.generator, dtype=torch.float64
        )

    def wanted(self) -> Tensor:
        center = torch.repeat_interleave(torch.arange(self.n), self.ptr.diff())
        row = self.other.long()
        terms = self.positions[row] * self.species[self.node[row].long()].unsqueeze(1)
        return torch.zeros(self.n, 3, dtype=torch.float64).index_add(0, center, terms)

    def step(self, replay, found: bool = False) -> tuple[int, int]:
        """Move, evaluate, compare; the numbers of recordings and of their repetitions so far."""
        self.move()
        forces, records, replays = replay.step(
            self.positions, self.center, self.ptr, self.other, self.node, self.species, self.number,
            found,
        )  # fmt: skip
        torch.testing.assert_close(forces, self.wanted(), rtol=1e-13, atol=0)
        return records, replays


@pytest.mark.parametrize("found", [False, True], ids=["sent", "found there"])
def test_second_evaluation_is_recorded(replay, found):
    replay.start(False)
    atoms = Atoms()
    assert [atoms.step(replay, found) for _ in range(5)] == [(0, 0), (1, 1), (1, 2), (1, 3), (1, 4)]
    assert replay.failure() == ""


@pytest.mark.parametrize("found", [False, True], ids=["sent", "found there"])
def test_lists_that_fit_change_nothing(replay, found):
    """Fewer images and pairs than there is room for: the recording goes on."""
    replay.start(False)
    atoms = Atoms()
    for _ in range(2):
        atoms.step(replay, found)
    atoms.most_pairs = 12
    for fewer in (3, 1, 7):
        atoms.build(fewer)
        assert atoms.step(replay, found)[0] == 1
    assert atoms.step(replay, found) == (1, 5)


@pytest.mark.parametrize("change", ["images", "pairs", "atoms"])
def test_larger_lists_are_recorded_anew(replay, change):
    replay.start(False)
    atoms = Atoms()
    for _ in range(3):
        atoms.step(replay)
    if change == "images":
        atoms.num_images = 60
    elif change == "pairs":
        atoms.most_pairs = 300
    else:
        atoms.n = 5
    atoms.build()
    assert [atoms.step(replay) for _ in range(3)] == [(1, 2), (2, 3), (2, 4)]


def test_what_cannot_be_recorded_goes_on(replay):
    replay.start(True)
    atoms = Atoms()
    assert replay.failure() == ""  # so far nothing was to be recorded
    assert [atoms.step(replay) for _ in range(4)] == 4 * [(0, 0)]
    assert replay.failure() == "cannot be recorded"
