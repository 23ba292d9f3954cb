"""sort_edges, compiled and reference."""

import pytest
import torch

from tdn import ops
from tdn.ops import reference

from .cases import WRONG_EDGES

pytestmark = pytest.mark.usefixtures("compiled")


def sort_edges_tensor(edge_index, num_centers, num_nodes):
    """What other devices run."""
    key = torch._C.DispatchKey.CompositeExplicitAutograd
    operator = torch.ops.tdn.sort_edges.default
    pointers = operator._op_dk(key, edge_index, num_centers, num_nodes)
    return ops.Edges(edge_index[0], edge_index[1], *pointers)


@pytest.fixture(params=["compiled", "reference", "tensor"])
def sort_edges(request):
    functions = {"compiled": ops.sort_edges, "reference": reference.sort_edges}
    return functions.get(request.param, sort_edges_tensor)


def random_edges(num_edges, num_centers, num_nodes):
    generator = torch.Generator().manual_seed(3)
    center = torch.randint(num_centers, (num_edges,), generator=generator).sort().values
    return torch.stack([center, torch.randint(num_nodes, (num_edges,), generator=generator)])


@pytest.mark.parametrize(("num_edges", "num_centers", "num_nodes"), [(50, 7, 11), (1, 4, 2)])
def test_edges_of_each_atom(sort_edges, num_edges, num_centers, num_nodes):
    edge_index = random_edges(num_edges, num_centers, num_nodes)
    edges = sort_edges(edge_index, num_centers, num_nodes)
    assert torch.equal(edges.center, edge_index[0])
    assert torch.equal(edges.neighbor, edge_index[1])
    assert len(edges.center_ptr) == num_centers + 1
    assert len(edges.neighbor_ptr) == num_nodes + 1
    for i in range(num_centers):
        start, end = edges.center_ptr[i : i + 2].tolist()
        assert list(range(start, end)) == (edge_index[0] == i).nonzero().flatten().tolist()
    for j in range(num_nodes):
        start, end = edges.neighbor_ptr[j : j + 2].tolist()
        expected = (edge_index[1] == j).nonzero().flatten()  # ascending: the order is stable
        assert torch.equal(edges.by_neighbor[start:end], expected)


def test_no_edges(sort_edges):
    edges = sort_edges(torch.zeros(2, 0, dtype=torch.int64), 3, 0)
    assert edges.center_ptr.tolist() == [0, 0, 0, 0]
    assert edges.neighbor_ptr.tolist() == [0]
    assert edges.by_neighbor.tolist() == []


def test_non_contiguous(sort_edges):
    edge_index = random_edges(20, 4, 5)
    for x, y in zip(
        sort_edges(edge_index.T.contiguous().T, 4, 5), sort_edges(edge_index, 4, 5), strict=True
    ):
        assert torch.equal(x, y)


@pytest.mark.parametrize(("edge_index", "message"), WRONG_EDGES)
def test_wrong_edges_are_named(sort_edges, edge_index, message):
    with pytest.raises(ValueError, match=message):
        sort_edges(torch.tensor(edge_index), 2, 3)


def test_negative_sizes_are_refused(sort_edges):
    with pytest.raises(ValueError, match="must not be negative"):
        sort_edges(torch.zeros(2, 0, dtype=torch.int64), -1, 3)
