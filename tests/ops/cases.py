"""Which problems of which operator the tests look at, and how results are checked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from .bounds import BOUNDED, check_bounds
from .closeness import DTYPES, assert_all_close
from .problems import (
    ORDERS,
    Problem,
    component_linear,
    convolution,
    cp_message,
    degree_linear,
    density,
    derivatives,
    edge_geometry,
    gate,
    gate_with_scalars,
    node_product,
    radial,
    scalar_message,
)

# what is wrong with edges of two centers and three nodes, and the message
WRONG_EDGES = [
    ([[1, 0], [0, 0]], "must be non-decreasing"),
    ([[0, 2], [0, 0]], r"centers must lie in 0..1, found .*2"),
    ([[-1, 0], [0, 0]], r"centers must lie in 0..1, found -1"),
    ([[0, 1], [0, 3]], r"neighbors must lie in 0..2, found .*3"),
    ([[0, 1], [-2, 0]], r"neighbors must lie in 0..2, found -2"),
    ([[0.0, 1.0], [0.0, 0.0]], "must be an int64 tensor"),
    ([0, 1], "must be an int64 tensor"),
    ([[0], [1], [2]], "must be an int64 tensor"),
]

# counts of edges and atoms that kernels may stumble over
FEW_EDGES = [
    {"num_edges": 0},
    {"num_edges": 1},
    {"num_centers": 1, "num_nodes": 1, "num_edges": 3},
    {"num_centers": 30, "num_nodes": 4},
    {"num_centers": 3, "num_nodes": 30},
    {"num_centers": 0, "num_nodes": 5, "num_edges": 0},
    {"num_centers": 0, "num_nodes": 0, "num_edges": 0},
]

# Ranks around the tiles of the kernels (4, 6, 9) and their multiples, channels around the widths of
# vectors, degrees with kernels of their own (to 4) and beyond, more than one batch of 16 edges.
CONVOLUTION_SHAPES = [
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
    {"num_centers": 1, "num_nodes": 1, "num_edges": 15},
    {"num_centers": 1, "num_nodes": 4, "num_edges": 100},
    {"num_centers": 3, "num_nodes": 3, "num_edges": 51},
    {"num_centers": 3, "num_nodes": 30},
    {"num_centers": 30, "num_nodes": 30, "num_edges": 20},
    {"num_centers": 0, "num_nodes": 5, "num_edges": 0},
    {"num_centers": 0, "num_nodes": 0, "num_edges": 0},
    {"intervals": 1, "order": 0},
    {"intervals": 40, "order": 9},
]

# operator: what makes problems of it, their shapes, and one large enough for several threads
OPERATORS: dict[str, tuple[Callable[..., Problem], list[dict], dict]] = {
    # odd ranks and channels, smaller, equal to and larger than any vector, many degrees
    "cp_message": (
        cp_message,
        [
            {},
            {"rank": 1, "channels": 1, "degrees": 1},
            {"rank": 17, "channels": 64, "degrees": 3, "num_edges": 30},
            {"rank": 5, "channels": 31, "degrees": 5},
            {"rank": 4, "channels": 7, "degrees": 6},
            {"rank": 9, "channels": 47, "degrees": 7},
            {"rank": 3, "channels": 48, "degrees": 13},
            {"rank": 6, "channels": 16, "degrees": 0},
            *FEW_EDGES,
            {"rank": 32, "channels": 16, "num_centers": 200, "num_nodes": 150, "num_edges": 3000},
        ],
        {"num_centers": 301, "num_nodes": 250, "num_edges": 9000, "rank": 7, "channels": 20},
    ),
    # degrees with kernels of their own (to 6) and beyond, channels around the widths of vectors
    "scalar_message": (
        scalar_message,
        [
            *({"l_max": l_max, "channels": 5 + 2 * l_max} for l_max in range(7)),
            *({"l_max": l_max, "channels": 19, "shared": True} for l_max in range(7)),
            {"l_max": 2, "channels": 1},
            {"l_max": 2, "channels": 64, "num_edges": 300},
            {"l_max": 7, "channels": 3},
            {"l_max": 8, "channels": 17, "shared": True},
            {"num_edges": 0},
            {"num_edges": 1},
            {"num_centers": 30, "num_nodes": 30, "num_edges": 9},
            {"num_centers": 0, "num_nodes": 0, "num_edges": 0},
        ],
        {"l_max": 3, "channels": 20, "num_centers": 301, "num_nodes": 250, "num_edges": 9000},
    ),
    "edge_geometry": (
        edge_geometry,
        [*({"l_max": l_max} for l_max in range(12)), {"num_edges": 0}, {"num_edges": 1}],
        {"l_max": 3, "num_edges": 3001},
    ),
    # widths around those of vectors, one to three hidden layers
    "radial": (
        radial,
        [
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
        ],
        {"widths": [8, 32, 17, 48], "num_edges": 9001},
    ),
    "convolution": (
        convolution,
        CONVOLUTION_SHAPES,
        {"rank": 7, "channels": 20, "num_centers": 301, "num_nodes": 350, "num_edges": 9000},
    ),
    "density": (
        density,
        CONVOLUTION_SHAPES,
        {"channels": 20, "num_centers": 301, "num_nodes": 350, "num_edges": 9000},
    ),
    # components with kernels of their own (4, 9, 16) and others, channels around the widths of
    # vectors, products that keep all degrees or the scalar alone, no product at all
    "node_product": (
        node_product,
        [
            {},
            {"l_max": 0, "rank": 1, "channels": 1, "num_species": 1},
            {"l_max": 1, "rank": 6, "channels": 3, "orders": 1},
            {"l_max": 1, "rank": 7, "channels": 17, "l_max_out": 0, "num_species": 3},
            {"l_max": 2, "rank": 18, "channels": 33, "l_max_out": 1},
            {"l_max": 2, "rank": 17, "channels": 64, "orders": 0},
            {"l_max": 3, "rank": 32, "channels": 16, "l_max_out": 0},
            {"l_max": 3, "rank": 1, "channels": 5, "orders": 3},
            {"l_max": 4, "rank": 17, "channels": 17},
            {"l_max": 6, "rank": 6, "channels": 3, "l_max_out": 2},
            {"num_nodes": 0},
            {"num_nodes": 1},
        ],
        {"rank": 17, "channels": 20, "num_nodes": 501},
    ),
    "degree_linear": (
        degree_linear,
        [
            {},
            {"num_nodes": 1, "degrees": 1, "channels": 1, "channels_out": 1},
            {"num_nodes": 5, "degrees": 1, "channels": 3, "channels_out": 17},
            {"num_nodes": 0, "degrees": 2, "channels": 3, "channels_out": 4},
            {"num_nodes": 40, "degrees": 4, "channels": 33, "channels_out": 3},
            {"num_nodes": 2, "degrees": 7, "channels": 17, "channels_out": 33},
        ],
        {"num_nodes": 701, "degrees": 4, "channels": 33, "channels_out": 20},
    ),
    "component_linear": (
        component_linear,
        [
            {},
            {"rows": 1, "components": 1, "channels": 1},
            {"rows": 17, "components": 9, "channels": 64},
            {"rows": 9, "components": 17, "channels": 33},
            {"rows": 32, "components": 16, "channels": 7},
            {"rows": 13, "components": 4, "channels": 129},
            {"num_nodes": 0},
            {"num_nodes": 1},
        ],
        {"rows": 17, "components": 9, "channels": 33, "num_nodes": 500},
    ),
    **{
        make.__name__: (
            make,
            [
                {},
                *({"degrees": degrees, "num_nodes": 1, "channels": 1} for degrees in (1, 2, 3, 6)),
                *({"degrees": degrees, "num_nodes": 5, "channels": 7} for degrees in (1, 2, 3, 6)),
                *({"degrees": degrees, "num_nodes": 20, "channels": 64} for degrees in (1, 4, 6)),
                {"degrees": 3, "num_nodes": 0, "channels": 17},
                {"degrees": 1, "num_nodes": 0, "channels": 17},
            ],
            {"num_nodes": 1501, "channels": 64},
        )
        for make in (gate, gate_with_scalars)
    },
}
CASES = [(name, shape) for name, (_, shapes, _) in OPERATORS.items() for shape in shapes]


def make(name: str, **shape: Any) -> Problem:
    """A problem of an operator."""
    return OPERATORS[name][0](**shape)


def check(problem: Problem, device: str = "cpu", factor: float = 1.0) -> None:
    """Values and derivatives of an operator in both types against the reference in float64.

    Number by number where a bound is derived, else by the largest number.
    """
    assert problem.dtype == torch.float64
    if problem.operator in BOUNDED:
        check_bounds(problem, device)
        return
    expected = derivatives(problem, "reference")
    order = ORDERS.get(problem.operator, 2)
    for dtype in DTYPES:
        rounded = problem.of_type(dtype)
        found = derivatives(rounded.to(device))
        inputs = [x.dtype for x in rounded.variables]
        values = len(found) - order * len(inputs)
        assert [x.dtype for x in found] == [dtype] * values + order * inputs
        assert all(x.device.type == device for x in found)
        assert_all_close(found, expected, dtype, factor)


def check_all() -> None:
    """All problems."""
    for name, shape in CASES:
        check(make(name, **shape))
