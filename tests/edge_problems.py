"""Random problems of the operators on edges and of training, shared by their tests."""

import math
from collections.abc import Callable

import torch
from convolution_problems import AXES, TOLERANCE, assert_all_close
from torch import Tensor

from tdn import ops
from tdn.network.layers import SILU_SCALE
from tdn.ops import reference

R_MAX, POWER = 5.0, 6

# Widths around those of vectors, one to three hidden layers.
RADIAL_SHAPES = [
    {},
    {"widths": [1, 1, 1], "num_pairs": 1},
    {"widths": [8, 64, 64, 192], "num_edges": 70},
    {"widths": [5, 17, 3, 31]},
    {"widths": [8, 33, 7, 16, 5]},
    {"num_edges": 0},
    {"num_edges": 1},
    {"num_edges": 130, "power": 2},
    # more chunks of 128 edges than there are sums of them, the last one short
    {"widths": [3, 5, 4, 7], "num_edges": 64 * 128 + 200},
]

# Degrees with kernels of their own (to 6) and beyond, channels around the widths of vectors.
SCALAR_SHAPES = [
    *({"l_max": l_max, "channels": 5 + 2 * l_max} for l_max in range(7)),
    *({"l_max": l_max, "channels": 19, "shared": True} for l_max in range(7)),
    {"l_max": 2, "channels": 1},
    {"l_max": 2, "channels": 64, "num_edges": 300},
    {"l_max": 7, "channels": 3},
    {"l_max": 8, "channels": 17, "shared": True},
    {"num_edges": 0},
    {"num_edges": 1},
    {"num_centres": 30, "num_nodes": 30, "num_edges": 9},
    {"num_centres": 0, "num_nodes": 0, "num_edges": 0},
]

COMPONENT_SHAPES = [
    {},
    {"rows": 1, "components": 1, "channels": 1},
    {"rows": 17, "components": 9, "channels": 64},
    {"rows": 9, "components": 17, "channels": 33},
    {"rows": 32, "components": 16, "channels": 7},
    {"rows": 13, "components": 4, "channels": 129},
    {"num_nodes": 0},
    {"num_nodes": 1},
]


def randn(generator: torch.Generator, dtype: torch.dtype, *shape: int) -> Tensor:
    """Numbers of float32, so that one problem serves for both types."""
    return torch.randn(shape, generator=generator).to(dtype)


def make_radial_problem(
    widths: list[int] | None = None,
    num_edges: int = 37,
    num_pairs: int = 4,
    power: int = POWER,
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
) -> tuple:
    """Arguments of radial; the last edges lie at the cutoff and beyond."""
    widths = widths or [8, 16, 16, 24]
    generator = torch.Generator().manual_seed(seed)
    r = (0.5 + 0.9 * (R_MAX - 0.5) * torch.rand(num_edges, generator=generator)).to(dtype)
    if num_edges > 4:
        r[-3:] = torch.tensor([R_MAX, 1.2 * R_MAX, 100.0])
    sizes = list(zip(widths, widths[1:], strict=False))
    weights = [randn(generator, dtype, a, b) / math.sqrt(a) for a, b in sizes]
    return (
        r.requires_grad_(),
        torch.randint(num_pairs, (num_edges,), generator=generator),
        (1 + 0.2 * randn(generator, dtype, num_pairs, widths[1])).requires_grad_(),
        torch.cat([x.flatten() for x in weights]).requires_grad_(),
        widths,
        R_MAX,
        power,
        SILU_SCALE,
    )


def make_scalar_problem(
    l_max: int = 2,
    channels: int = 8,
    shared: bool = False,
    num_centres: int = 7,
    num_nodes: int = 9,
    num_edges: int = 40,
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
) -> tuple[Tensor, Tensor, Tensor, ops.Edges]:
    """Arguments of scalar_message."""
    generator = torch.Generator().manual_seed(seed)
    centre = torch.randint(max(num_centres, 1), (num_edges,), generator=generator).sort().values
    neighbour = torch.randint(max(num_nodes, 1), (num_edges,), generator=generator)
    return (
        randn(generator, dtype, num_nodes, 1, channels).requires_grad_(),
        randn(generator, dtype, num_edges, (l_max + 1) ** 2).requires_grad_(),
        randn(generator, dtype, num_edges, 1 if shared else l_max + 1, channels).requires_grad_(),
        ops.sort_edges(torch.stack([centre, neighbour]), num_centres, num_nodes),
    )


def make_component_problem(
    rows: int = 6,
    components: int = 4,
    channels: int = 8,
    num_nodes: int = 5,
    dtype: torch.dtype = torch.float64,
) -> tuple[Tensor, Tensor]:
    """Arguments of component_linear; the matrix is constant."""
    generator = torch.Generator().manual_seed(rows)
    x = randn(generator, dtype, num_nodes, components, channels).requires_grad_()
    return x, randn(generator, dtype, rows, components)


def make_vectors(num_edges: int = 20, seed: int = 0) -> Tensor:
    """Edge vectors [E, 3], float64; axes first, where polar coordinates are singular."""
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.randn(num_edges, 3, generator=generator).double()
    return torch.cat([1.7 * AXES, vectors])[:num_edges].clone().requires_grad_()


def in_float64(arguments: tuple) -> tuple:
    """The same numbers; what could be differentiated still can."""

    def convert(x):
        if not isinstance(x, Tensor) or not x.is_floating_point():
            return x
        return x.detach().double().requires_grad_(x.requires_grad)

    return tuple(convert(x) for x in arguments)


def derivatives(function: Callable, arguments: tuple, order: int = 2) -> list[Tensor]:
    """The value, its gradients, and gradients of a function of value and gradients."""
    inputs = [x for x in arguments if isinstance(x, Tensor) and x.requires_grad]
    values = function(*arguments)
    values = [values] if isinstance(values, Tensor) else list(values)
    results = list(values)

    def mixed(tensors: list[Tensor], phase: float) -> Tensor:
        total = sum(
            (torch.cos(torch.arange(x.numel(), device=x.device).double() + phase + k).to(x.dtype))
            .view_as(x)
            .mul(x)
            .sum()
            .double()
            for k, x in enumerate(tensors)
        )
        return total + sum(x.double().square().mean() for x in tensors if x.numel())

    total = mixed(values, 0.3)
    for k in range(1, order + 1):
        last = k == order
        gradients = torch.autograd.grad(
            total, inputs, create_graph=not last, allow_unused=True, materialize_grads=True
        )
        results += gradients
        if not last:
            total = mixed([x for x in gradients if x.requires_grad], 0.7 + k) + total
    return [x.detach() for x in results]


def geometry(l_max: int, dtype: torch.dtype, module) -> Callable:
    """edge_geometry as a function of the vectors alone."""
    return lambda vectors: module.edge_geometry(vectors, l_max, dtype)


def check_radial(shape: dict, dtype: torch.dtype) -> None:
    """Value, first and second derivatives (one of them by r) against the reference in float64."""
    arguments = make_radial_problem(dtype=dtype, **shape)
    found = derivatives(ops.radial, arguments)
    assert all(x.dtype == dtype for x in found)
    expected = derivatives(reference.radial, in_float64(arguments))
    assert_all_close(found, expected, dtype)


def check_scalar_message(shape: dict, dtype: torch.dtype) -> None:
    """The same for scalar_message."""
    arguments = make_scalar_problem(dtype=dtype, **shape)
    found = derivatives(ops.scalar_message, arguments)
    assert all(x.dtype == dtype for x in found)
    expected = derivatives(reference.scalar_message, in_float64(arguments))
    assert_all_close(found, expected, dtype)


def check_component_linear(shape: dict, dtype: torch.dtype) -> None:
    """The same for component_linear."""
    arguments = make_component_problem(dtype=dtype, **shape)
    found = derivatives(ops.component_linear, arguments)
    assert all(x.dtype == dtype for x in found)
    expected = derivatives(reference.component_linear, in_float64(arguments))
    assert_all_close(found, expected, dtype)


def check_geometry(l_max: int, dtype: torch.dtype) -> None:
    """The same for edge_geometry."""
    vectors = (make_vectors(),)
    found = derivatives(geometry(l_max, dtype, ops), vectors)
    expected = derivatives(geometry(l_max, torch.float64, reference), vectors)
    assert_all_close(found, expected, dtype)


def check_shapes() -> None:
    """All problems, in both types."""
    for dtype in TOLERANCE:
        for shape in RADIAL_SHAPES:
            check_radial(shape, dtype)
        for shape in SCALAR_SHAPES:
            check_scalar_message(shape, dtype)
        for shape in COMPONENT_SHAPES:
            check_component_linear(shape, dtype)
