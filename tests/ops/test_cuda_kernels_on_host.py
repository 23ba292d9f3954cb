"""The CUDA kernels, compiled as host code, against the reference: no GPU needed.

What this shows: indices, tails, grid strides, barriers and sums of the very source that nvcc
compiles. What it cannot show is that source on a GPU; that is ``test_cuda.py``.
"""

import ctypes

import pytest
import torch
from torch import Tensor

from .cases import FEW_EDGES
from .closeness import DTYPES, assert_all_close, assert_close
from .problems import cp_message, pattern

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
    *FEW_EDGES,
    {"rank": 12, "channels": 16, "num_centers": 200, "num_nodes": 150, "num_edges": 3000},
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
        values = [b.shape[2], w.shape[2], b.shape[1], g, u, b, w, edges.center, edges.neighbor]
        values += [grad_b if need_b else None, grad_w if need_w else None]
        if self.launch("edges", b.dtype, values, [len(g), len(u), len(b)]):
            raise IndexError
        return grad_b, grad_w


@pytest.fixture
def kernels(host_kernels) -> Kernels:
    return Kernels(host_kernels)


def expected_of(problem):
    a = problem.call("reference")
    return a.detach(), *torch.autograd.grad(a, problem.variables, pattern(a))


def plain(problem):
    """u, b, w and a gradient g."""
    return (*(x.detach() for x in problem.variables), pattern(problem.call("reference").detach()))


@pytest.mark.usefixtures("grid")
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_agree_with_reference(kernels, shape, dtype):
    problem = cp_message(dtype=dtype, **shape)
    u, b, w, g = plain(problem)
    edges = problem.edges
    message, *gradients = expected_of(problem)
    assert_close(kernels.gather(u, b, w, edges.center_ptr, None, edges.neighbor), message)
    transposed = kernels.gather(g, b, w, edges.neighbor_ptr, edges.by_neighbor, edges.center)
    assert_all_close([transposed, *kernels.edges(g, u, b, w, edges)], gradients)


@pytest.mark.usefixtures("grid")
def test_missing_barriers_are_seen(host_kernels):
    """Threads of a block run in another order after every barrier."""
    numbers = torch.arange(5 * 96)
    turned = numbers.view(5, 96).flip(1).flatten()
    for barrier in (True, False):
        found = torch.empty_like(numbers)
        pointers = [ctypes.c_void_p(x.data_ptr()) for x in (numbers, found)]
        host_kernels.turn_blocks(*pointers, ctypes.c_int64(5), 96, ctypes.c_bool(barrier))
        assert torch.equal(found, turned) == barrier


@pytest.mark.parametrize("channels", [64, 20, 7])
def test_only_what_is_needed_is_written(kernels, channels):
    problem = cp_message(channels=channels)
    u, b, w, g = plain(problem)
    both = kernels.edges(g, u, b, w, problem.edges)
    only_b, untouched = kernels.edges(g, u, b, w, problem.edges, need_w=False)
    assert untouched.isnan().all()
    untouched, only_w = kernels.edges(g, u, b, w, problem.edges, need_b=False)
    assert untouched.isnan().all()
    assert torch.equal(both[0], only_b)
    assert torch.equal(both[1], only_w)


def test_rows_at_odd_addresses(kernels):
    """Contiguous rows that do not start at a multiple of 16 bytes."""
    problem = cp_message(rank=6, channels=64, dtype=torch.float32)
    tensors = plain(problem)
    shifted = [torch.cat([x.new_zeros(1), x.flatten()])[1:].view_as(x) for x in tensors]
    assert all(x.data_ptr() % 16 for x in shifted)
    edges = problem.edges
    message, _, grad_b, grad_w = expected_of(problem)
    u, b, w, g = shifted
    assert_close(kernels.gather(u, b, w, edges.center_ptr, None, edges.neighbor), message)
    found = kernels.edges(g, u, b, w, edges)
    assert_close(found[0], grad_b)
    assert_close(found[1], grad_w)


def test_indices_out_of_range_end_the_kernel(kernels):
    problem = cp_message()
    u, b, w, g = plain(problem)
    edges = problem.edges
    ptr, order = edges.neighbor_ptr, edges.by_neighbor
    for bad in [
        (ptr, order + 1, edges.center),
        (ptr, order, edges.center - 9),
        (ptr + 1, order, edges.center),
        (ptr.flip(0), order, edges.center),
    ]:
        with pytest.raises(IndexError):
            kernels.gather(g, b, w, *bad)
    with pytest.raises(IndexError):
        kernels.edges(g, u, b, w, edges._replace(neighbor=edges.neighbor + 5))
    with pytest.raises(IndexError):
        kernels.edges(g, u, b, w, edges._replace(center=edges.center - 1))
