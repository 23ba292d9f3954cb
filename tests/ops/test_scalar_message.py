"""Messages of scalars: values and derivatives against plain PyTorch, and as factors of rank D."""

import pytest
import torch
from convolution_problems import assert_all_close, assert_close
from edge_problems import (
    SCALAR_SHAPES,
    check_scalar_message,
    derivatives,
    make_scalar_problem,
)
from threads import same_bits_on_threads

from tdn import ops
from tdn.ops import reference

pytestmark = pytest.mark.usefixtures("compiled")

SMALL = {"num_edges": 5, "num_nodes": 3, "num_centres": 3, "channels": 2, "l_max": 1}


def naive(x, harmonics, w, edges):
    """The definition, one edge and component at a time."""
    degrees = w.shape[1]
    a = torch.zeros(len(edges.centre_ptr) - 1, harmonics.shape[1], x.shape[2], dtype=x.dtype)
    for e, (i, j) in enumerate(zip(edges.centre.tolist(), edges.neighbour.tolist(), strict=True)):
        for k in range(harmonics.shape[1]):
            l = int(k**0.5) if degrees > 1 else 0
            a[i, k] += harmonics[e, k] * w[e, l] * x[j, 0]
    return a


@pytest.mark.parametrize("shape", SCALAR_SHAPES, ids=str)
def test_agrees_with_loops(shape):
    problem = make_scalar_problem(**shape)
    with torch.no_grad():
        expected = naive(*problem)
        assert_close(ops.scalar_message(*problem), expected)
        assert_close(reference.scalar_message(*problem), expected)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("shape", SCALAR_SHAPES, ids=str)
def test_value_and_derivatives_agree_with_reference(shape, dtype):
    check_scalar_message(shape, dtype)


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("l_max", [0, 2, 7])
def test_gradcheck(l_max, shared):
    x, harmonics, w, edges = make_scalar_problem(**{**SMALL, "l_max": l_max}, shared=shared)

    def function(*inputs):
        return ops.scalar_message(*inputs, edges)

    assert torch.autograd.gradcheck(function, (x, harmonics, w))
    assert torch.autograd.gradgradcheck(
        function, (x, harmonics, w), gen_non_contig_grad_outputs=True
    )


@pytest.mark.parametrize("l_max", [2, 8])
def test_third_derivatives(l_max):
    problem = make_scalar_problem(l_max=l_max)
    found = derivatives(ops.scalar_message, problem, 3)
    assert_all_close(found, derivatives(reference.scalar_message, problem, 3))


@pytest.mark.parametrize("wanted", [(0,), (1,), (2,), (0, 1), (1, 2), (0, 2)], ids=str)
def test_only_some_inputs_need_gradients(wanted):
    problem = make_scalar_problem()
    inputs = [x.detach().requires_grad_(k in wanted) for k, x in enumerate(problem[:3])]
    found = derivatives(ops.scalar_message, (*inputs, problem[3]))
    assert_all_close(found, derivatives(reference.scalar_message, (*inputs, problem[3])))


def test_gradgradcheck_of_backward():
    x, harmonics, w, edges = make_scalar_problem(**SMALL)
    g = torch.randn(3, 4, 2, dtype=torch.float64, requires_grad=True)

    def transposed(g, harmonics, w):
        return torch.ops.tdn.cp_message_transposed(g, harmonics, w, *edges)

    def gradients(g, x, harmonics, w):
        return torch.ops.tdn.cp_message_edges(g, x, harmonics, w, *edges, True, True)

    assert torch.autograd.gradcheck(transposed, (g, harmonics, w))
    assert torch.autograd.gradgradcheck(transposed, (g, harmonics, w))
    assert torch.autograd.gradcheck(gradients, (g, x, harmonics, w))
    assert torch.autograd.gradgradcheck(gradients, (g, x, harmonics, w))


def test_isolated_atoms_get_zero():
    problem = make_scalar_problem(num_centres=30, num_edges=5)
    a = ops.scalar_message(*problem)
    alone = torch.bincount(problem[3].centre, minlength=30) == 0
    assert (a[alone] == 0).all()
    (gradient,) = torch.autograd.grad(a.sum(), problem[0])
    alone = torch.bincount(problem[3].neighbour, minlength=9) == 0
    assert alone.any()
    assert (gradient[alone] == 0).all()


def test_non_contiguous_inputs():
    problem = make_scalar_problem()
    strided = [
        x.detach().transpose(0, -1).contiguous().transpose(0, -1).requires_grad_()
        for x in problem[:3]
    ]
    assert not strided[2].is_contiguous()
    found = derivatives(ops.scalar_message, (*strided, problem[3]))
    expected = derivatives(ops.scalar_message, problem)
    assert all(torch.equal(x, y) for x, y in zip(found, expected, strict=True))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("shared", [False, True])
def test_same_bits_for_any_number_of_threads(shared, dtype):
    problem = make_scalar_problem(
        3, 20, shared, num_centres=301, num_nodes=250, num_edges=9000, dtype=dtype
    )
    same_bits_on_threads(lambda: derivatives(ops.scalar_message, problem))


@pytest.mark.parametrize("shape", [{}, {"shared": True}, {"l_max": 8}], ids=str)
def test_inference_mode(shape):
    """No autograd there, which otherwise turns harmonics of many degrees into factors."""
    problem = make_scalar_problem(**shape)
    expected = reference.scalar_message(*problem).detach()
    with torch.inference_mode():
        inputs = [x.detach().clone() for x in problem[:3]]
        assert_close(ops.scalar_message(*inputs, problem[3]), expected)


@pytest.mark.parametrize("shape", [{}, {"shared": True}, {"l_max": 8}], ids=str)
def test_other_devices_run_the_same_mathematics(shape):
    problem = make_scalar_problem(**shape)
    key = torch._C.DispatchKey.CompositeExplicitAutograd
    found = torch.ops.tdn.cp_message.default._op_dk(key, *problem[:3], *problem[3])
    assert_close(found.detach(), reference.scalar_message(*problem).detach())


def test_derivatives_of_many_degrees_have_no_kernels():
    """Autograd never asks for them; who calls them by hand is told."""
    x, harmonics, w, edges = make_scalar_problem(l_max=8)
    with torch.no_grad(), pytest.raises(ValueError, match="up to 49 components, found 81"):
        g = torch.zeros(7, 81, 8, dtype=torch.float64)
        torch.ops.tdn.cp_message_adjoint(g, x, harmonics, w, *edges, True, True)


@pytest.mark.parametrize("l_max", [2, 8])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x, y, w: (x[:-1], y, w), "u must be"),
        (lambda x, y, w: (x[:, 0], y, w), "u must be"),
        (lambda x, y, w: (x.expand(-1, y.size(1), -1), y, w), "u must be"),
        (lambda x, y, w: (x[..., :-1], y, w), "u must be"),
        (lambda x, y, w: (x, y[:-1], w), "b must be"),
        (lambda x, y, w: (x, y[:, :-1], w), "harmonics"),
        (lambda x, y, w: (x, y[:, :-1], w[:, :1]), "harmonics"),
        (lambda x, y, w: (x, y, w[:, :-1]), "harmonics"),
        (lambda x, y, w: (x, y, w[:-1]), "w must be"),
        (lambda x, y, w: (x, y, w[..., 0]), "w must be"),
        (lambda x, y, w: (x, y, w.float()), "w is Float"),
        (lambda x, y, w: (x.float(), y, w), "u is Float"),
    ],
)
def test_wrong_inputs_are_named(l_max, change, message):
    *inputs, edges = make_scalar_problem(l_max=l_max)
    with pytest.raises(ValueError, match=message):
        ops.scalar_message(*change(*inputs), edges)
    with pytest.raises(ValueError, match=r"scalar_message|cp_message|must be|expected"):
        raise_of_reference(*change(*inputs), edges)


def raise_of_reference(x, harmonics, w, edges):
    """The reference refuses shapes; types it leaves to PyTorch."""
    if x.dtype == harmonics.dtype == w.dtype:
        reference.scalar_message(x, harmonics, w, edges)
    else:
        raise ValueError("expected one type")


@pytest.mark.parametrize(
    "change",
    [
        lambda e: e._replace(neighbour=e.neighbour + 5),
        lambda e: e._replace(centre=e.centre - 9),
        lambda e: e._replace(transpose=e.transpose + 1),
        lambda e: e._replace(centre_ptr=e.centre_ptr + 1),
    ],
)
def test_wrong_edges_are_refused(change):
    *inputs, edges = make_scalar_problem()
    with pytest.raises(ValueError, match="out of range"):
        ops.scalar_message(*inputs, change(edges))
