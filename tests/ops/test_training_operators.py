"""Messages and node operators as a loss on forces uses them, up to second derivatives."""

import pytest
import torch
from convolution_problems import make_problem as make_convolution_problem
from node_product_problems import make_node_problem
from threads import same_bits_on_threads
from training_problems import (
    GATE_SCALE,
    OPERATORS,
    check,
    derivatives,
    gate_problem,
    linear_problem,
    message_problem,
    node_problem,
)

from tdn import ops

pytestmark = pytest.mark.usefixtures("compiled")

DTYPES = [torch.float64, torch.float32]
CASES = [(name, shape) for name, (_, shapes, _) in OPERATORS.items() for shape in shapes]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("name", "shape"), CASES, ids=str)
def test_derivatives_agree_with_reference(name, shape, dtype):
    check(OPERATORS[name][0](dtype=dtype, **shape))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", OPERATORS)
def test_same_bits_for_any_number_of_threads(name, dtype):
    make, _, large = OPERATORS[name]
    problem = make(dtype=dtype, **large)
    results = same_bits_on_threads(lambda: derivatives(problem))
    # the numbers are not just the same but right, and there is something to compare
    assert all(x.abs().max() > 0 for x in results)
    check(problem)


def variables(tensors):
    return tuple(x.detach().requires_grad_() for x in tensors)


@pytest.mark.parametrize("orders", [0, 1, 2])
def test_gradchecks_of_node_products(orders):
    problem = node_problem(l_max=1, rank=3, channels=2, num_nodes=3, orders=orders)
    inputs, g = variables(problem.inputs), variables(problem.cotangents)[0]
    species, *factors = problem.constants
    # inputs without numbers have nothing to check
    inputs = [x if x.numel() else x.detach() for x in inputs]

    def value(*inputs):
        return problem.compiled(*inputs, *problem.constants)[0]

    def of_features(m):
        return value(m, *(x.detach() for x in inputs[1:]))

    def gradient(g, m, *weights):
        arguments = (m, species, *weights, *factors)
        return torch.ops.tdn.node_product_adjoint(g, *arguments, False)[0]

    assert torch.autograd.gradcheck(value, inputs)
    assert torch.autograd.gradgradcheck(of_features, inputs[0])
    # second derivatives by weights are those of the gradient by features
    assert torch.autograd.gradcheck(gradient, (g, *inputs))


def test_gradchecks_of_channel_mixing():
    inputs = variables(linear_problem(num_nodes=3, channels=2, channels_out=3).inputs)
    assert torch.autograd.gradcheck(ops.degree_linear, inputs)
    assert torch.autograd.gradgradcheck(ops.degree_linear, inputs, gen_non_contig_grad_outputs=True)
    x, g = inputs[0], torch.randn(3, 9, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(torch.ops.tdn.degree_linear_weight, (x, g))
    assert torch.autograd.gradgradcheck(torch.ops.tdn.degree_linear_weight, (x, g))


@pytest.mark.parametrize("degrees", [1, 2, 3])
def test_gradchecks_of_gates(degrees):
    x, weight = variables(gate_problem(num_nodes=3, degrees=degrees, channels=2).inputs)
    inputs = (x, weight if weight.numel() else weight.detach())
    g = torch.randn_like(x).requires_grad_()

    def with_scalars(x, weight):
        return ops.gate_with_scalars(x, weight, GATE_SCALE)

    def gradient(g, x, weight):
        return torch.ops.tdn.gate_adjoint(g, x, weight, GATE_SCALE, False)[0]

    assert torch.autograd.gradcheck(with_scalars, inputs)
    # either result alone has a path of its own
    for which in (slice(0, 2), 0, 1):
        assert torch.autograd.gradgradcheck(
            lambda x, which=which: with_scalars(x, weight.detach())[which], x
        )
    assert torch.autograd.gradgradcheck(lambda x: ops.gate(x, weight.detach(), GATE_SCALE), x)
    assert torch.autograd.gradcheck(gradient, (g, *inputs))


@pytest.mark.parametrize("name", ["gate", "node_product"])
def test_three_derivatives_are_refused(name):
    problem = {"gate": gate_problem, "node_product": node_problem}[name]()
    x = problem.inputs[0].requires_grad_()
    arguments = (x, *problem.inputs[1:], *problem.constants)

    def first():
        value = problem.compiled(*arguments)[0]
        return torch.autograd.grad(value.sin().sum(), x, create_graph=True)[0]

    with pytest.raises(RuntimeError, match=f"{name} has two derivatives only"):
        torch.autograd.grad(first().sum(), x, create_graph=True)
    with ops.use_reference():
        (second,) = torch.autograd.grad(first().sum(), x, create_graph=True)
        torch.autograd.grad(second.sum(), x)


def test_opcheck_of_node_operators():
    tdn, opcheck = torch.ops.tdn, torch.library.opcheck
    arguments, g = make_node_problem(l_max=1, rank=3, channels=2, num_nodes=3)
    opcheck(tdn.node_product, arguments)
    constant = [x.detach() for x in arguments]
    for need in (True, False):
        # gradients of weights cannot be differentiated again
        opcheck(tdn.node_product_adjoint, (g.requires_grad_(not need), *constant, need))
        opcheck(tdn.node_product_second, (constant[0], g.detach(), *constant, need))
    x, weight = variables(linear_problem(num_nodes=3, channels=2, channels_out=3).inputs)
    opcheck(tdn.degree_linear, (x, weight))
    opcheck(tdn.degree_linear_weight, (x, torch.ones_like(x)))
    x, weight = variables(gate_problem(num_nodes=3, channels=2).inputs)
    opcheck(tdn.gate, (x, weight, GATE_SCALE))
    opcheck(tdn.gate_with_scalars, (x, weight, GATE_SCALE))
    v, w = x.detach(), weight.detach()
    for need in (True, False):
        opcheck(tdn.gate_adjoint, (v, x if not need else v, w, GATE_SCALE, need))
        opcheck(tdn.gate_second, (v, v, v, w, GATE_SCALE, need))


def test_opcheck_of_messages():
    tdn, opcheck = torch.ops.tdn, torch.library.opcheck
    problem = message_problem(rank=2, channels=3, num_nodes=4, num_edges=6)
    inputs, (g,) = variables(problem.inputs), variables(problem.cotangents)
    for needed in ((True, True), (True, False), (False, True)):
        opcheck(tdn.cp_message_adjoint, (g, *inputs, *problem.constants, *needed))
    constant = (*problem.cotangents, *problem.inputs, *problem.constants)
    u, b, w = problem.directions
    for directions in ((u, b, w), (None, b, None), (u, None, w)):
        for needed in ((True, True, True, True), (True, False, True, False)):
            opcheck(tdn.cp_message_second, (*directions, *constant, *needed))


@pytest.mark.parametrize("name", ["convolution", "density"])
def test_opcheck_of_inference(name):
    tdn, opcheck = torch.ops.tdn, torch.library.opcheck
    problem = make_convolution_problem(l_max=1, rank=3, channels=2, num_edges=9)
    arguments = [x.detach() if torch.is_tensor(x) else x for x in problem.arguments(name)]
    arguments += problem.edges
    opcheck(getattr(tdn, name), problem.arguments(name) + tuple(problem.edges))
    adjoint = getattr(tdn, f"{name}_adjoint")
    for need in ((True,), (False,)) if name == "convolution" else ((),):
        opcheck(adjoint, (problem.cotangent(name).detach(), *arguments, *need))
