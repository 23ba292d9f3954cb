"""Operators as a loss on forces uses them: every derivative it takes, with bounds on rounding.

Most of them are polynomials with positive coefficients. Computed in numbers of unit roundoff u,
with at most k roundings on the way of any term, a polynomial and its derivatives are off by at most
k u times the same polynomial of the absolute values (the classical bound, for any order of sums).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .problems import FEATURES_AGAIN, Problem, Random


@dataclass(frozen=True)
class ForceProblem:
    """A problem, what its results are multiplied by, and directions of second derivatives."""

    problem: Problem
    cotangents: tuple[Tensor, ...]  # one per result
    directions: tuple[Tensor, ...]  # along which gradients of the first inputs are differentiated

    @classmethod
    def of(cls, problem: Problem) -> ForceProblem:
        some = Random(problem.dtype, 3)
        with torch.no_grad():
            values = problem.call("reference")
        values = [values] if isinstance(values, Tensor) else values
        inputs = problem.variables[: 1 if problem.operator in FEATURES_AGAIN else None]
        cotangents, directions = (tuple(some.normal(*x.shape) for x in y) for y in (values, inputs))
        return cls(problem, cotangents, directions)

    def map(self, function: Callable[[Tensor], Tensor]) -> ForceProblem:
        """The same with other tensors."""
        return replace(
            self,
            problem=self.problem.map(function),
            cotangents=tuple(map(function, self.cotangents)),
            directions=tuple(map(function, self.directions)),
        )

    def derivatives(self, kind: str = "compiled") -> list[Tensor]:
        """Values, gradients of all inputs, and those of the gradients of the first inputs."""
        inputs = self.problem.variables
        cotangents = [x.detach().requires_grad_() for x in self.cotangents]
        values = self.problem.call(kind)
        values = [values] if isinstance(values, Tensor) else values
        first = torch.autograd.grad(
            values, inputs, cotangents, create_graph=True, materialize_grads=True
        )
        second = torch.autograd.grad(
            first[: len(self.directions)],
            [*inputs, *cotangents],
            self.directions,
            materialize_grads=True,
        )
        return [x.detach() for x in (*values, *first, *second)]


def _of_message(p: Problem) -> int:
    """Sums over degrees and then over edges, ranks or channels; three products and directions."""
    ends = (p.edges.center, p.edges.neighbor)
    most = max(int(torch.bincount(x).max()) for x in ends) if len(p["b"]) else 0
    return sum(p["b"].shape[1:]) + p["w"].shape[2] + most + 8


def _of_node_product(p: Problem) -> int:
    """Powers, their change along a direction, and the way back; then sums over nodes."""
    orders, (components, rank) = len(p["left"]), p["input1"].shape
    # an order multiplies by weights, sums over components (twice) and over ranks
    forward = orders * (2 * components + rank + 4) + 2
    return 3 * forward + len(p["m"]) + components + 16


def _of_degree_linear(p: Problem) -> int:
    """One sum over channels, or over the components of a degree of all nodes."""
    degrees, channels, channels_out = p["weight"].shape
    return channels + channels_out + len(p["x"]) * (2 * degrees - 1) + 4


def _of_gate(p: Problem) -> int:
    """No polynomial, but sigmoids and their derivatives are at most one.

    Rounding of their arguments, sums of C terms of order C^-1/2, changes results by that many last
    places of the largest.
    """
    return 4 * p["x"].shape[2] + len(p["x"]) + 32


# roundings on the way of any term of any derivative
BOUNDED: dict[str, Callable[[Problem], int]] = {
    "cp_message": _of_message,
    "node_product": _of_node_product,
    "degree_linear": _of_degree_linear,
    "gate_with_scalars": _of_gate,
}


def check_bounds(problem: Problem, device: str = "cpu") -> None:
    """Every derivative in both types against the reference in float64.

    Number by number where that is derived.
    """
    exact = ForceProblem.of(problem)
    expected = sizes = exact.derivatives("reference")
    polynomial = problem.operator != "gate_with_scalars"
    if polynomial:
        positive = exact.map(lambda x: x.abs() if x.is_floating_point() else x)
        sizes = positive.derivatives("reference")
    for dtype, largest in ((torch.float64, 1e-10), (torch.float32, 1e-2)):
        # u is half of eps; in float64 the reference rounds as well
        relative = BOUNDED[problem.operator](problem) * torch.finfo(dtype).eps
        assert relative < largest
        given = exact.map(
            lambda x, to=dtype: x.to(device, to if x.is_floating_point() else x.dtype)
        )
        for found, wanted, size in zip(given.derivatives(), expected, sizes, strict=True):
            assert found.dtype == dtype and found.shape == wanted.shape
            assert found.device.type == device
            bound = relative * (size if polynomial or not size.numel() else size.abs().max())
            assert ((found.cpu().double() - wanted).abs() <= bound).all()
