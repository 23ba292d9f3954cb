"""Messages with factors and of scalars: definition, operators of their derivatives, mistakes."""

import itertools
import math

import pytest
import torch
from threads import same_bits_on_threads

from tdn import ops
from tdn.ops import reference

from .cases import OPERATORS, make
from .closeness import DTYPES, assert_all_close, assert_close, assert_equal
from .problems import Problem, Random, pattern, scalar_message

pytestmark = pytest.mark.usefixtures("compiled")

SMALL = {"num_centers": 3, "num_nodes": 4, "num_edges": 6, "channels": 3}
KINDS = ["cp_message", "scalar_message"]
tdn = torch.ops.tdn


def naive(u, b, w, edges):
    """The definition, edge by edge and component by component; harmonics [E, D] are factors."""
    u, b, w = (x.detach() for x in (u, b, w))
    if b.dim() == 2:
        rows = [math.isqrt(k) if w.shape[1] > 1 else 0 for k in range(b.shape[1])]
        coupling = b.unsqueeze(2) * w[:, rows]
    else:
        coupling = sum(b[:, l, :, None] * w[:, l, None] for l in range(b.shape[1]))
        coupling = coupling + u.new_zeros(len(b), u.shape[1], u.shape[2])
    a = u.new_zeros(len(edges.center_ptr) - 1, *coupling.shape[1:])
    for e, (i, j) in enumerate(zip(edges.center.tolist(), edges.neighbor.tolist(), strict=True)):
        a[i] += coupling[e] * u[j]
    return a


@pytest.mark.parametrize("name", KINDS)
def test_agrees_with_loops(name):
    for shape in OPERATORS[name][1]:
        if shape.get("num_edges", 0) <= 300:
            problem = make(name, **shape)
            expected = naive(*problem.arguments.values())
            assert_close(problem.call(), expected)
            assert_close(problem.call("reference"), expected)


class Form:
    """F(g, u, b, w), of which all operators here are derivatives; g, u, b, w in `inputs`."""

    def __init__(self, problem: Problem) -> None:
        self.edges = problem.edges
        value = problem.call("reference")
        some = Random(problem.dtype, 5)
        self.inputs = [some.normal(*value.shape), *(x.detach() for x in problem.variables)]
        self.directions = [some.normal(*x.shape) for x in self.inputs[1:]]

    def __call__(self, g, u, b, w):
        return (g * reference.cp_message(u, b, w, self.edges)).sum()

    @property
    def variables(self):
        return [x.detach().requires_grad_() for x in self.inputs]

    def doubled(self):
        return [x.double().requires_grad_() for x in self.inputs]

    def adjoint(self, need_b=True, need_w=True):
        return tdn.cp_message_adjoint(*self.inputs, *self.edges, need_b, need_w)

    def second(self, directions, needed=(True,) * 4):
        return tdn.cp_message_second(*directions, *self.inputs, *self.edges, *needed)


def forms(dtype=torch.float64):
    """Of all problems for which there are kernels."""
    for name in KINDS:
        for shape in OPERATORS[name][1]:
            if shape.get("l_max", 0) <= 6 and shape.get("num_edges", 0) <= 300:
                yield Form(make(name, dtype=dtype, **shape))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_adjoint_is_the_gradient(dtype):
    for form in forms(dtype):
        found = form.adjoint()
        g, *inputs = form.doubled()
        expected = torch.autograd.grad(form(g, *inputs), inputs)
        assert all(x.dtype == dtype for x in found)
        assert_all_close(found, expected, dtype)
        for need_b, need_w in [(True, False), (False, True), (False, False)]:
            some = form.adjoint(need_b, need_w)
            for x, y, needed in zip(some, found, (True, need_b, need_w), strict=True):
                assert x.shape == (y.shape if needed else (0,))
                assert not needed or torch.equal(x, y)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_second_is_the_derivative_along_directions(dtype):
    """Every combination of directions that are there."""
    for form in forms(dtype):
        for some in itertools.product([False, True], repeat=3):
            given = [x if there else None for x, there in zip(form.directions, some, strict=True)]
            g, *inputs = form.doubled()
            along = sum(
                form(g, *(x.double() if k == n else y for n, y in enumerate(inputs)))
                for k, x in enumerate(given)
                if x is not None
            )
            expected = (
                torch.autograd.grad(along, [g, *inputs], materialize_grads=True, allow_unused=True)
                if any(some)
                else [torch.zeros_like(x) for x in (g, *inputs)]
            )
            assert_all_close(form.second(given), expected, dtype)


def test_second_gives_what_is_needed():
    form = Form(make("cp_message"))
    everything = form.second(form.directions)
    for needed in itertools.product([False, True], repeat=4):
        found = form.second(form.directions, needed)
        for x, y, wanted in zip(found, everything, needed, strict=True):
            assert x.shape == (y.shape if wanted else (0,))
            if wanted:  # what is left out may change the order of a few dozen terms
                assert (x - y).abs().max() <= 1e-14 * y.abs().max()


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize(("need_b", "need_w"), [(True, True), (True, False), (False, True)])
def test_gradchecks_of_backward(name, need_b, need_w):
    form = Form(make(name, **SMALL, **({"l_max": 1} if name == "scalar_message" else {"rank": 2})))
    g, u, b, w = form.variables
    needed = (need_b, need_w)

    def adjoint(g, u, b, w):
        found = tdn.cp_message_adjoint(g, u, b, w, *form.edges, *needed)
        return tuple(x for x, k in zip(found, (True, *needed), strict=True) if k)

    def edges(g, u, b, w):
        both = tdn.cp_message_edges(g, u, b, w, *form.edges, *needed)
        return tuple(x for x, k in zip(both, needed, strict=True) if k)

    def transposed(g, b, w):
        return tdn.cp_message_transposed(g, b, w, *form.edges)

    for function, inputs in (
        (adjoint, (g, u, b, w)),
        (edges, (g, u, b, w)),
        *([(transposed, (g, b, w))] if all(needed) else []),
    ):
        assert torch.autograd.gradcheck(function, inputs)
        assert torch.autograd.gradgradcheck(function, inputs)


@pytest.mark.parametrize("name", KINDS)
def test_one_pass_is_the_passes_apart(name):
    """With create_graph, derivatives are put together from other operators, else from one."""
    problem = make(name)
    a = problem.call()
    g = pattern(a).requires_grad_()

    def second(create_graph):
        first = torch.autograd.grad(problem.call(), problem.variables, g, create_graph=True)
        total = sum(x.square().sum() for x in first)
        return torch.autograd.grad(total, [g, *problem.variables], create_graph=create_graph)

    assert_all_close([x.detach() for x in second(True)], second(False))


@pytest.mark.parametrize("name", KINDS)
def test_derivatives_have_the_same_bits_for_any_number_of_threads(name):
    form = Form(make(name, **OPERATORS[name][2]))
    same_bits_on_threads(lambda: [*form.adjoint(), *form.second(form.directions)])


def test_derivatives_of_many_degrees_have_no_kernels():
    """Autograd never asks for them; who calls them by hand is told."""
    with pytest.raises(ValueError, match="up to 49 components, found 81"):
        Form(scalar_message(l_max=8)).adjoint()


def edges_with(**changes):
    """A change of the edges of a problem, by functions of the old tensors."""
    return lambda p: {
        "edges": p.edges._replace(**{k: f(getattr(p.edges, k)) for k, f in changes.items()})
    }


WRONG_EDGES = [
    (edges_with(neighbor=lambda x: x + 5), "out of range"),
    (edges_with(center=lambda x: x - 9), "out of range"),
    (edges_with(by_neighbor=lambda x: x + 1), "out of range"),
    (edges_with(center_ptr=lambda x: x + 1), "out of range"),
    (edges_with(neighbor=lambda x: x.int()), "int64"),
]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: {"u": p["u"][:-1]}, "u must be"),
        (lambda p: {"u": p["u"][:, :-1]}, "u must be"),
        (lambda p: {"b": p["b"][:-1]}, "b must be"),
        (lambda p: {"b": p["b"][:, :-1]}, "w must be"),
        (lambda p: {"w": p["w"][..., :-1]}, "u must be"),
        (lambda p: {"w": p["w"].float()}, "w is Float"),
        (lambda p: {"u": p["u"].float(), "b": p["b"].float()}, "w is Double"),
        (lambda p: {"u": p["u"][0]}, "u must be"),
        *WRONG_EDGES,
    ],
)
def test_wrong_inputs_are_named(change, message):
    problem = make("cp_message")
    with pytest.raises(ValueError, match=message):
        problem.but(**change(problem)).call()


@pytest.mark.parametrize("l_max", [2, 8])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: {"x": p["x"][:-1]}, "u must be"),
        (lambda p: {"x": p["x"][:, 0]}, "u must be"),
        (lambda p: {"x": p["x"].expand(-1, p["harmonics"].size(1), -1)}, "u must be"),
        (lambda p: {"x": p["x"][..., :-1]}, "u must be"),
        (lambda p: {"harmonics": p["harmonics"][:-1]}, "b must be"),
        (lambda p: {"harmonics": p["harmonics"][:, :-1]}, "harmonics"),
        (lambda p: {"harmonics": p["harmonics"][:, :-1], "w": p["w"][:, :1]}, "harmonics"),
        (lambda p: {"w": p["w"][:, :-1]}, "harmonics"),
        (lambda p: {"w": p["w"][:-1]}, "w must be"),
        (lambda p: {"w": p["w"][..., 0]}, "w must be"),
        (lambda p: {"w": p["w"].float()}, "w is Float"),
        (lambda p: {"x": p["x"].float()}, "u is Float"),
        *WRONG_EDGES,
    ],
)
def test_wrong_inputs_of_scalars_are_named(l_max, change, message):
    problem = scalar_message(l_max=l_max)
    problem = problem.but(**change(problem))
    with pytest.raises(ValueError, match=message):
        problem.call()
    # the reference leaves types and indices to PyTorch
    if "is Float" not in message and "edges" not in change(problem):
        with pytest.raises(ValueError, match=r"scalar_message: expected x"):
            problem.call("reference")


def test_wrong_inputs_of_derivatives_are_named():
    form = Form(make("cp_message"))
    g, u, b, w = form.inputs
    for bad, message in (
        ((g[:-1], u, b, w), "the gradient must be"),
        ((g.float(), u, b, w), "the gradient is Float"),
        ((g, u[:, :-1], b, w), "u must be"),
        ((g, u, b[:-1], w), "b must be"),
        ((g, u, b, w[:, :-1]), "w must be"),
    ):
        form.inputs = bad
        with pytest.raises(ValueError, match=message):
            form.adjoint()
        with pytest.raises(ValueError, match=message):
            form.second((None, None, None))
    form.inputs = (g, u, b, w)
    for v in ((u[:-1], None, None), (None, b[:-1], None), (None, None, w[:-1])):
        with pytest.raises(ValueError, match="must be"):
            form.second(v)


def test_use_reference():
    problem = make("cp_message")
    compiled = problem.call()
    with ops.use_reference():
        plain = problem.call()
    assert plain.grad_fn.name().startswith("IndexAdd")
    assert not compiled.grad_fn.name().startswith("IndexAdd")
    assert_equal([plain], [problem.call("reference")])
    torch.testing.assert_close(plain, compiled, rtol=1e-12, atol=1e-12)
