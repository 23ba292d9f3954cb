"""All gradients of a message in one pass, and their derivatives in one pass."""

import itertools

import pytest
import torch
from convolution_problems import assert_all_close
from threads import same_bits_on_threads

from tdn import ops
from tdn.ops import reference

pytestmark = pytest.mark.usefixtures("compiled")

SMALL = {"num_centres": 3, "num_nodes": 4, "num_edges": 6, "rank": 2, "channels": 3, "degrees": 2}
SHAPES = [
    {},
    {"rank": 1, "channels": 1, "degrees": 1},
    {"rank": 17, "channels": 64, "degrees": 3},
    {"rank": 5, "channels": 31, "degrees": 4},
    {"rank": 9, "channels": 47, "degrees": 7},
    {"degrees": 0},
    {"num_edges": 0},
    {"num_edges": 1},
    {"num_centres": 30, "num_nodes": 4},
    {"num_centres": 3, "num_nodes": 30},
    {"num_centres": 0, "num_nodes": 0, "num_edges": 0},
]


def form(g, u, b, w, edges):
    """F(g, u, b, w), of which everything here is a derivative."""
    return (g * reference.cp_message(u, b, w, edges)).sum()


def directions(problem):
    generator = torch.Generator().manual_seed(3)
    return [
        torch.randn(x.shape, generator=generator, dtype=torch.float64).to(x.dtype)
        for x in problem.inputs
    ]


def scalar_problem(problem):
    """The problem with harmonics [E, 9] and scalars in the place of factors."""
    generator = torch.Generator().manual_seed(5)
    options = {"generator": generator, "dtype": problem.u.dtype}
    num_centres, channels = problem.g.shape[0], problem.u.shape[2]
    problem.u = torch.randn(len(problem.u), 1, channels, **options).requires_grad_()
    problem.b = torch.randn(len(problem.b), 9, **options).requires_grad_()
    problem.w = torch.randn(len(problem.w), 3, channels, **options).requires_grad_()
    problem.g = torch.randn(num_centres, 9, channels, **options).requires_grad_()
    return problem


def problems(make_problem, dtype=torch.float64):
    for shape in SHAPES:
        yield make_problem(dtype=dtype, **shape)
        yield scalar_problem(make_problem(dtype=dtype, **shape))


def doubled(tensors):
    return [x.detach().double().requires_grad_() for x in tensors]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_adjoint_is_the_gradient(make_problem, dtype):
    for problem in problems(make_problem, dtype):
        variables = (problem.g, *problem.inputs)
        with torch.no_grad():
            found = torch.ops.tdn.cp_message_adjoint(*variables, *problem.edges, True, True)
        g, *inputs = doubled(variables)
        expected = torch.autograd.grad(form(g, *inputs, problem.edges), inputs)
        assert all(x.dtype == dtype for x in found)
        assert_all_close(found, expected, dtype)


@pytest.mark.parametrize(("need_b", "need_w"), [(True, False), (False, True), (False, False)])
def test_unneeded_gradients_are_empty(make_problem, need_b, need_w):
    for problem in problems(make_problem):
        variables = (problem.g, *problem.inputs)
        with torch.no_grad():
            tdn = torch.ops.tdn
            found = tdn.cp_message_adjoint(*variables, *problem.edges, need_b, need_w)
            expected = tdn.cp_message_adjoint(*variables, *problem.edges, True, True)
        for x, y, needed in zip(found, expected, (True, need_b, need_w), strict=True):
            assert x.shape == (y.shape if needed else (0,))
            assert not needed or torch.equal(x, y)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_second_is_the_derivative_along_directions(make_problem, dtype):
    """Every combination of directions that are there."""
    present = list(itertools.product([False, True], repeat=3))
    for problem in problems(make_problem, dtype):
        v = directions(problem)
        inputs = [x.detach() for x in (problem.g, *problem.inputs)]
        for some in present:
            given = [x if there else None for x, there in zip(v, some, strict=True)]
            found = torch.ops.tdn.cp_message_second(*given, *inputs, *problem.edges, *[True] * 4)
            g, u, b, w = doubled(inputs)
            along = torch.zeros((), dtype=torch.float64)
            for k, x in enumerate(given):
                if x is not None:
                    moved = [u, b, w]
                    moved[k] = x.double()
                    along = along + form(g, *moved, problem.edges)
            expected = (
                torch.autograd.grad(along, [g, u, b, w], materialize_grads=True, allow_unused=True)
                if any(some)
                else [torch.zeros_like(x) for x in (g, u, b, w)]
            )
            assert_all_close(found, expected, dtype)


@pytest.mark.parametrize("needed", list(itertools.product([False, True], repeat=4)), ids=str)
def test_second_gives_what_is_needed(make_problem, needed):
    problem = make_problem()
    inputs = [x.detach() for x in (problem.g, *problem.inputs)]
    arguments = (*directions(problem), *inputs, *problem.edges)
    found = torch.ops.tdn.cp_message_second(*arguments, *needed)
    everything = torch.ops.tdn.cp_message_second(*arguments, *[True] * 4)
    for x, y, wanted in zip(found, everything, needed, strict=True):
        assert x.shape == (y.shape if wanted else (0,))
        if wanted:  # what is left out may change the order of a few dozen terms
            assert (x - y).abs().max() <= 1e-14 * y.abs().max()


@pytest.mark.parametrize("scalar", [False, True])
@pytest.mark.parametrize(("need_b", "need_w"), [(True, True), (True, False), (False, True)])
def test_gradcheck(make_problem, need_b, need_w, scalar):
    problem = make_problem(**SMALL)
    if scalar:
        problem = scalar_problem(problem)

    def gradients(g, u, b, w):
        found = torch.ops.tdn.cp_message_adjoint(g, u, b, w, *problem.edges, need_b, need_w)
        return tuple(x for x, k in zip(found, (True, need_b, need_w), strict=True) if k)

    variables = (problem.g, *problem.inputs)
    assert torch.autograd.gradcheck(gradients, variables)
    assert torch.autograd.gradgradcheck(gradients, variables)


@pytest.mark.parametrize("scalar", [False, True])
def test_one_pass_is_the_passes_apart(make_problem, scalar):
    """With create_graph, derivatives are put together from other operators, else from one."""
    problem = make_problem()
    if scalar:
        problem = scalar_problem(problem)
    variables = (problem.g, *problem.inputs)

    def second(create_graph):
        a = ops.cp_message(*problem.inputs, problem.edges)
        first = torch.autograd.grad(a, problem.inputs, problem.g, create_graph=True)
        total = sum(x.square().sum() for x in first)
        return torch.autograd.grad(total, variables, create_graph=create_graph)

    assert_all_close([x.detach() for x in second(True)], second(False))


@pytest.mark.parametrize("scalar", [False, True])
def test_same_bits_for_any_number_of_threads(make_problem, scalar):
    problem = make_problem(num_centres=301, num_nodes=250, num_edges=6000, rank=7, channels=20)
    if scalar:
        problem = scalar_problem(problem)
    inputs = [x.detach() for x in (problem.g, *problem.inputs)]
    tdn = torch.ops.tdn
    same_bits_on_threads(
        lambda: [
            *tdn.cp_message_adjoint(*inputs, *problem.edges, True, True),
            *tdn.cp_message_second(*directions(problem), *inputs, *problem.edges, *[True] * 4),
        ]
    )


def test_wrong_inputs_are_named(make_problem):
    problem = make_problem()
    g, u, b, w = (x.detach() for x in (problem.g, *problem.inputs))
    tdn = torch.ops.tdn
    for bad, message in (
        ((g[:-1], u, b, w), "the gradient must be"),
        ((g.float(), u, b, w), "the gradient is Float"),
        ((g, u[:, :-1], b, w), "u must be"),
        ((g, u, b[:-1], w), "b must be"),
        ((g, u, b, w[:, :-1]), "w must be"),
    ):
        with pytest.raises(ValueError, match=message):
            tdn.cp_message_adjoint(*bad, *problem.edges, True, True)
        with pytest.raises(ValueError, match=message):
            tdn.cp_message_second(None, None, None, *bad, *problem.edges, *[True] * 4)
    for v in ((u[:-1], None, None), (None, b[:-1], None), (None, None, w[:-1])):
        with pytest.raises(ValueError, match="must be"):
            tdn.cp_message_second(*v, g, u, b, w, *problem.edges, *[True] * 4)
