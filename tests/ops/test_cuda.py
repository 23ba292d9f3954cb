"""The operators on a GPU against the reference on the CPU. Needs a GPU and kernels built for it."""

import pytest
import torch
from cuda_problems import DEVICE, require_gpu

from tdn import ops

from .bounds import BOUNDED, ForceProblem
from .cases import CASES, OPERATORS, WRONG_EDGES, check, make
from .closeness import DTYPES, assert_close, assert_equal
from .problems import Problem, cp_message, derivatives
from .test_edge_matrix import TOLERANCE as EDGE_TOLERANCE
from .test_edge_matrix import outputs_and_gradients
from .test_edge_matrix import problem as edge_problem

pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("gpu")]

# beside those of the CPU: many atoms, ranks and channels at the limits of a block's memory
CONVOLUTIONS = [
    {"l_max": 2, "rank": 17, "channels": 64, "num_centers": 30, "num_nodes": 50, "num_edges": 3000},
    {"l_max": 2, "rank": 17, "channels": 64, "shared": True},
    {"l_max": 3, "rank": 32, "channels": 130, "num_edges": 0},
]
LARGE = {
    "cp_message": [
        {"rank": 17, "channels": 64, "degrees": 3, "num_edges": 1000},
        {"rank": 17, "channels": 80, "degrees": 4},
        {"rank": 3, "channels": 132, "degrees": 13},
        {"rank": 32, "channels": 16, "num_centers": 2000, "num_nodes": 1500, "num_edges": 30000},
    ],
    "convolution": CONVOLUTIONS,
    "density": CONVOLUTIONS,
    "node_product": [
        *({"orders": orders, "channels": 5} for orders in range(4)),
        {"l_max": 2, "rank": 17, "channels": 64, "num_nodes": 3000, "num_species": 5},
        {"l_max": 4, "rank": 62, "channels": 16, "num_nodes": 300},
        {"l_max": 4, "rank": 220, "channels": 3, "num_nodes": 30},
    ],
    "gate": [{"degrees": degrees, "channels": 64, "num_nodes": 2000} for degrees in range(1, 8)],
    "degree_linear": [{"num_nodes": 2000, "degrees": 4, "channels": 33, "channels_out": 3}],
}
GPU_CASES = [*CASES, *((name, shape) for name, shapes in LARGE.items() for shape in shapes)]
SMALL = [
    ("cp_message", {"num_centers": 3, "num_nodes": 4, "num_edges": 6, "rank": 2, "channels": 3}),
    (
        "scalar_message",
        {"l_max": 1, "channels": 2, "num_edges": 5, "num_nodes": 3, "num_centers": 3},
    ),
    ("edge_geometry", {"num_edges": 8}),
    ("radial", {"widths": [2, 3, 2], "num_edges": 4, "num_pairs": 2}),
    ("component_linear", {"rows": 3, "components": 2, "channels": 2, "num_nodes": 2}),
]


@pytest.fixture(scope="module")
def gpu(compiled) -> None:
    require_gpu()


@pytest.mark.parametrize(("name", "shape"), GPU_CASES, ids=str)
def test_derivatives_agree_with_reference(name, shape):
    """Other sums, other elementary functions: to ten times the tolerance of the CPU.

    Twice that for convolutions, whose sums over ranks and channels of random products cancel.
    """
    factor = 20 if name in ("convolution", "density") else 10
    check(make(name, **shape), DEVICE, factor)


@pytest.mark.parametrize(("name", "shape"), SMALL, ids=str)
def test_gradcheck(name, shape):
    problem = make(name, **shape).to(DEVICE)
    # gradients of the rows of scale are sums of atomic operations
    options = {"nondet_tol": 1e-12 if name == "radial" else 0.0}
    assert torch.autograd.gradcheck(problem.function(), problem.variables, **options)
    assert torch.autograd.gradgradcheck(problem.function(), problem.variables, **options)


def test_gradcheck_of_node_operators():
    for name, shape, some in (
        ("component_linear", {"rows": 3, "components": 2, "channels": 2}, ("x", "matrix")),
        ("node_product", {"rank": 3, "channels": 3, "num_nodes": 3}, ("m",)),
        ("gate", {"num_nodes": 4, "channels": 3}, ("x", "weight")),
    ):
        problem = make(name, **shape).vary(*some).to(DEVICE)
        assert torch.autograd.gradcheck(problem.function(), problem.variables)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", OPERATORS)
def test_same_bits_every_time(name, dtype):
    """With deterministic algorithms, which matrix products and sums over pairs ask for."""
    problem = make(name, dtype=dtype, **OPERATORS[name][2])
    given = ForceProblem.of(problem).map(lambda x: x.to(DEVICE))
    torch.use_deterministic_algorithms(True)
    try:
        results = [
            given.derivatives() if name in BOUNDED else derivatives(given.problem) for _ in range(4)
        ]
    finally:
        torch.use_deterministic_algorithms(False)
    for other in results[1:]:
        assert_equal(results[0], other)


@pytest.mark.parametrize("dtype", list(EDGE_TOLERANCE), ids=str)
@pytest.mark.parametrize("channels", [3, 20, 64])
@pytest.mark.parametrize("components", [1, 4, 9, 16, 25])
def test_products_with_matrices_of_edges(components, channels, dtype):
    """Values and gradients, of many edges too; to ten times the tolerance of the CPU."""
    for shape in ({}, {"num_edges": 2000, "centers": 90, "nodes": 100}, {"num_edges": 0}):
        edges, product, message = edge_problem(components, channels, dtype, **shape)
        calls = [(ops.edge_product, product), *((ops.edge_message, m) for m in message)]
        there = ops.Edges(*(x.to(DEVICE) for x in edges))
        for function, variables in calls:
            with ops.use_reference():
                expected = outputs_and_gradients(
                    lambda *v, f=function, e=edges: f(*v, e), variables
                )
            moved = [x.detach().to(DEVICE).requires_grad_() for x in variables]
            found = outputs_and_gradients(lambda *v, f=function, e=there: f(*v, e), moved)
            again = outputs_and_gradients(lambda *v, f=function, e=there: f(*v, e), moved)
            for a, b, c in zip(found, expected, again, strict=True):
                assert a.shape == b.shape and torch.equal(a, c)
                if b.numel():
                    error = (a.cpu() - b).abs().max()
                    assert error <= 10 * EDGE_TOLERANCE[dtype] * b.abs().max()


def test_derivatives_of_products_with_matrices_of_edges():
    edges, product, message = edge_problem(4, 2, num_edges=5, centers=3, nodes=3)
    edges = ops.Edges(*(x.to(DEVICE) for x in edges))
    for function, variables in [(ops.edge_product, product), (ops.edge_message, message[1])]:
        moved = [x.detach().to(DEVICE).requires_grad_() for x in variables]
        assert torch.autograd.gradcheck(lambda *v, f=function: f(*v, edges), moved)
        assert torch.autograd.gradgradcheck(lambda *v, f=function: f(*v, edges), moved)


def test_sort_edges():
    edges = cp_message().edges
    edge_index = torch.stack([edges.center, edges.neighbor]).to(DEVICE)
    for found, expected in zip(ops.sort_edges(edge_index, 7, 9), edges, strict=True):
        assert found.device.type == DEVICE
        assert torch.equal(found.cpu(), expected)


@pytest.mark.parametrize(("edge_index", "message"), WRONG_EDGES)
def test_wrong_edges_are_named(edge_index, message):
    with pytest.raises(ValueError, match=message):
        ops.sort_edges(torch.tensor(edge_index).to(DEVICE), 2, 3)


def test_non_contiguous_and_unaligned_inputs():
    problem = cp_message(channels=64, dtype=torch.float32).vary()
    expected = problem.call("reference")
    there = problem.to(DEVICE)

    def strided(x):
        return x.transpose(0, -1).contiguous().transpose(0, -1)

    def shifted(x):
        return torch.cat([x.new_zeros(1), x.flatten()])[1:].view_as(x)

    for change in (strided, shifted):
        assert_close(there.map(lambda x, f=change: f(x)).call(), expected)


def test_current_stream_is_used():
    problem = cp_message(num_edges=3000, rank=17, channels=64).vary().to(DEVICE)
    expected = problem.call()
    with torch.cuda.graph(graph := torch.cuda.CUDAGraph()):  # refuses work on other streams
        found = problem.call()
    graph.replay()
    torch.cuda.synchronize()
    assert torch.equal(found, expected)


def test_wrong_inputs_are_named():
    here = cp_message().vary()
    problem = here.to(DEVICE)
    with pytest.raises(ValueError, match="u must be"):
        problem.but(u=problem["u"][:-1]).call()
    with pytest.raises(ValueError, match="edges are on cpu, b is on cuda"):
        problem.but(edges=here.edges).call()
    with pytest.raises(RuntimeError, match="not implemented for 'Half'"):
        problem.of_type(torch.half).call()


def test_wrong_nodes_are_named():
    problem: Problem = make("node_product").vary().to(DEVICE)
    m, *constants = problem.flat
    with pytest.raises(ValueError, match="node_product: shapes do not fit together"):
        problem.but(m=m[:-1]).call()
    with pytest.raises(ValueError, match="node_product: the gradient must be"):
        torch.ops.tdn.node_product_adjoint(problem.call()[:-1], m, *constants, True)
    with pytest.raises(ValueError, match="gate: expected x"):
        ops.gate(torch.zeros(4, 8, 3).to(DEVICE), torch.zeros(3, 6).to(DEVICE), 1.0)
