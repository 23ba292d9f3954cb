"""Random problems of the convolution operators, shared by their tests."""

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor

from tdn import ops
from tdn.ops import reference

R_MAX, STRETCH = 4.0, 0.3
# sums of some hundred products; the reference of float32 is computed in float64
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5}
AXES = torch.cat([torch.eye(3), -torch.eye(3)]).double()

# Ranks around the tiles of the kernels (4, 6 and 9) and their multiples, channels around the widths
# of vectors, degrees with kernels of their own (to 4) and beyond, more than one batch of 16 edges.
SHAPES = [
    {},
    {"l_max": 0, "rank": 1, "channels": 1, "num_species": 1},
    {"l_max": 1, "rank": 6, "channels": 3},
    {"l_max": 1, "rank": 7, "channels": 17, "num_species": 3},
    {"l_max": 2, "rank": 17, "channels": 33},
    {"l_max": 2, "rank": 18, "channels": 64, "rows_out": 4, "rows_in": 1},
    {"l_max": 3, "rank": 32, "channels": 16, "rows_out": 1},
    {"l_max": 4, "rank": 12, "channels": 5, "rows_in": 33},
    {"l_max": 5, "rank": 7, "channels": 17},
    {"l_max": 6, "rank": 1, "channels": 3, "num_species": 3},
    {"l_max": 11, "rank": 2, "channels": 1},
    {"l_max": 0, "rank": 5, "channels": 33, "shared": True},
    {"l_max": 2, "rank": 17, "channels": 33, "shared": True},
    {"l_max": 5, "rank": 6, "channels": 3, "shared": True},
    {"num_edges": 0},
    {"num_edges": 1},
    {"num_centres": 1, "num_nodes": 1, "num_edges": 15},
    {"num_centres": 1, "num_nodes": 4, "num_edges": 100},
    {"num_centres": 3, "num_nodes": 3, "num_edges": 51},
    {"num_centres": 3, "num_nodes": 30},
    {"num_centres": 30, "num_nodes": 30, "num_edges": 20},
    {"num_centres": 0, "num_nodes": 5, "num_edges": 0},
    {"num_centres": 0, "num_nodes": 0, "num_edges": 0},
    {"intervals": 1, "order": 0},
    {"intervals": 40, "order": 9},
]


@dataclass
class Problem:
    """Inputs of convolution and density, and cotangents."""

    x: Tensor  # [num_nodes, rows_in, C]
    edge_vec: Tensor  # [E, 3]
    species: Tensor  # [num_nodes]
    table: Tensor  # [S, S, K, blocks, L, order + 1, 16]
    input1: Tensor  # [rows_in, R]
    input2: Tensor  # [D, R]
    output: Tensor  # [rows_out, R]
    edges: ops.Edges
    g: Tensor  # cotangent of the messages [num_centres, rows_out, C]
    g_density: Tensor  # [num_centres, L^2, C]

    def arguments(self, name: str) -> tuple:
        """Arguments of an operator without those of the edges."""
        radial = (self.edge_vec, self.species, self.table, R_MAX, STRETCH)
        if name == "density":
            return *radial, self.x.shape[2]
        return self.x, *radial, self.input1, self.input2, self.output

    def variables(self, name: str) -> list[Tensor]:
        return [self.edge_vec] if name == "density" else [self.x, self.edge_vec]

    def cotangent(self, name: str) -> Tensor:
        return self.g_density if name == "density" else self.g

    def to(self, dtype: torch.dtype) -> "Problem":
        """The same numbers in another type; edge vectors stay float64."""
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        for key in ("x", "table", "input1", "input2", "output", "g", "g_density"):
            fields[key] = fields[key].detach().to(dtype)
        fields["x"].requires_grad_()
        return Problem(**fields)


def make_problem(
    l_max: int = 2,
    rank: int = 6,
    channels: int = 8,
    shared: bool = False,
    num_species: int = 2,
    num_centres: int = 7,
    num_nodes: int = 9,
    num_edges: int = 60,
    rows_in: int | None = None,
    rows_out: int | None = None,
    intervals: int = 5,
    order: int = 4,
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
) -> Problem:
    """A problem with distances from 0.3 angstrom to 1.15 R_MAX and some edges along the axes.

    Tables are random, also in the channels that only fill up the last block of 16.
    """
    generator = torch.Generator().manual_seed(seed)

    def randn(*shape: int) -> Tensor:
        # float32 values are float64 values as well, so that one problem serves for both
        return torch.randn(shape, generator=generator).to(dtype)

    def indices(high: int, count: int) -> Tensor:
        if high == 0:
            return torch.zeros(0, dtype=torch.int64)
        return torch.randint(high, (count,), generator=generator)

    components, degrees = (l_max + 1) ** 2, 1 if shared else l_max + 1
    rows_in, rows_out = rows_in or components, rows_out or components
    directions = torch.randn(num_edges, 3, generator=generator, dtype=torch.float64)
    some = min(num_edges, len(AXES))
    directions[:some] = AXES[:some]
    lengths = torch.rand(num_edges, 1, generator=generator, dtype=torch.float64)
    lengths = 0.3 + lengths * (1.15 * R_MAX - 0.3)
    edge_vec = lengths * directions / directions.norm(dim=1, keepdim=True)
    order_of_edges = torch.randperm(num_edges, generator=generator)
    edge_index = torch.stack(
        [indices(num_centres, num_edges).sort().values, indices(num_nodes, num_edges)]
    )
    blocks = -(-channels // 16)
    return Problem(
        x=randn(num_nodes, rows_in, channels).requires_grad_(),
        edge_vec=edge_vec[order_of_edges].requires_grad_(),
        species=indices(num_species, num_nodes),
        table=randn(num_species, num_species, intervals, blocks, degrees, order + 1, 16),
        input1=randn(rows_in, rank),
        input2=randn(components, rank),
        output=randn(rows_out, rank),
        edges=ops.sort_edges(edge_index, num_centres, num_nodes),
        g=randn(num_centres, rows_out, channels),
        g_density=randn(num_centres, degrees**2, channels),
    )


def call(name: str, problem: Problem, kind: str = "compiled") -> Tensor:
    """Run an operator: ``compiled``, ``reference``, or ``tensor`` (devices without kernels)."""
    if kind == "tensor":
        # what the dispatcher calls on devices that have nothing of their own
        key = torch._C.DispatchKey.CompositeExplicitAutograd
        operator = getattr(torch.ops.tdn, name).default
        return operator._op_dk(key, *problem.arguments(name), *problem.edges)
    module = ops if kind == "compiled" else reference
    return getattr(module, name)(*problem.arguments(name), problem.edges)


def derivatives(name: str, problem: Problem, kind: str = "compiled") -> list[Tensor]:
    """The value and its gradients with respect to x (convolution) and edge_vec."""
    value = call(name, problem, kind)
    if not value.requires_grad:  # no edges
        return [value, *(torch.zeros_like(x) for x in problem.variables(name))]
    gradients = torch.autograd.grad(
        value, problem.variables(name), problem.cotangent(name), materialize_grads=True
    )
    return [value, *gradients]


def assert_close(found, expected, dtype=torch.float64):
    assert found.shape == expected.shape
    assert torch.isfinite(found).all()
    if found.numel():
        scale = expected.abs().max().clamp(min=1e-30)
        assert (found - expected).abs().max() <= TOLERANCE[dtype] * scale


def assert_all_close(found, expected, dtype=torch.float64):
    for x, y in zip(found, expected, strict=True):
        assert_close(x, y, dtype)


def check_shapes() -> None:
    """Compare every problem of `SHAPES` with the reference, in both types."""
    for dtype in TOLERANCE:
        for name in ("convolution", "density"):
            for shape in SHAPES:
                problem = make_problem(dtype=dtype, **shape)
                expected = derivatives(name, problem.to(torch.float64), "reference")
                assert_all_close(derivatives(name, problem), expected, dtype)
