"""The operators on a GPU against the reference on the CPU. Needs a GPU and kernels built for it."""

import pytest
import torch
from cuda_problems import edges_to_gpu, require_gpu, to_gpu
from node_product_problems import SHAPES as NODE_SHAPES
from node_product_problems import make_node_problem

from tdn import ops
from tdn.ops import reference

pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("gpu")]

TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5}
SMALL = {"num_centres": 3, "num_nodes": 4, "num_edges": 6, "rank": 2, "channels": 3, "degrees": 2}
SHAPES = [
    {},
    {"rank": 1, "channels": 1, "degrees": 1},
    {"rank": 17, "channels": 64, "degrees": 3, "num_edges": 1000},
    {"rank": 17, "channels": 80, "degrees": 4},
    {"rank": 5, "channels": 31, "degrees": 5},
    {"rank": 4, "channels": 7, "degrees": 6},
    {"rank": 3, "channels": 132, "degrees": 13},
    {"rank": 6, "channels": 16, "degrees": 0},
    {"num_edges": 0},
    {"num_edges": 1},
    {"num_centres": 30, "num_nodes": 4},
    {"num_centres": 0, "num_nodes": 5, "num_edges": 0},
    {"rank": 32, "channels": 16, "num_centres": 2000, "num_nodes": 1500, "num_edges": 30000},
]


@pytest.fixture(scope="module")
def gpu(compiled) -> None:
    require_gpu()


def assert_close(found, expected, factor=1):
    assert found.shape == expected.shape
    assert found.dtype == expected.dtype
    assert found.is_cuda
    if found.numel():
        scale = expected.abs().max().clamp(min=1e-30)
        assert (found.cpu() - expected).abs().max() <= factor * TOLERANCE[found.dtype] * scale


def derivatives(function, inputs, g, edges):
    """The value, its gradients, and gradients of a random function of the gradients."""
    a = function(*inputs, edges)
    first = torch.autograd.grad(a, inputs, g, create_graph=True)
    generator = torch.Generator().manual_seed(7)
    total = a.new_zeros(())
    for x in first:
        weight = torch.randn(x.shape, generator=generator, dtype=x.dtype).to(x.device)
        total = total + (weight * x).sum()
    second = torch.autograd.grad(total, (*inputs, g), materialize_grads=True)
    return [x.detach() for x in (a, *first, *second)]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_value_and_derivatives_agree_with_reference(make_problem, shape, dtype):
    problem = make_problem(dtype=dtype, **shape)
    inputs, g = tuple(map(to_gpu, problem.inputs)), to_gpu(problem.g)
    found = derivatives(ops.cp_message, inputs, g, edges_to_gpu(problem.edges))
    expected = derivatives(reference.cp_message, problem.inputs, problem.g, problem.edges)
    for x, y in zip(found, expected, strict=True):
        assert_close(x, y)


def test_gradcheck(make_problem):
    problem = make_problem(**SMALL)
    inputs, edges = tuple(map(to_gpu, problem.inputs)), edges_to_gpu(problem.edges)

    def function(u, b, w):
        return ops.cp_message(u, b, w, edges)

    assert torch.autograd.gradcheck(function, inputs, nondet_tol=0.0)
    assert torch.autograd.gradgradcheck(function, inputs, nondet_tol=0.0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize(
    ("l_max", "degrees", "rank", "channels", "num_edges"),
    [
        (0, 1, 1, 1, 40),
        (1, 2, 6, 31, 40),
        (2, 3, 17, 64, 3000),
        (2, 1, 17, 64, 40),
        (3, 4, 32, 130, 0),
    ],
)
def test_convolutions_agree_with_reference(
    make_problem, l_max, degrees, rank, channels, num_edges, dtype
):
    edges = make_problem(num_centres=30, num_nodes=50, num_edges=num_edges).edges
    rows = (l_max + 1) ** 2
    x = torch.randn(50, rows, channels, dtype=dtype, requires_grad=True)
    vec = torch.randn(num_edges, 3, dtype=torch.float64)
    vec = (2 * vec / vec.norm(dim=1, keepdim=True).clamp(0.3)).requires_grad_()
    species = torch.randint(2, (50,))
    table = torch.randn(2, 2, 8, (channels + 15) // 16, degrees, 4, 16, dtype=dtype)
    factors = [torch.randn(rows, rank, dtype=dtype) for _ in range(3)]
    g = torch.randn(30, rows, channels, dtype=dtype)

    def run(module, edges, *tensors):
        x, vec, species, table, g, *factors = tensors
        arguments = (vec, species, table, 4.0, 0.7)
        m = module.convolution(x, *arguments, *factors, edges)
        results = [m, *torch.autograd.grad(m, (x, vec), g)]
        if table.shape[4] == l_max + 1:
            a = module.density(*arguments, channels, edges)
            results += [a, *torch.autograd.grad(a, (vec,), g)]
        return [result.detach() for result in results]

    tensors = (x, vec, species, table, g, *factors)
    found = run(ops, edges_to_gpu(edges), *map(to_gpu, tensors))
    expected = run(reference, edges, *tensors)
    for y, z in zip(found, expected, strict=True):
        # sums over ranks and channels of products of random numbers cancel
        assert_close(y, z, 20)
    for y, z in zip(found, run(ops, edges_to_gpu(edges), *map(to_gpu, tensors)), strict=True):
        assert torch.equal(y, z)


def test_sort_edges(make_problem):
    edges = make_problem().edges
    edge_index = torch.stack([edges.centre, edges.neighbour])
    for found, expected in zip(ops.sort_edges(edge_index.cuda(), 7, 9), edges, strict=True):
        assert found.is_cuda
        assert torch.equal(found.cpu(), expected)


@pytest.mark.parametrize(
    ("edge_index", "message"),
    [
        ([[1, 0], [0, 0]], "must be non-decreasing"),
        ([[0, 2], [0, 0]], r"centres must lie in 0..1, found .*2"),
        ([[-1, 0], [0, 0]], r"centres must lie in 0..1, found -1"),
        ([[0, 1], [0, 3]], r"neighbours must lie in 0..2, found .*3"),
        ([[0, 1], [-2, 0]], r"neighbours must lie in 0..2, found -2"),
        ([[0.0, 1.0], [0.0, 0.0]], "must be an int64 tensor"),
    ],
)
def test_wrong_edges_are_named(edge_index, message):
    with pytest.raises(ValueError, match=message):
        ops.sort_edges(torch.tensor(edge_index).cuda(), 2, 3)


def node_derivatives(function, inputs, g, constants, direction):
    """Value, gradients of all inputs, and those of <direction, gradient of the first input>."""
    y = function(*inputs, *constants)
    options = {"materialize_grads": True}
    first = torch.autograd.grad(y, inputs, g, create_graph=True, **options)
    second = torch.autograd.grad((direction * first[0]).sum(), (g, *inputs), **options)
    return [x.detach() for x in (y, *first, *second)]


def assert_nodes_agree(function, expected_function, inputs, g, constants=()):
    """On the GPU as the reference on the CPU, and the same bits when run again."""
    inputs = [x.detach().requires_grad_() for x in inputs]
    g = g.detach().requires_grad_()
    direction = torch.randn(inputs[0].shape, generator=torch.Generator().manual_seed(1))
    direction = direction.to(g.dtype)
    expected = node_derivatives(expected_function, inputs, g, constants, direction)
    there = [[to_gpu(x) for x in inputs], to_gpu(g), [to_gpu(x) for x in constants]]
    found = node_derivatives(function, *there, direction.cuda())
    for x, y in zip(found, expected, strict=True):
        assert_close(x, y, 10)  # sums of products of random numbers cancel
    again = node_derivatives(function, *there, direction.cuda())
    assert all(torch.equal(x, y) for x, y in zip(found, again, strict=True))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize(
    "shape",
    [
        *NODE_SHAPES,
        *({"orders": orders, "channels": 5} for orders in range(4)),
        {"l_max": 2, "rank": 17, "channels": 64, "num_nodes": 3000, "num_species": 5},
        {"l_max": 4, "rank": 62, "channels": 16, "num_nodes": 300},
        {"l_max": 4, "rank": 220, "channels": 3, "num_nodes": 30},
    ],
    ids=str,
)
def test_node_products_agree_with_reference(shape, dtype):
    (m, species, *weights), g = make_node_problem(dtype=dtype, **shape)
    weights, factors = weights[:4], weights[4:]

    def call(module):
        return lambda m, *rest: module.node_product(m, rest[4], *rest[:4], *rest[5:])

    inputs = (m, *weights)
    assert_nodes_agree(call(ops), call(reference), inputs, g, (species, *factors))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("degrees", [1, 2, 3, 4, 5, 7])
@pytest.mark.parametrize(("channels", "nodes"), [(1, 1), (7, 5), (64, 2000), (17, 0)])
def test_gates_agree_with_reference(degrees, channels, nodes, dtype):
    x, g = (torch.randn(nodes, degrees**2, channels, dtype=dtype) for _ in range(2))
    weight = torch.randn(channels, (degrees - 1) * channels, dtype=dtype) / channels**0.5
    assert_nodes_agree(
        lambda x, weight: ops.gate(x, weight, 1.7),
        lambda x, weight: reference.gate(x, weight, 1.7),
        (x, weight),
        g,
    )


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize(
    ("nodes", "degrees", "channels", "channels_out"),
    [(7, 3, 8, 8), (1, 1, 1, 1), (0, 2, 3, 4), (2000, 4, 33, 3), (2, 7, 17, 33)],
)
def test_channel_mixing_agrees_with_reference(nodes, degrees, channels, channels_out, dtype):
    x = torch.randn(nodes, degrees**2, channels, dtype=dtype)
    weight = torch.randn(degrees, channels, channels_out, dtype=dtype)
    g = torch.randn(nodes, degrees**2, channels_out, dtype=dtype)
    assert_nodes_agree(ops.degree_linear, reference.degree_linear, (x, weight), g)


def test_gradcheck_of_node_operators():
    (m, *constants), _ = make_node_problem(rank=3, channels=3, num_nodes=3)
    constants = [to_gpu(x) for x in constants]
    assert torch.autograd.gradcheck(lambda m: ops.node_product(m, *constants), to_gpu(m))
    x = torch.randn(4, 9, 3, dtype=torch.float64, device="cuda", requires_grad=True)
    weight = torch.randn(3, 6, dtype=torch.float64, device="cuda", requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, w: ops.gate(x, w, 1.7), (x, weight))


def test_wrong_nodes_are_named():
    (m, *constants), g = make_node_problem()
    constants = [to_gpu(x) for x in constants]
    with pytest.raises(ValueError, match="node_product: shapes do not fit together"):
        ops.node_product(m.detach().cuda()[:-1], *constants)
    with pytest.raises(ValueError, match="node_product: the gradient must be"):
        torch.ops.tdn.node_product_adjoint(g.cuda()[:-1], to_gpu(m), *constants, True)
    with pytest.raises(ValueError, match="gate: expected x"):
        ops.gate(torch.zeros(4, 8, 3).cuda(), torch.zeros(3, 6).cuda(), 1.0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_same_bits_every_time(make_problem, dtype):
    problem = make_problem(
        num_centres=301, num_nodes=250, num_edges=9000, rank=7, channels=20, dtype=dtype
    )
    inputs, g = tuple(map(to_gpu, problem.inputs)), to_gpu(problem.g)
    edges = edges_to_gpu(problem.edges)
    torch.use_deterministic_algorithms(True)
    try:
        results = [derivatives(ops.cp_message, inputs, g, edges) for _ in range(5)]
    finally:
        torch.use_deterministic_algorithms(False)
    for other in results[1:]:
        for x, y in zip(results[0], other, strict=True):
            assert torch.equal(x, y)


def test_non_contiguous_and_unaligned_inputs(make_problem):
    problem = make_problem(channels=64, dtype=torch.float32)
    inputs = [x.detach().cuda() for x in problem.inputs]
    edges = edges_to_gpu(problem.edges)
    expected = reference.cp_message(*problem.inputs, problem.edges)
    strided = [x.transpose(0, 2).contiguous().transpose(0, 2) for x in inputs]
    assert_close(ops.cp_message(*strided, edges), expected)
    shifted = [torch.cat([x.new_zeros(1), x.flatten()])[1:].view_as(x) for x in inputs]
    assert_close(ops.cp_message(*shifted, edges), expected)


def test_current_stream_is_used(make_problem):
    problem = make_problem(num_edges=3000, rank=17, channels=64)
    inputs, edges = [x.detach().cuda() for x in problem.inputs], edges_to_gpu(problem.edges)
    expected = ops.cp_message(*inputs, edges)
    with torch.cuda.graph(graph := torch.cuda.CUDAGraph()):  # refuses work on other streams
        found = ops.cp_message(*inputs, edges)
    graph.replay()
    torch.cuda.synchronize()
    assert torch.equal(found, expected)


def test_wrong_inputs_are_named(make_problem):
    problem = make_problem()
    u, b, w = (x.detach().cuda() for x in problem.inputs)
    edges = edges_to_gpu(problem.edges)
    with pytest.raises(ValueError, match="u must be"):
        ops.cp_message(u[:-1], b, w, edges)
    with pytest.raises(ValueError, match="edges are on cpu, b is on cuda"):
        ops.cp_message(u, b, w, problem.edges)
    with pytest.raises(RuntimeError, match="not implemented for 'Half'"):
        ops.cp_message(u.half(), b.half(), w.half(), edges)
