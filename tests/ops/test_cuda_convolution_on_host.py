"""The CUDA kernels of the convolutions, compiled as host code, against the reference.

See ``test_cuda_kernels_on_host.py`` for what this can show.
"""

import ctypes

import pytest
import torch

from .closeness import DTYPES, assert_close
from .problems import R_MAX, STRETCH, Problem, convolution, density, pattern
from .test_messages import edges_with

# Fewer and more channels than a pass takes (64), ranks that fill a thread's six or not, one weight
# for all degrees, more edges per node than a batch has, nodes without edges.
SHAPES = [
    {},
    {"l_max": 0, "rank": 1, "channels": 1},
    {"l_max": 1, "rank": 6, "channels": 31, "order": 1},
    {"l_max": 2, "rank": 17, "channels": 64},
    {"l_max": 3, "rank": 32, "channels": 20},
    {"l_max": 4, "rank": 62, "channels": 70, "num_edges": 12},
    {"l_max": 3, "rank": 7, "channels": 130, "num_edges": 12},
    {"l_max": 2, "rank": 5, "channels": 33, "shared": True},
    {"l_max": 11, "rank": 200, "channels": 3, "num_edges": 5},
    {"num_centers": 1, "num_nodes": 2, "num_edges": 70},
    {"num_centers": 30, "num_nodes": 40, "num_edges": 9},
    {"num_edges": 1},
    {"num_edges": 0},
    {"is_density": True},
    {"is_density": True, "l_max": 3, "channels": 70},
]


def make(is_density: bool = False, **shape) -> Problem:
    """A problem in rank space: the kernels leave the factors of features to PyTorch."""
    if is_density:
        return density(**shape)
    problem = convolution(**{"rank": 8, **shape}, rows_in=shape.get("rank", 8))
    unit = torch.eye(shape.get("rank", 8), dtype=problem.dtype)
    return problem.but(input1=unit, output=unit)


def launch(library: ctypes.CDLL, p: Problem, adjoint: bool = False, need_u: bool = True):
    """Sums; or the gradients of u and of the edge vectors."""
    edges, table, vectors = p.edges, p["table"], p["edge_vec"].detach()
    u = p["x"].detach() if p.operator == "convolution" else None
    harmonics = p["input2"] if u is not None else torch.eye(table.shape[4] ** 2).to(table.dtype)
    (components, rank), nodes, centers = (
        harmonics.shape,
        len(p["species"]),
        len(edges.center_ptr) - 1,
    )
    channels = p["num_channels"] if u is None else u.shape[2]
    s, _, intervals, _, degrees, order, _ = table.shape
    sizes = [round(components**0.5) - 1, rank, channels, centers, nodes, len(vectors), s]
    sizes += [intervals, degrees, order - 1]
    g = pattern(table.new_empty(centers, rank, channels))
    out = torch.full((nodes if adjoint else centers, rank, channels), float("nan")).to(table.dtype)
    grad_vec = torch.full_like(vectors, float("nan"))
    tensors = [vectors, p["species"], edges.center, edges.neighbor]
    tensors += [edges.neighbor_ptr, edges.by_neighbor] if adjoint else [edges.center_ptr, None]
    tensors += [table, harmonics, u, g, out if need_u else None, grad_vec if adjoint else None]
    pointers = [None if x is None else x.data_ptr() for x in tensors]
    name = "convolution" + {4: "_float", 8: "_double"}[table.dtype.itemsize]
    failed = getattr(library, name)(
        (ctypes.c_int64 * len(sizes))(*sizes),
        (ctypes.c_void_p * len(pointers))(*pointers),
        ctypes.c_double(R_MAX),
        ctypes.c_double(STRETCH),
        ctypes.c_bool(adjoint),
    )
    if failed:
        raise IndexError
    return (out, grad_vec) if adjoint else out


@pytest.mark.usefixtures("grid")
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_agree_with_reference(host_kernels, shape, dtype):
    problem = make(dtype=dtype, **shape)
    expected = problem.call("reference")
    *grad_x, grad_vec = torch.autograd.grad(expected, problem.variables, pattern(expected))
    # float32 here and in the reference; steep polynomials of high degree lose digits
    factor = (2 if dtype == torch.float32 else 1) * (20 if shape.get("l_max", 2) > 4 else 1)
    assert_close(launch(host_kernels, problem), expected.detach(), dtype, factor)
    found_x, found_vec = launch(host_kernels, problem, adjoint=True)
    assert_close(found_vec, grad_vec, dtype, factor)
    if grad_x:
        assert_close(found_x, grad_x[0], dtype, factor)
        _, again = launch(host_kernels, problem, adjoint=True, need_u=False)
        assert torch.equal(again, found_vec)


def test_beyond_the_cutoff_is_nothing(host_kernels):
    problem = make()
    far = 2 * R_MAX * torch.nn.functional.normalize(problem["edge_vec"].detach())
    problem = problem.but(edge_vec=far)
    assert (launch(host_kernels, problem) == 0).all()
    for gradient in launch(host_kernels, problem, adjoint=True):
        assert (gradient == 0).all()


@pytest.mark.parametrize(
    "change",
    [
        lambda p: {"species": p["species"] + 2},
        lambda p: {"species": p["species"] - 2},
        edges_with(neighbor=lambda x: x + 9),
        edges_with(center=lambda x: x - 7),
        edges_with(by_neighbor=lambda x: x + 60),
        edges_with(neighbor_ptr=lambda x: x + 1),
    ],
)
def test_indices_out_of_range_end_the_kernel(host_kernels, change):
    problem = make()
    with pytest.raises(IndexError):
        launch(host_kernels, problem.but(**change(problem)), adjoint=True)
