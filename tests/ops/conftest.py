"""Shared by the operator tests: the compiled library, and random problems of any shape."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from tdn import ops
from tdn.errors import TDNError
from tdn.ops import build, loading


@pytest.fixture(scope="session")
def compiled() -> None:
    """The compiled operators, built if necessary."""
    try:
        build.build_ops()
    except TDNError as error:
        if "not found" in str(error) or "no C++ compiler" in str(error):
            pytest.skip(str(error))
        raise
    if not loading.load():
        pytest.skip("TDN_OPS=reference: the compiled operators are switched off")


@dataclass
class Problem:
    """Inputs of cp_message, and a cotangent."""

    u: Tensor  # [num_nodes, R, C]
    b: Tensor  # [E, L, R]
    w: Tensor  # [E, L, C]
    g: Tensor  # [num_centres, R, C]
    edges: ops.Edges

    @property
    def inputs(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.u, self.b, self.w


@pytest.fixture
def make_problem() -> Callable[..., Problem]:
    def make(
        num_centres: int = 7,
        num_nodes: int = 9,
        num_edges: int = 40,
        rank: int = 6,
        channels: int = 8,
        degrees: int = 3,
        dtype: torch.dtype = torch.float64,
        seed: int = 0,
    ) -> Problem:
        generator = torch.Generator().manual_seed(seed)
        options = {"generator": generator, "dtype": dtype}
        if num_edges:
            centre = torch.randint(num_centres, (num_edges,), generator=generator).sort().values
            neighbour = torch.randint(num_nodes, (num_edges,), generator=generator)
        else:
            centre = neighbour = torch.zeros(0, dtype=torch.int64)
        return Problem(
            torch.randn(num_nodes, rank, channels, **options).requires_grad_(),
            torch.randn(num_edges, degrees, rank, **options).requires_grad_(),
            torch.randn(num_edges, degrees, channels, **options).requires_grad_(),
            torch.randn(num_centres, rank, channels, **options).requires_grad_(),
            ops.sort_edges(torch.stack([centre, neighbour]), num_centres, num_nodes),
        )

    return make
