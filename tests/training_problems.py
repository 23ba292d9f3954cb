"""Operators as a loss on forces uses them: every derivative it takes, with bounds on rounding.

Most of them are polynomials with positive coefficients. Computed in numbers of unit roundoff u,
with at most k roundings on the way of any term, a polynomial and its derivatives are off by at most
k u times the same polynomial of the absolute values (the classical bound, for any order of sums).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from node_product_problems import SHAPES as NODE_SHAPES
from node_product_problems import make_node_problem
from torch import Tensor

from tdn import ops
from tdn.ops import reference

GATE_SCALE = 1.7


@dataclass(frozen=True)
class Problem:
    """An operator, its arguments and what its results are multiplied by."""

    compiled: Callable[..., tuple[Tensor, ...]]
    reference: Callable[..., tuple[Tensor, ...]]
    inputs: tuple[Tensor, ...]  # those with derivatives come first among the arguments
    constants: tuple[Tensor, ...]
    cotangents: tuple[Tensor, ...]  # one per result
    directions: tuple[Tensor, ...]  # along which gradients of the first inputs are differentiated
    roundings: int  # on the way of any term of any derivative
    polynomial: bool = True

    def changed(self, change: Callable[[Tensor], Tensor]) -> Problem:
        """The same with other numbers; indices stay."""
        return self._mapped(lambda x: change(x) if x.is_floating_point() else x)

    def to(self, device: str) -> Problem:
        """The same on a device."""
        return self._mapped(lambda x: x.to(device))

    def _mapped(self, function: Callable[[Tensor], Tensor]) -> Problem:
        def all_of(tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            return tuple(map(function, tensors))

        return replace(
            self,
            inputs=all_of(self.inputs),
            constants=all_of(self.constants),
            cotangents=all_of(self.cotangents),
            directions=all_of(self.directions),
        )


def derivatives(problem: Problem, kind: str = "compiled") -> list[Tensor]:
    """Values, gradients of all inputs, and those of the gradients of the first inputs."""
    inputs = [x.detach().requires_grad_() for x in problem.inputs]
    cotangents = [x.detach().requires_grad_() for x in problem.cotangents]
    values = getattr(problem, kind)(*inputs, *problem.constants)
    first = torch.autograd.grad(
        values, inputs, cotangents, create_graph=True, materialize_grads=True
    )
    second = torch.autograd.grad(
        first[: len(problem.directions)],
        [*inputs, *cotangents],
        problem.directions,
        materialize_grads=True,
    )
    return [x.detach() for x in (*values, *first, *second)]


def check(problem: Problem, device: str = "cpu") -> None:
    """Every derivative against the reference in float64, number by number where that is derived."""
    exact = problem.changed(Tensor.double)
    expected = derivatives(exact, "reference")
    sizes = expected
    if problem.polynomial:
        sizes = derivatives(exact.changed(Tensor.abs), "reference")
    dtype = problem.inputs[0].dtype
    # u is half of eps; in float64 the reference rounds as well
    relative = problem.roundings * torch.finfo(dtype).eps
    assert relative < 1e-2 if dtype == torch.float32 else relative < 1e-10
    results = derivatives(problem.to(device))
    for found, wanted, size in zip(results, expected, sizes, strict=True):
        assert found.dtype == dtype and found.shape == wanted.shape
        assert found.device.type == device
        bound = relative * (size if problem.polynomial or not size.numel() else size.abs().max())
        assert ((found.cpu().double() - wanted).abs() <= bound).all()


def _numbers(seed: int, dtype: torch.dtype) -> Callable[..., Tensor]:
    generator = torch.Generator().manual_seed(seed)
    # float32 values are float64 values as well
    return lambda *shape: torch.randn(shape, generator=generator).to(dtype)


def message_problem(
    rank: int = 6,
    channels: int = 8,
    degrees: int = 3,
    num_nodes: int = 9,
    num_edges: int = 40,
    dtype: torch.dtype = torch.float64,
) -> Problem:
    """cp_message; its second derivatives are one operator, cp_message_second."""
    randn = _numbers(0, dtype)
    generator = torch.Generator().manual_seed(1)
    ends = torch.randint(num_nodes, (2, num_edges), generator=generator)
    edges = ops.sort_edges(torch.stack([ends[0].sort().values, ends[1]]), num_nodes, num_nodes)
    shapes = (
        (num_nodes, rank, channels),
        (num_edges, degrees, rank),
        (num_edges, degrees, channels),
    )
    most = int(torch.bincount(ends.flatten()).max()) if num_edges else 0
    return Problem(
        lambda u, b, w, *edges: (ops.cp_message(u, b, w, ops.Edges(*edges)),),
        lambda u, b, w, *edges: (reference.cp_message(u, b, w, ops.Edges(*edges)),),
        tuple(randn(*shape) for shape in shapes),
        tuple(edges),
        (randn(num_nodes, rank, channels),),
        tuple(randn(*shape) for shape in shapes),
        # sums over degrees and then over edges, ranks or channels; three products, three directions
        roundings=degrees + rank + channels + most + 8,
    )


def node_problem(dtype: torch.dtype = torch.float64, **shape: int) -> Problem:
    """node_product, with gradients of its weights."""
    (m, species, *others), g = make_node_problem(dtype=dtype, **shape)
    m = m.detach()
    weights, factors = others[:4], others[4:]
    orders, (components, rank) = weights[1].shape[0], factors[0].shape

    def call(module):
        return lambda m, linear, left, right, weight, species, *factors: (
            module.node_product(m, species, linear, left, right, weight, *factors),
        )

    # an order multiplies by weights, sums over components (twice) and over ranks
    forward = orders * (2 * components + rank + 4) + 2
    return Problem(
        call(ops),
        call(reference),
        (m, *weights),
        (species, *factors),
        (g,),
        (_numbers(3, dtype)(*m.shape),),
        # powers, their change along a direction, and the way back; then sums over nodes
        roundings=3 * forward + len(m) + components + 16,
    )


def linear_problem(
    num_nodes: int = 7,
    degrees: int = 3,
    channels: int = 8,
    channels_out: int = 8,
    dtype: torch.dtype = torch.float64,
) -> Problem:
    """degree_linear, features and weights."""
    randn = _numbers(0, dtype)
    shapes = (num_nodes, degrees**2, channels), (degrees, channels, channels_out)
    return Problem(
        lambda x, weight: (ops.degree_linear(x, weight),),
        lambda x, weight: (reference.degree_linear(x, weight),),
        tuple(randn(*shape) for shape in shapes),
        (),
        (randn(num_nodes, degrees**2, channels_out),),
        tuple(randn(*shape) for shape in shapes),
        # one sum over channels, or over the components of a degree of all nodes
        roundings=channels + channels_out + num_nodes * (2 * degrees - 1) + 4,
    )


def gate_problem(
    num_nodes: int = 7,
    degrees: int = 3,
    channels: int = 8,
    dtype: torch.dtype = torch.float64,
) -> Problem:
    """gate_with_scalars, both results.

    No polynomial, but sigmoids and their derivatives are at most one: rounding of their arguments,
    sums of C terms of order C^-1/2, changes results by that many last places of the largest.
    """
    randn = _numbers(0, dtype)
    return Problem(
        lambda x, weight: ops.gate_with_scalars(x, weight, GATE_SCALE),
        lambda x, weight: reference.gate_with_scalars(x, weight, GATE_SCALE),
        (
            randn(num_nodes, degrees**2, channels),
            randn(channels, (degrees - 1) * channels) / channels**0.5,
        ),
        (),
        (randn(num_nodes, degrees**2, channels), randn(num_nodes, channels)),
        (randn(num_nodes, degrees**2, channels),),
        roundings=4 * channels + num_nodes + 32,
        polynomial=False,
    )


# operator: its problems, and one that is large enough for several threads
OPERATORS: dict[str, tuple[Callable[..., Problem], list[dict[str, int]], dict[str, int]]] = {
    "cp_message": (
        message_problem,
        [
            {},
            {"rank": 1, "channels": 1, "degrees": 1},
            {"rank": 17, "channels": 64},
            {"rank": 9, "channels": 47, "degrees": 7},
            {"num_edges": 0},
            {"num_edges": 1},
        ],
        {"rank": 7, "channels": 20, "num_nodes": 301, "num_edges": 6000},
    ),
    "node_product": (
        node_problem,
        NODE_SHAPES,
        {"rank": 17, "channels": 20, "num_nodes": 501},
    ),
    "degree_linear": (
        linear_problem,
        [
            {},
            {"num_nodes": 1, "degrees": 1, "channels": 1, "channels_out": 1},
            {"num_nodes": 5, "degrees": 1, "channels": 3, "channels_out": 17},
            {"num_nodes": 0},
            {"num_nodes": 40, "degrees": 4, "channels": 33, "channels_out": 3},
            {"num_nodes": 2, "degrees": 7, "channels": 17, "channels_out": 33},
        ],
        {"num_nodes": 701, "degrees": 4, "channels": 33, "channels_out": 20},
    ),
    "gate_with_scalars": (
        gate_problem,
        [
            {},
            {"num_nodes": 1, "degrees": 1, "channels": 1},
            {"num_nodes": 5, "degrees": 2, "channels": 7},
            {"num_nodes": 20, "degrees": 4, "channels": 64},
            {"num_nodes": 0, "channels": 17},
        ],
        {"num_nodes": 1501, "channels": 64},
    ),
}


def check_shapes() -> None:
    """All problems, in both types."""
    for make, shapes, _ in OPERATORS.values():
        for dtype in (torch.float64, torch.float32):
            for shape in shapes:
                check(make(dtype=dtype, **shape))
