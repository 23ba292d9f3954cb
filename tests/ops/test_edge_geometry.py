"""Lengths and spherical harmonics of edges: what is special about them."""

import pytest
import torch

from tdn import ops

from .closeness import assert_all_close
from .problems import derivatives, edge_geometry

pytestmark = pytest.mark.usefixtures("compiled")


@pytest.mark.parametrize("which", [0, 1])
def test_only_one_result_is_used(which):
    """Gradients of lengths or harmonics alone, with second derivatives."""
    problem = edge_geometry(l_max=3)
    (vectors,) = problem.variables

    def one(kind):
        value = problem.call(kind)[which]
        (first,) = torch.autograd.grad(value.sin().sum(), vectors, create_graph=True)
        return value, first, *torch.autograd.grad(first.square().sum(), vectors)

    assert_all_close([x.detach() for x in one("compiled")], one("reference"))


def test_adjoint_of_nothing():
    vectors = edge_geometry(num_edges=5)["edge_vec"]
    gradient = torch.ops.tdn.edge_geometry_adjoint(None, None, vectors, 2)
    assert (gradient == 0).all()
    (second,) = torch.autograd.grad(gradient.sum(), vectors)
    assert (second == 0).all()


def test_vectors_of_zero_length():
    """They have no direction: nothing that depends on it has a gradient, and nothing breaks."""
    vectors = torch.zeros(3, 3, dtype=torch.float64, requires_grad=True)
    values = derivatives(edge_geometry(l_max=4).but(edge_vec=vectors))
    assert all(torch.isfinite(x).all() for x in values)
    assert (values[0] == 0).all()
    assert (values[1][:, 0] == 1).all()
    assert (values[2] == 0).all()


def test_not_a_number_stays_one():
    vectors = torch.full((1, 3), torch.nan, dtype=torch.float64)
    r, harmonics = ops.edge_geometry(vectors, 2, torch.float64)
    assert r.isnan().all()
    assert harmonics[:, 1:].isnan().all()


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
