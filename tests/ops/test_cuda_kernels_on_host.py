"""The CUDA kernels, compiled as host code, against the reference: no GPU needed.

What this shows: indices, tails, grid strides and sums of the very source that nvcc compiles. What
it cannot show is that source on a GPU; that is ``test_cuda.py``.
"""

import ctypes

import pytest
import torch
from torch import Tensor

from tdn.ops import reference

TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5}

# Channels that are odd, that fill packs of 16 bytes, that need several sweeps of a group of lanes;
# ranks below, at and beside the number that a thread takes; degrees with and without a kernel of
# their own; nodes without edges, edges that do not fill a warp.
SHAPES = [
    {},
    {"rank": 1, "channels": 1, "degrees": 1},
    {"rank": 17, "channels": 64, "degrees": 3},
    {"rank": 17, "channels": 80, "degrees": 4, "num_edges": 13},
    {"rank": 5, "channels": 31, "degrees": 5},
    {"rank": 4, "channels": 7, "degrees": 6},
    {"rank": 3, "channels": 4, "degrees": 2},
    {"rank": 1, "channels": 132, "degrees": 3, "num_edges": 9},
    {"rank": 8, "channels": 2, "degrees": 2},
    {"rank": 9, "channels": 12, "degrees": 8},
    {"rank": 2, "channels": 6, "degrees": 13},
    {"rank": 6, "channels": 16, "degrees": 0},
    {"num_edges": 0},
    {"num_edges": 1},
    {"num_centres": 1, "num_nodes": 1, "num_edges": 3},
    {"num_centres": 30, "num_nodes": 4},
    {"num_centres": 3, "num_nodes": 30},
    {"num_centres": 0, "num_nodes": 5, "num_edges": 0},
    {"rank": 12, "channels": 16, "num_centres": 200, "num_nodes": 150, "num_edges": 3000},
]


class Kernels:
    """Calls of the kernels with tensors."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self.library = library

    def launch(self, name: str, dtype: torch.dtype, values: list, sizes: list[int]) -> int:
        fields = [x.data_ptr() if isinstance(x, Tensor) else x or 0 for x in values]
        function = getattr(self.library, name + {4: "_float", 8: "_double"}[dtype.itemsize])
        return function((ctypes.c_int64 * len(fields))(*fields), (ctypes.c_int64 * 3)(*sizes))

    def gather(self, x, b, w, ptr, order, source) -> Tensor:
        """Sum over the edges of each node; raises IndexError like the kernel."""
        nodes, (_, degrees, rank), channels = len(ptr) - 1, b.shape, w.shape[2]
        out = torch.full((nodes, rank, channels), float("nan"), dtype=x.dtype)
        # in the order of GatherArguments, whose fields all have 8 bytes, as those of EdgeArguments
        values = [rank, channels, degrees, x, b, w, ptr, order, source, out]
        if self.launch("gather", x.dtype, values, [nodes, len(x), len(source)]):
            raise IndexError
        return out

    def edges(self, g, u, b, w, edges, need_b=True, need_w=True) -> tuple[Tensor, Tensor]:
        """Gradients of b and w."""
        grad_b, grad_w = torch.full_like(b, float("nan")), torch.full_like(w, float("nan"))
        values = [b.shape[2], w.shape[2], b.shape[1], g, u, b, w, edges.centre, edges.neighbour]
        values += [grad_b if need_b else None, grad_w if need_w else None]
        if self.launch("edges", b.dtype, values, [len(g), len(u), len(b)]):
            raise IndexError
        return grad_b, grad_w


@pytest.fixture
def kernels(host_kernels) -> Kernels:
    return Kernels(host_kernels)


def expected_of(problem):
    a = reference.cp_message(*problem.inputs, problem.edges)
    return a.detach(), *torch.autograd.grad(a, problem.inputs, problem.g)


def plain(problem):
    return tuple(x.detach() for x in (*problem.inputs, problem.g))


def assert_close(found, expected):
    assert found.shape == expected.shape
    if found.numel():
        scale = expected.abs().max().clamp(min=1e-30)
        assert (found - expected).abs().max() <= TOLERANCE[found.dtype] * scale


@pytest.mark.usefixtures("grid")
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_agree_with_reference(kernels, make_problem, shape, dtype):
    problem = make_problem(dtype=dtype, **shape)
    u, b, w, g = plain(problem)
    edges = problem.edges
    message, grad_u, grad_b, grad_w = expected_of(problem)
    assert_close(kernels.gather(u, b, w, edges.centre_ptr, None, edges.neighbour), message)
    transposed = kernels.gather(g, b, w, edges.neighbour_ptr, edges.transpose, edges.centre)
    assert_close(transposed, grad_u)
    for found, expected in zip(kernels.edges(g, u, b, w, edges), (grad_b, grad_w), strict=True):
        assert_close(found, expected)


@pytest.mark.parametrize("channels", [64, 20, 7])
def test_only_what_is_needed_is_written(kernels, make_problem, channels):
    problem = make_problem(channels=channels)
    u, b, w, g = plain(problem)
    both = kernels.edges(g, u, b, w, problem.edges)
    only_b, untouched = kernels.edges(g, u, b, w, problem.edges, need_w=False)
    assert untouched.isnan().all()
    untouched, only_w = kernels.edges(g, u, b, w, problem.edges, need_b=False)
    assert untouched.isnan().all()
    assert torch.equal(both[0], only_b)
    assert torch.equal(both[1], only_w)


def test_rows_at_odd_addresses(kernels, make_problem):
    """Contiguous rows that do not start at a multiple of 16 bytes."""
    problem = make_problem(rank=6, channels=64, dtype=torch.float32)
    tensors = plain(problem)
    shifted = [torch.cat([x.new_zeros(1), x.flatten()])[1:].view_as(x) for x in tensors]
    assert all(x.data_ptr() % 16 for x in shifted)
    edges = problem.edges
    message, _, grad_b, grad_w = expected_of(problem)
    u, b, w, g = shifted
    assert_close(kernels.gather(u, b, w, edges.centre_ptr, None, edges.neighbour), message)
    found = kernels.edges(g, u, b, w, edges)
    assert_close(found[0], grad_b)
    assert_close(found[1], grad_w)


def test_indices_out_of_range_end_the_kernel(kernels, make_problem):
    problem = make_problem()
    u, b, w, g = plain(problem)
    edges = problem.edges
    ptr, order = edges.neighbour_ptr, edges.transpose
    for bad in [
        (ptr, order + 1, edges.centre),
        (ptr, order, edges.centre - 9),
        (ptr + 1, order, edges.centre),
        (ptr.flip(0), order, edges.centre),
    ]:
        with pytest.raises(IndexError):
            kernels.gather(g, b, w, *bad)
    with pytest.raises(IndexError):
        kernels.edges(g, u, b, w, edges._replace(neighbour=edges.neighbour + 5))
    with pytest.raises(IndexError):
        kernels.edges(g, u, b, w, edges._replace(centre=edges.centre - 1))
