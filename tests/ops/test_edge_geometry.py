"""Lengths and spherical harmonics of edges: values and two derivatives against e3nn."""

import pytest
import torch
from convolution_problems import assert_all_close, assert_close
from edge_problems import check_geometry, derivatives, geometry, make_vectors
from threads import same_bits_on_threads

from tdn import ops

pytestmark = pytest.mark.usefixtures("compiled")


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("l_max", range(12))
def test_agrees_with_e3nn(l_max, dtype):
    check_geometry(l_max, dtype)


@pytest.mark.parametrize("l_max", [0, 1, 4])
def test_gradcheck(l_max):
    vectors = make_vectors(8)
    function = geometry(l_max, torch.float64, ops)
    assert torch.autograd.gradcheck(function, vectors)
    assert torch.autograd.gradgradcheck(function, vectors)


@pytest.mark.parametrize("which", [0, 1])
def test_only_one_result_is_used(which):
    """Gradients of lengths or harmonics alone, with second derivatives."""
    vectors = (make_vectors(),)

    def one(module):
        function = geometry(3, torch.float64, module)
        return derivatives(lambda v: function(v)[which], vectors)

    assert_all_close(one(ops), one(ops.reference))


def test_adjoint_of_nothing():
    vectors = make_vectors(5)
    gradient = torch.ops.tdn.edge_geometry_adjoint(None, None, vectors, 2)
    assert (gradient == 0).all()
    (second,) = torch.autograd.grad(gradient.sum(), vectors)
    assert (second == 0).all()


def test_three_derivatives_are_refused():
    vectors = make_vectors(5)
    harmonics = ops.edge_geometry(vectors, 2, torch.float64)[1]
    (first,) = torch.autograd.grad(harmonics.sin().sum(), vectors, create_graph=True)
    with pytest.raises(RuntimeError, match="edge_geometry has two derivatives only"):
        torch.autograd.grad(first.sum(), vectors, create_graph=True)
    with ops.use_reference():
        harmonics = ops.edge_geometry(vectors, 2, torch.float64)[1]
    (first,) = torch.autograd.grad(harmonics.sin().sum(), vectors, create_graph=True)
    torch.autograd.grad(first.sum(), vectors, create_graph=True)


@pytest.mark.parametrize("count", [0, 1])
def test_few_edges(count):
    vectors = (make_vectors(count),)
    found = derivatives(geometry(3, torch.float64, ops), vectors)
    expected = derivatives(geometry(3, torch.float64, ops.reference), vectors)
    assert_all_close(found, expected)


def test_vectors_of_zero_length():
    """They have no direction: nothing that depends on it has a gradient, and nothing breaks."""
    vectors = torch.zeros(3, 3, dtype=torch.float64, requires_grad=True)
    values = derivatives(geometry(4, torch.float64, ops), (vectors,))
    assert all(torch.isfinite(x).all() for x in values)
    assert (values[0] == 0).all()
    assert (values[1][:, 0] == 1).all()
    assert (values[2] == 0).all()


def test_not_a_number_stays_one():
    vectors = torch.full((1, 3), torch.nan, dtype=torch.float64)
    r, harmonics = ops.edge_geometry(vectors, 2, torch.float64)
    assert r.isnan().all()
    assert harmonics[:, 1:].isnan().all()


def test_other_devices_run_the_same_mathematics():
    vectors = (make_vectors(),)
    key = torch._C.DispatchKey.CompositeExplicitAutograd

    def tensor(v):
        return torch.ops.tdn.edge_geometry.default._op_dk(key, v, 5, torch.float64)

    found = derivatives(tensor, vectors)
    assert_all_close(found, derivatives(geometry(5, torch.float64, ops), vectors))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_same_bits_for_any_number_of_threads(dtype):
    vectors = (make_vectors(3001),)
    same_bits_on_threads(lambda: derivatives(geometry(3, dtype, ops), vectors))


def test_non_contiguous_inputs():
    vectors = make_vectors()
    strided = vectors.detach().t().contiguous().t().requires_grad_()
    assert not strided.is_contiguous()
    function = geometry(3, torch.float32, ops)
    found, expected = derivatives(function, (strided,)), derivatives(function, (vectors,))
    assert all(torch.equal(x, y) for x, y in zip(found, expected, strict=True))


def test_inference_mode():
    with torch.inference_mode():
        vectors = make_vectors().detach().clone()
        found = ops.edge_geometry(vectors, 3, torch.float64)
    for x, y in zip(found, geometry(3, torch.float64, ops)(make_vectors()), strict=True):
        assert_close(x, y.detach())


@pytest.mark.parametrize(
    ("vectors", "l_max", "message"),
    [
        (torch.zeros(4, 2).double(), 2, "edge_vec must be float64"),
        (torch.zeros(3).double(), 2, "edge_vec must be float64"),
        (torch.zeros(4, 3), 2, "edge_vec must be float64"),
        (torch.zeros(4, 3).double(), 12, "l_max must lie in 0..11, found 12"),
        (torch.zeros(4, 3).double(), -1, "l_max must lie in 0..11, found -1"),
    ],
)
def test_wrong_inputs_are_named(vectors, l_max, message):
    with pytest.raises(ValueError, match=message):
        ops.edge_geometry(vectors, l_max, torch.float64)


def test_half_precision_is_refused():
    with pytest.raises(RuntimeError, match="not implemented for 'Half'"):
        ops.edge_geometry(make_vectors(), 2, torch.half)
