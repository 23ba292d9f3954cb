"""The CUDA kernels of the convolutions, compiled as host code, against the reference.

See ``test_cuda_kernels_on_host.py`` for what this can show.
"""

import ctypes
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from tdn import ops
from tdn.ops import reference

R_MAX, STRETCH = 5.0, 0.7
TOLERANCE = {torch.float64: 1e-12, torch.float32: 2e-5}

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
    {"num_centres": 1, "num_nodes": 2, "num_edges": 70},
    {"num_centres": 30, "num_nodes": 40, "num_edges": 9},
    {"num_edges": 1},
    {"num_edges": 0},
    {"density": True},
    {"density": True, "l_max": 3, "channels": 70},
]


@dataclass
class Convolution:
    l_max: int
    edges: ops.Edges
    species: Tensor  # [nodes]
    vec: Tensor  # [E, 3], float64
    table: Tensor  # [S, S, K, C / 16, L, order + 1, 16]
    harmonics: Tensor  # [D, R]
    u: Tensor | None  # [nodes, R, C]
    g: Tensor  # [centres, R, C]

    def sums(self) -> Tensor:
        """``sum_j (sum_l b_l,r w_l,c) u_j[r, c]``, differentiable."""
        arguments = (self.vec, self.species, self.table, R_MAX, STRETCH)
        if self.u is None:
            return reference.density(*arguments, self.g.shape[2], self.edges)
        unit = torch.eye(self.u.shape[1], dtype=self.u.dtype)
        return reference.convolution(self.u, *arguments, unit, self.harmonics, unit, self.edges)


def make(
    l_max: int = 2,
    rank: int = 8,
    channels: int = 16,
    num_centres: int = 5,
    num_nodes: int = 7,
    num_edges: int = 40,
    order: int = 4,
    shared: bool = False,
    density: bool = False,
    dtype: torch.dtype = torch.float64,
) -> Convolution:
    components = (l_max + 1) ** 2
    rank = components if density else rank
    centre = torch.randint(num_centres, (num_edges,)).sort().values
    neighbour = torch.randint(num_nodes, (num_edges,))
    degrees = 1 if shared else l_max + 1
    shape = (2, 2, 6, (channels + 15) // 16, degrees, order + 1, 16)
    return Convolution(
        l_max,
        ops.sort_edges(torch.stack([centre, neighbour]), num_centres, num_nodes),
        torch.randint(2, (num_nodes,)),
        # a tenth beyond the cutoff
        torch.nn.functional.normalize(torch.randn(num_edges, 3, dtype=torch.float64))
        * torch.empty(num_edges, 1, dtype=torch.float64).uniform_(0.8, 1.1 * R_MAX),
        torch.randn(shape, dtype=dtype),
        torch.eye(rank, dtype=dtype) if density else torch.randn(components, rank, dtype=dtype),
        None if density else torch.randn(num_nodes, rank, channels, dtype=dtype),
        torch.randn(num_centres, rank, channels, dtype=dtype),
    )


def launch(library: ctypes.CDLL, c: Convolution, adjoint: bool = False, need_u: bool = True):
    """Sums; or the gradients of u and of the edge vectors."""
    edges = c.edges
    (centres, rank, channels), nodes = c.g.shape, len(c.species)
    s, _, intervals, _, degrees, order, _ = c.table.shape
    sizes = [c.l_max, rank, channels, centres, nodes, len(c.vec), s, intervals, degrees, order - 1]
    nothing = float("nan")
    out = torch.full((nodes if adjoint else centres, rank, channels), nothing, dtype=c.g.dtype)
    grad_vec = torch.full_like(c.vec, nothing)
    tensors = [c.vec, c.species, edges.centre, edges.neighbour]
    tensors += [edges.neighbour_ptr, edges.transpose] if adjoint else [edges.centre_ptr, None]
    tensors += [c.table, c.harmonics, c.u, c.g, out if need_u else None]
    tensors += [grad_vec if adjoint else None]
    pointers = [None if x is None else x.data_ptr() for x in tensors]
    name = "convolution" + {4: "_float", 8: "_double"}[c.g.dtype.itemsize]
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


def assert_close(found, expected, tolerance):
    assert found.shape == expected.shape
    if found.numel():
        scale = expected.abs().max().clamp(min=1e-30)
        assert (found - expected).abs().max() <= tolerance * scale


@pytest.mark.usefixtures("grid")
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_agree_with_reference(host_kernels, shape, dtype):
    problem = make(dtype=dtype, **shape)
    problem.vec.requires_grad_()
    wanted = [problem.vec]
    if problem.u is not None:
        wanted.append(problem.u.requires_grad_())
    expected = problem.sums()
    gradients = torch.autograd.grad(expected, wanted, problem.g)
    problem.vec = problem.vec.detach()
    problem.u = None if problem.u is None else problem.u.detach()
    # steep polynomials of high degree lose digits
    tolerance = TOLERANCE[dtype] * (20 if problem.l_max > 4 else 1)
    assert_close(launch(host_kernels, problem), expected.detach(), tolerance)
    grad_u, grad_vec = launch(host_kernels, problem, adjoint=True)
    assert_close(grad_vec, gradients[0], tolerance)
    if problem.u is not None:
        assert_close(grad_u, gradients[1], tolerance)
        _, again = launch(host_kernels, problem, adjoint=True, need_u=False)
        assert torch.equal(again, grad_vec)


def test_beyond_the_cutoff_is_nothing(host_kernels):
    problem = make()
    problem.vec = 2 * R_MAX * torch.nn.functional.normalize(problem.vec)
    assert (launch(host_kernels, problem) == 0).all()
    for gradient in launch(host_kernels, problem, adjoint=True):
        assert (gradient == 0).all()


@pytest.mark.parametrize(
    "change",
    [
        lambda p: {"species": p.species + 2},
        lambda p: {"species": p.species - 2},
        lambda p: {"edges": p.edges._replace(neighbour=p.edges.neighbour + 7)},
        lambda p: {"edges": p.edges._replace(centre=p.edges.centre - 5)},
        lambda p: {"edges": p.edges._replace(transpose=p.edges.transpose + 40)},
        lambda p: {"edges": p.edges._replace(neighbour_ptr=p.edges.neighbour_ptr + 1)},
    ],
)
def test_indices_out_of_range_end_the_kernel(host_kernels, change):
    problem = make()
    for name, value in change(problem).items():
        setattr(problem, name, value)
    with pytest.raises(IndexError):
        launch(host_kernels, problem, adjoint=True)
