"""The operators on the features of an atom: definitions, adjoint operators, mistakes."""

import math

import numpy as np
import pytest
import torch

from tdn import ops

from .cases import OPERATORS
from .closeness import DTYPES, assert_close
from .problems import GATE_SCALE, component_linear, degree_linear, gate, node_product

pytestmark = pytest.mark.usefixtures("compiled")

tdn = torch.ops.tdn


def naive_node_product(problem):
    """The definition, node by node in NumPy."""
    m, species, linear, left, right, weight, input1, input2, output = (
        x.detach().numpy() for x in problem.arguments.values()
    )
    degree = np.array([math.isqrt(k) for k in range(m.shape[1])])
    outputs = degree[: linear.shape[1] ** 2]
    y = np.zeros((len(m), len(outputs), m.shape[2]))
    for n, z in enumerate(species):
        y[n] = m[n, : len(outputs)] * linear[z][outputs]
        power = m[n]
        for o in range(len(left)):
            p, q = input1.T @ (power * left[o, z][degree]), input2.T @ (m[n] * right[o, z][degree])
            power = output @ (p * q)
            y[n] += power[: len(outputs)] * weight[o, z][outputs]
    return torch.from_numpy(y)


@pytest.mark.parametrize("kind", ["compiled", "reference", "tensor"])
def test_node_product_agrees_with_loops(kind):
    for shape in OPERATORS["node_product"][1]:
        problem = node_product(**shape)
        assert_close(problem.call(kind).detach(), naive_node_product(problem))


@pytest.mark.parametrize("orders", [0, 1, 2])
def test_gradcheck_of_the_adjoint_of_node_products(orders):
    """Second derivatives by weights are those of the gradient by features."""
    problem = node_product(l_max=1, rank=3, channels=2, num_nodes=3, orders=orders)
    # inputs without numbers have nothing to check
    m, *weights = (x if x.numel() else x.detach() for x in problem.variables)
    factors = [problem[k] for k in ("input1", "input2", "output")]
    g = torch.randn_like(problem.call()).requires_grad_()

    def gradient(g, m, *weights):
        arguments = (m, problem["species"], *weights, *factors)
        return tdn.node_product_adjoint(g, *arguments, False)[0]

    assert torch.autograd.gradcheck(gradient, (g, m, *weights))


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("m", lambda x: x[0], "expected m"),
        ("m", lambda x: x[:, :-1], "do not fit together"),
        ("m", lambda x: x[:-1], "do not fit together"),
        ("m", lambda x: x[..., :-1], "do not fit together"),
        ("species", lambda x: x.int(), "do not fit together"),
        ("species", lambda x: x + 2, "species must lie in 0..1"),
        ("species", lambda x: x - 2, "species must lie in 0..1"),
        ("linear", lambda x: x[..., :-1], "do not fit together"),
        ("linear", lambda x: x.float(), "one type"),
        ("left", lambda x: x[:1], "do not fit together"),
        ("right", lambda x: x[:, :1], "do not fit together"),
        ("weight", lambda x: x[:, :, :1], "do not fit together"),
        ("input1", lambda x: x[:-1], "do not fit together"),
        ("input2", lambda x: x[:, :-1], "do not fit together"),
        ("output", lambda x: x[:4], "do not fit together"),
    ],
)
def test_wrong_inputs_of_node_products_are_named(name, change, message):
    problem = node_product()
    with pytest.raises(ValueError, match=f"node_product: .*{message}"):
        problem.but(**{name: change(problem[name])}).call()


@pytest.mark.parametrize("name", ["input1", "input2", "output"])
def test_gradients_of_the_factors_are_refused(name):
    with pytest.raises(RuntimeError, match="node_product: factors have no derivatives"):
        node_product().vary(name).call()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_degree_linear_is_a_matrix_per_component(dtype):
    for shape in OPERATORS["degree_linear"][1]:
        problem = degree_linear(dtype=dtype, **shape)
        x, weight = (t.detach() for t in problem.variables)
        rows = [x[:, k] @ weight[math.isqrt(k)] for k in range(x.shape[1])]
        assert_close(problem.call().detach(), torch.stack(rows, 1).double(), dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("nodes", "degrees", "channels"), [(7, 3, 8), (1, 1, 1), (0, 2, 3)])
def test_degree_linear_on_other_devices(nodes, degrees, channels, dtype):
    """Batched matrix products, run here, of the weights and of transposed ones."""
    problem = degree_linear(nodes, degrees, channels, channels + 1, dtype).vary()
    transposed = torch.randn(degrees, channels + 1, channels).to(dtype).transpose(1, 2)
    for changed in (problem, problem.but(weight=transposed)):
        found = changed.call("tensor")
        assert found.is_contiguous()
        assert_close(found, changed.of_type(torch.float64).call("reference"), dtype)
    x, g = problem["x"], found
    key = torch._C.DispatchKey.CompositeExplicitAutograd
    found = tdn.degree_linear_weight.default._op_dk(key, x, g)
    rows = torch.einsum("nkc,nkd->kcd", x.double(), g.double())
    expected = [rows[l * l : (l + 1) ** 2].sum(0) for l in range(degrees)]
    assert_close(found, torch.stack(expected), dtype)


def test_gradcheck_of_the_weight_of_degree_linear():
    x = degree_linear(3, channels=2)["x"]
    g = torch.randn(3, 9, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(tdn.degree_linear_weight, (x, g))
    assert torch.autograd.gradgradcheck(tdn.degree_linear_weight, (x, g))


@pytest.mark.parametrize(
    ("shape", "weight_shape"),
    [((3, 8, 2), (3, 2, 4)), ((3, 9, 2), (3, 3, 4)), ((9, 2), (3, 2, 4)), ((3, 9, 2), (9, 2))],
)
def test_degree_linear_names_wrong_shapes(shape, weight_shape):
    with pytest.raises(ValueError, match="degree_linear: expected x"):
        ops.degree_linear(torch.zeros(shape), torch.zeros(weight_shape))


def test_component_linear_agrees_with_loops():
    problem = component_linear(5, 4, 3)
    for y, x in zip(problem.call().detach(), problem["x"].detach(), strict=True):
        assert_close(y, problem["matrix"] @ x)


def test_component_linear_has_derivatives_by_the_matrix():
    problem = component_linear(3, 2, 2, num_nodes=2).vary("x", "matrix")
    assert torch.autograd.gradcheck(ops.component_linear, problem.variables)
    assert torch.autograd.gradgradcheck(ops.component_linear, problem.variables)


def test_component_linear_of_nothing():
    x = torch.ones(3, 4, 5)
    assert ops.component_linear(x, torch.ones(0, 4)).shape == (3, 0, 5)
    assert torch.equal(ops.component_linear(x[:, :0], torch.ones(2, 0)), torch.zeros(3, 2, 5))
    assert ops.component_linear(x[..., :0], torch.ones(2, 4)).shape == (3, 2, 0)


def test_component_linear_takes_other_types():
    problem = component_linear().vary()
    half = problem.of_type(torch.bfloat16).call()
    torch.testing.assert_close(half.double(), problem.call("reference"), rtol=0.05, atol=0.1)


@pytest.mark.parametrize(
    ("x", "matrix"),
    [
        (torch.zeros(4, 5), torch.zeros(3, 4)),
        (torch.zeros(2, 4, 5), torch.zeros(3, 5)),
        (torch.zeros(2, 4, 5), torch.zeros(4)),
        (torch.zeros(2, 4, 5), torch.zeros(3, 4).double()),
    ],
)
def test_component_linear_names_wrong_inputs(x, matrix):
    with pytest.raises(ValueError, match="component_linear: expected x"):
        ops.component_linear(x, matrix)


@pytest.mark.parametrize("degrees", [1, 2, 3])
def test_gradchecks_of_gates(degrees):
    problem = gate(3, degrees, 2)
    x, weight = problem.variables
    inputs = (x, weight if weight.numel() else weight.detach())
    g = torch.randn_like(x).requires_grad_()

    def with_scalars(x, which):
        return ops.gate_with_scalars(x, weight.detach(), GATE_SCALE)[which]

    def gradient(g, x, weight):
        return tdn.gate_adjoint(g, x, weight, GATE_SCALE, False)[0]

    # either result alone has a path of its own
    for which in (slice(0, 2), 0, 1):
        assert torch.autograd.gradgradcheck(lambda x, which=which: with_scalars(x, which), x)
    # second derivatives with respect to x and weight of the gradient of x
    assert torch.autograd.gradcheck(gradient, (g, *inputs))


@pytest.mark.parametrize("shape", [(4, 8, 3), (4, 9), (4, 9, 4)])
def test_gate_names_wrong_shapes(shape):
    with pytest.raises(ValueError, match="gate: expected x"):
        ops.gate(torch.zeros(shape), torch.zeros(3, 6), 1.0)
