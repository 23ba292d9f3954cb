"""The CUDA kernels of the node product and the gate, compiled as host code, against the reference.

See ``test_cuda_kernels_on_host.py`` for what this can show.
"""

import ctypes

import pytest
import torch
from torch import Tensor

from .cases import OPERATORS
from .closeness import DTYPES, assert_all_close
from .problems import GATE_SCALE, Random, gate, node_product, pattern

FORWARD, ADJOINT, SECOND = range(3)

SHAPES = [
    *OPERATORS["node_product"][1],
    *({"l_max": l_max, "rank": 4, "orders": l_max} for l_max in range(5)),  # correlation 1 to 5
    *({"orders": orders, "channels": 5} for orders in range(4)),
    *({"l_max": l_max, "l_max_out": 0, "rank": 1, "channels": 2} for l_max in range(5)),
    {"l_max": 1, "rank": 6, "channels": 3, "num_nodes": 150, "num_species": 5},  # several chunks
    {"num_nodes": 3, "num_species": 9},  # species without nodes
    {"l_max": 4, "rank": 220, "channels": 3, "num_nodes": 3},  # factors beyond shared memory
    {"l_max": 3, "rank": 5, "channels": 1, "orders": 0, "num_nodes": 1},
]


def pointers(tensors: list[Tensor | None]) -> ctypes.Array:
    values = [None if x is None else x.data_ptr() for x in tensors]
    return (ctypes.c_void_p * len(values))(*values)


def unknown(*shape: int, like: Tensor) -> Tensor:
    """Memory for a result: what is not written shows."""
    return torch.full(shape, float("nan"), dtype=like.dtype)


def function_of(library: ctypes.CDLL, name: str, dtype: torch.dtype):
    return getattr(library, name + {torch.float32: "_float", torch.float64: "_double"}[dtype])


def run_node_product(
    library: ctypes.CDLL,
    kernel: int,
    arguments: list[Tensor],
    g: Tensor | None = None,
    v: Tensor | None = None,
    need_weights: bool = True,
) -> list[Tensor]:
    """What the operators of the three kernels return."""
    m, _, linear, left, _, weight, input1 = arguments[:7]
    (nodes, components, channels), degrees_out = m.shape, linear.shape[1]
    sizes = [nodes, left.shape[2], degrees_out, input1.shape[1], *left.shape[:2], channels]
    y = unknown(nodes, degrees_out**2, channels, like=m)
    grad_m = unknown(nodes, components, channels, like=m)
    grads = [unknown(*x.shape, like=m) for x in (linear, left, left, weight)]
    wanted = grads if need_weights and kernel != FORWARD else []
    tensors = [*arguments, g, v, y if kernel == FORWARD else grad_m, y, *(wanted or [None] * 4)]
    function = function_of(library, "node_product", m.dtype)
    if function(kernel, (ctypes.c_int64 * len(sizes))(*sizes), pointers(tensors)):
        raise IndexError
    return {FORWARD: [y], ADJOINT: [grad_m, *wanted], SECOND: [y, grad_m, *wanted]}[kernel]


def node_problem(**shape):
    """Arguments, a gradient and a direction."""
    problem = node_product(**shape)
    g = pattern(problem.call("reference").detach())
    return problem, g, pattern(problem["m"].detach(), 1.0)


def plain(problem, dtype=torch.float64):
    return list(problem.of_type(dtype).vary().flat)


@pytest.mark.usefixtures("grid")
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_node_products_agree_with_reference(host_kernels, shape, dtype):
    problem, g, v = node_problem(**shape)
    g.requires_grad_()
    y = problem.call("reference")
    options = {"create_graph": True, "materialize_grads": True}
    first = torch.autograd.grad(y, problem.variables, g, **options)
    wanted = [g, *problem.variables]
    second = torch.autograd.grad((v * first[0]).sum(), wanted, materialize_grads=True)
    arguments, g, v = plain(problem, dtype), g.detach().to(dtype), v.to(dtype)

    assert_all_close(run_node_product(host_kernels, FORWARD, arguments), [y])
    assert_all_close(run_node_product(host_kernels, ADJOINT, arguments, g), first)
    assert_all_close(run_node_product(host_kernels, SECOND, arguments, g, v), second)
    # without weights: what happens to features is the same, to the last bit
    for kernel, count in ((ADJOINT, 1), (SECOND, 2)):
        few = run_node_product(host_kernels, kernel, arguments, g, v, need_weights=False)
        all_ = run_node_product(host_kernels, kernel, arguments, g, v)[:count]
        assert all(torch.equal(x, y) for x, y in zip(few, all_, strict=True))


def test_rows_at_odd_addresses(host_kernels):
    """Contiguous rows that do not start at a multiple of two numbers."""
    problem, g, v = node_problem(channels=8, dtype=torch.float32)
    arguments = plain(problem, torch.float32)
    expected = run_node_product(host_kernels, SECOND, arguments, g, v)
    arguments[0] = torch.cat([g.new_zeros(1), arguments[0].flatten()])[1:].view_as(arguments[0])
    assert arguments[0].data_ptr() % 8
    assert_all_close(run_node_product(host_kernels, SECOND, arguments, g, v), expected)
    y = problem.call("reference").detach()
    assert_all_close(run_node_product(host_kernels, FORWARD, arguments), [y])


@pytest.mark.parametrize("shift", [2, -2])
@pytest.mark.parametrize("kernel", [FORWARD, ADJOINT, SECOND])
def test_species_out_of_range_end_the_kernel(host_kernels, kernel, shift):
    problem, g, v = node_problem()
    arguments = plain(problem.but(species=problem["species"] + shift))
    with pytest.raises(IndexError):
        run_node_product(host_kernels, kernel, arguments, g, v)


def run_gate(
    library: ctypes.CDLL, kernel: int, x: Tensor, weight: Tensor, g=None, v=None
) -> list[Tensor]:
    """As ``gate/gate_cuda.cpp``: the kernel, and matrix products before and after it."""
    nodes, components, channels = x.shape
    z = x[:, 0] @ weight
    h = v[:, 0] @ weight if v is not None else None
    out, grad_g = (unknown(*x.shape, like=x) for _ in range(2))
    grad_z, grad_h = (unknown(*z.shape, like=x) for _ in range(2))
    sizes = (ctypes.c_int64 * 3)(nodes, round(components**0.5), channels)
    tensors = pointers([x, z, g, v, h, out, grad_z, grad_g, grad_h])
    function = function_of(library, "gate", x.dtype)
    assert function(kernel, sizes, ctypes.c_double(GATE_SCALE), tensors) == 0
    if kernel == FORWARD:
        return [out]
    out[:, 0] += grad_z @ weight.t()
    if kernel == ADJOINT:
        return [out, x[:, 0].t() @ grad_z]
    return [grad_g, out, x[:, 0].t() @ grad_z + v[:, 0].t() @ grad_h]


@pytest.mark.usefixtures("grid")
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("degrees", [1, 2, 3, 4, 5, 7])
@pytest.mark.parametrize(("channels", "num_nodes"), [(1, 1), (7, 5), (64, 20), (6, 3), (17, 0)])
def test_gates_agree_with_reference(host_kernels, degrees, channels, num_nodes, dtype):
    problem = gate(num_nodes, degrees, channels)
    x, weight = problem.variables
    some = Random(torch.float64, 1)
    g, v = some.variable(*x.shape), some.normal(*x.shape)
    y = problem.call("reference")
    first = torch.autograd.grad(y, [x, weight], g, create_graph=True, materialize_grads=True)
    second = torch.autograd.grad((v * first[0]).sum(), [g, x, weight], materialize_grads=True)
    inputs = [t.detach().to(dtype) for t in (x, weight, g, v)]
    assert_all_close(run_gate(host_kernels, FORWARD, *inputs[:2]), [y])
    assert_all_close(run_gate(host_kernels, ADJOINT, *inputs[:3]), first)
    assert_all_close(run_gate(host_kernels, SECOND, *inputs), second)
