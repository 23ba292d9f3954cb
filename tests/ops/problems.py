"""Random problems of every operator and their derivatives."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tdn import ops
from tdn.network.layers import SILU_SCALE
from tdn.ops import reference

AXES = torch.cat([torch.eye(3), -torch.eye(3)]).double()
R_MAX, STRETCH = 4.0, 0.3  # of the convolutions for inference
RADIAL_R_MAX, POWER = 5.0, 6
GATE_SCALE = 1.7

# how many derivatives an operator has, where not any number of them
ORDERS = {"convolution": 1, "density": 1, "edge_geometry": 2, "node_product": 2}
ORDERS |= {"gate": 2, "gate_with_scalars": 2}
# the gradient of the first argument alone can be differentiated again
FEATURES_AGAIN = {"node_product", "gate", "gate_with_scalars"}


@dataclass(frozen=True)
class Problem:
    """An operator of ``tdn.ops`` and its arguments by name; those that require grad are varied."""

    operator: str
    arguments: dict[str, Any]

    def __getitem__(self, name: str) -> Any:
        return self.arguments[name]

    @property
    def edges(self) -> ops.Edges:
        return self.arguments["edges"]

    @property
    def dtype(self) -> torch.dtype:
        """Of the results; the last tensor has it where edge vectors are float64."""
        tensors = [x for x in self.arguments.values() if isinstance(x, Tensor)]
        return self.arguments.get("dtype", [x.dtype for x in tensors if x.is_floating_point()][-1])

    @property
    def varied(self) -> list[str]:
        """Names of the variables."""
        return [k for k, x in self.arguments.items() if isinstance(x, Tensor) and x.requires_grad]

    @property
    def variables(self) -> list[Tensor]:
        return [self.arguments[name] for name in self.varied]

    @property
    def flat(self) -> tuple:
        """Arguments as ``torch.ops.tdn`` takes them, the tensors of the edges one by one."""
        return tuple(
            y for x in self.arguments.values() for y in (x if isinstance(x, ops.Edges) else (x,))
        )

    def but(self, **changes: Any) -> Problem:
        """The same with other arguments."""
        return dataclasses.replace(self, arguments={**self.arguments, **changes})

    def map(self, function: Callable[[Tensor], Tensor]) -> Problem:
        """The same with changed tensors, those of the edges included; leaves stay leaves."""

        def change(x: Any) -> Any:
            if isinstance(x, ops.Edges):
                return ops.Edges(*map(function, x))
            if not isinstance(x, Tensor):
                return x
            return function(x.detach()).requires_grad_(x.requires_grad)

        return self.but(**{name: change(x) for name, x in self.arguments.items()})

    def of_type(self, dtype: torch.dtype) -> Problem:
        """The same numbers in another type; edge vectors stay float64."""
        vectors = {k: self[k] for k in ("edge_vec",) if k in self.arguments}
        changed = self.map(lambda x: x.to(dtype) if x.is_floating_point() else x)
        return changed.but(**vectors, **({"dtype": dtype} if "dtype" in self.arguments else {}))

    def to(self, device: str) -> Problem:
        return self.map(lambda x: x.to(device))

    def vary(self, *names: str) -> Problem:
        """The same with gradients of these arguments alone."""
        changed = self.map(lambda x: x)
        for name, x in changed.arguments.items():
            if isinstance(x, Tensor) and x.is_floating_point():
                x.requires_grad_(name in names)
        return changed

    def call(self, kind: str = "compiled") -> Any:
        """Run it: ``compiled``, ``reference``, or ``tensor`` (devices without kernels)."""
        if kind == "tensor":
            # what the dispatcher calls on devices that have nothing of their own
            key = torch._C.DispatchKey.CompositeExplicitAutograd
            name = "cp_message" if self.operator == "scalar_message" else self.operator
            return getattr(torch.ops.tdn, name).default._op_dk(key, *self.flat)
        module = ops if kind == "compiled" else reference
        return getattr(module, self.operator)(**self.arguments)

    def function(self) -> Callable[..., Any]:
        """The operator as a function of its variables, for ``gradcheck``."""
        return lambda *values: self.but(**dict(zip(self.varied, values, strict=True))).call()


def pattern(x: Tensor, phase: float = 0.0) -> Tensor:
    """Numbers of the shape, type and device of a tensor."""
    return (torch.arange(x.numel(), device=x.device).double() + phase).cos().to(x.dtype).view_as(x)


def derivatives(problem: Problem, kind: str = "compiled", order: int | None = None) -> list[Tensor]:
    """The values, their gradients, and gradients of a function of values and gradients.

    Up to ``order``, by default 2 or as many as the operator has.
    """
    order = min(2, ORDERS.get(problem.operator, 2)) if order is None else order
    inputs = problem.variables
    values = problem.call(kind)
    values = [values] if isinstance(values, Tensor) else list(values)

    def mixed(tensors: Iterable[Tensor], phase: float) -> Tensor:
        parts = [x for x in tensors if x.numel()]
        linear = sum((pattern(x, phase + k) * x).sum().double() for k, x in enumerate(parts))
        return linear + sum(x.double().square().mean() for x in parts)

    results, total = list(values), mixed(values, 0.3)
    for k in range(1, order + 1):
        if not isinstance(total, Tensor) or not total.requires_grad:  # nothing in, nothing out
            gradients = [torch.zeros_like(x) for x in inputs]
        else:
            gradients = torch.autograd.grad(
                total, inputs, create_graph=k < order, allow_unused=True, materialize_grads=True
            )
        results += gradients
        if problem.operator in FEATURES_AGAIN:
            gradients = gradients[:1]
        total = mixed([x for x in gradients if x.requires_grad], 0.7 + k) + total
    return [x.detach() for x in results]


class Random:
    """Reproducible numbers of float32, so that problems of both types are the same."""

    def __init__(self, dtype: torch.dtype, seed: int) -> None:
        self.dtype = dtype
        self.generator = torch.Generator().manual_seed(seed)

    def normal(self, *shape: int, mean: float = 0.0, size: float = 1.0) -> Tensor:
        return (mean + size * torch.randn(shape, generator=self.generator)).to(self.dtype)

    def variable(self, *shape: int) -> Tensor:
        return self.normal(*shape).requires_grad_()

    def indices(self, high: int, count: int) -> Tensor:
        return torch.randint(max(high, 1), (count,), generator=self.generator)

    def edges(self, num_centers: int, num_nodes: int, num_edges: int) -> ops.Edges:
        center = self.indices(num_centers, num_edges).sort().values
        edge_index = torch.stack([center, self.indices(num_nodes, num_edges)])
        return ops.sort_edges(edge_index, num_centers, num_nodes)


def cp_message(
    num_centers: int = 7,
    num_nodes: int = 9,
    num_edges: int = 40,
    rank: int = 6,
    channels: int = 8,
    degrees: int = 3,
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
) -> Problem:
    some = Random(dtype, seed)
    return Problem(
        "cp_message",
        {
            "u": some.variable(num_nodes, rank, channels),
            "b": some.variable(num_edges, degrees, rank),
            "w": some.variable(num_edges, degrees, channels),
            "edges": some.edges(num_centers, num_nodes, num_edges),
        },
    )


def scalar_message(
    l_max: int = 2,
    channels: int = 8,
    shared: bool = False,
    num_centers: int = 7,
    num_nodes: int = 9,
    num_edges: int = 40,
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
) -> Problem:
    some = Random(dtype, seed)
    return Problem(
        "scalar_message",
        {
            "x": some.variable(num_nodes, 1, channels),
            "harmonics": some.variable(num_edges, (l_max + 1) ** 2),
            "w": some.variable(num_edges, 1 if shared else l_max + 1, channels),
            "edges": some.edges(num_centers, num_nodes, num_edges),
        },
    )


def edge_geometry(
    l_max: int = 2, num_edges: int = 20, dtype: torch.dtype = torch.float64, seed: int = 0
) -> Problem:
    """Edge vectors on the axes first, where polar coordinates are singular."""
    vectors = Random(torch.float64, seed).normal(num_edges, 3)
    vectors = torch.cat([1.7 * AXES, vectors])[:num_edges].clone().requires_grad_()
    return Problem("edge_geometry", {"edge_vec": vectors, "l_max": l_max, "dtype": dtype})


def radial(
    widths: list[int] | None = None,
    num_edges: int = 37,
    num_pairs: int = 4,
    power: int = POWER,
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
) -> Problem:
    """The last edges lie at the cutoff and beyond."""
    widths = widths or [8, 16, 16, 24]
    some = Random(dtype, seed)
    r = 0.5 + 0.9 * (RADIAL_R_MAX - 0.5) * torch.rand(num_edges, generator=some.generator)
    if num_edges > 4:
        r[-3:] = torch.tensor([RADIAL_R_MAX, 1.2 * RADIAL_R_MAX, 100.0])
    matrices = [some.normal(a * b, size=a**-0.5) for a, b in zip(widths, widths[1:])]
    return Problem(
        "radial",
        {
            "r": r.to(dtype).requires_grad_(),
            "pair": some.indices(num_pairs, num_edges),
            "scale": some.normal(num_pairs, widths[1], mean=1.0, size=0.2).requires_grad_(),
            "weights": torch.cat(matrices).requires_grad_(),
            "widths": widths,
            "r_max": RADIAL_R_MAX,
            "power": power,
            "silu_scale": SILU_SCALE,
        },
    )


def convolution(
    l_max: int = 2,
    rank: int = 6,
    channels: int = 8,
    shared: bool = False,
    num_species: int = 2,
    num_centers: int = 7,
    num_nodes: int = 9,
    num_edges: int = 60,
    rows_in: int | None = None,
    rows_out: int | None = None,
    intervals: int = 5,
    order: int = 4,
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
) -> Problem:
    """Distances from 0.3 angstrom to 1.15 R_MAX and some edges along the axes.

    Tables are random, also in the channels that only fill up the last block of 16.
    """
    some = Random(dtype, seed)
    components, degrees = (l_max + 1) ** 2, 1 if shared else l_max + 1
    directions = torch.randn(num_edges, 3, generator=some.generator, dtype=torch.float64)
    on_axes = min(num_edges, len(AXES))
    directions[:on_axes] = AXES[:on_axes]
    lengths = torch.rand(num_edges, 1, generator=some.generator, dtype=torch.float64)
    vectors = (0.3 + lengths * (1.15 * R_MAX - 0.3)) * directions / directions.norm(dim=1)[:, None]
    vectors = vectors[torch.randperm(num_edges, generator=some.generator)]
    rows_in, rows_out = rows_in or components, rows_out or components
    table = (num_species, num_species, intervals, -(-channels // 16), degrees, order + 1, 16)
    return Problem(
        "convolution",
        {
            "x": some.variable(num_nodes, rows_in, channels),
            "edge_vec": vectors.requires_grad_(),
            "species": some.indices(num_species, num_nodes),
            "table": some.normal(*table),
            "r_max": R_MAX,
            "stretch": STRETCH,
            "input1": some.normal(rows_in, rank),
            "input2": some.normal(components, rank),
            "output": some.normal(rows_out, rank),
            "edges": some.edges(num_centers, num_nodes, num_edges),
        },
    )


def density(channels: int = 8, **shape: Any) -> Problem:
    problem = convolution(channels=channels, **shape)
    names = ("edge_vec", "species", "table", "r_max", "stretch")
    arguments = {name: problem[name] for name in names}
    return Problem("density", {**arguments, "num_channels": channels, "edges": problem.edges})


def node_product(
    l_max: int = 2,
    l_max_out: int | None = None,
    rank: int = 6,
    channels: int = 8,
    orders: int = 2,
    num_species: int = 2,
    num_nodes: int = 7,
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
) -> Problem:
    some = Random(dtype, seed)
    degrees, components = l_max + 1, (l_max + 1) ** 2
    degrees_out = degrees if l_max_out is None else l_max_out + 1
    return Problem(
        "node_product",
        {
            "m": some.variable(num_nodes, components, channels),
            "species": some.indices(num_species, num_nodes),
            "linear": some.variable(num_species, degrees_out, channels),
            "left": some.variable(orders, num_species, degrees, channels),
            "right": some.variable(orders, num_species, degrees, channels),
            "weight": some.variable(orders, num_species, degrees_out, channels),
            **{name: some.normal(components, rank) for name in ("input1", "input2", "output")},
        },
    )


def degree_linear(
    num_nodes: int = 7,
    degrees: int = 3,
    channels: int = 8,
    channels_out: int = 8,
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
) -> Problem:
    some = Random(dtype, seed)
    x = some.variable(num_nodes, degrees**2, channels)
    return Problem(
        "degree_linear", {"x": x, "weight": some.variable(degrees, channels, channels_out)}
    )


def component_linear(
    rows: int = 6,
    components: int = 4,
    channels: int = 8,
    num_nodes: int = 5,
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
) -> Problem:
    """The matrix is constant."""
    some = Random(dtype, seed)
    x = some.variable(num_nodes, components, channels)
    return Problem("component_linear", {"x": x, "matrix": some.normal(rows, components)})


def gate(
    num_nodes: int = 7,
    degrees: int = 3,
    channels: int = 8,
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
    operator: str = "gate",
) -> Problem:
    some = Random(dtype, seed)
    x = some.variable(num_nodes, degrees**2, channels)
    weight = some.normal(channels, (degrees - 1) * channels, size=channels**-0.5)
    return Problem(operator, {"x": x, "weight": weight.requires_grad_(), "scale": GATE_SCALE})


def gate_with_scalars(**shape: Any) -> Problem:
    return gate(operator="gate_with_scalars", **shape)
