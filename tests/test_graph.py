"""Neighbor lists against ASE's own; batching."""

import pickle

import ase
import ase.neighborlist
import numpy as np
import pytest
import torch
from structures import STRUCTURES, random_model

import tdn.graph
from tdn.graph import collate, graph_from_atoms, neighbor_list
from tdn.network.potential import Potential
from tdn.ops import sort_edges
from tdn.system.errors import TDNError


@pytest.mark.parametrize("name", list(STRUCTURES))
@pytest.mark.parametrize("r_max", [3.2, 4.0, 7.5])
def test_same_pairs_as_ase(name, r_max):
    atoms = STRUCTURES[name]()
    graph = graph_from_atoms(atoms, [1, 8], r_max)
    i, j, vectors = ase.neighborlist.neighbor_list("ijD", atoms, r_max)
    assert graph.num_edges == len(i) > 0
    ours = np.column_stack([graph.edge_index.T.numpy(), graph.edge_vec.numpy()])
    theirs = np.column_stack([i, j, vectors])
    # pairs come in any order; round so that sorting is stable
    ours = ours[np.lexsort(np.round(ours, 6).T)]
    theirs = theirs[np.lexsort(np.round(theirs, 6).T)]
    np.testing.assert_allclose(ours, theirs, atol=1e-12)


@pytest.mark.parametrize("name", list(STRUCTURES))
def test_edges_sorted_and_within_cutoff(name):
    graph = graph_from_atoms(STRUCTURES[name](), [1, 8], 4.0)
    assert (graph.edge_index[0].diff() >= 0).all()
    assert graph.edge_vec.norm(dim=1).max() < 4.0


def test_one_atom_sees_its_own_images():
    atoms = ase.Atoms("O", cell=[3.0, 3.0, 3.0], pbc=True)
    graph = graph_from_atoms(atoms, [8], 3.1)
    assert graph.num_edges == 6
    assert graph.edge_index.abs().max() == 0


def test_atoms_outside_of_the_cell():
    atoms = STRUCTURES["triclinic"]()
    moved = atoms.copy()
    moved.positions += 5 * atoms.cell.array[0] - 3 * atoms.cell.array[2]
    first, second = (graph_from_atoms(a, [1, 8], 4.0) for a in (atoms, moved))
    assert first.num_edges == second.num_edges


def test_partly_periodic_with_a_short_third_vector():
    """The vector of a direction without periodicity must not matter."""
    atoms = STRUCTURES["slab"]()
    short = atoms.copy()
    short.cell[2] = [0.0, 0.0, 0.1]
    none = atoms.copy()
    none.cell[2] = 0.0
    counts = [graph_from_atoms(a, [1, 8], 4.0).num_edges for a in (atoms, short, none)]
    assert counts[0] == counts[1] == counts[2] > 0


def test_unknown_element_is_named():
    with pytest.raises(TDNError, match=r"element C is not known.*knows H, O"):
        graph_from_atoms(ase.Atoms("CO"), [1, 8], 4.0)


def test_bad_geometry_is_refused():
    with pytest.raises(TDNError, match="NaN"):
        neighbor_list(np.full((1, 3), np.nan), np.eye(3), np.ones(3, bool), 4.0)
    with pytest.raises(TDNError, match="flat"):
        neighbor_list(np.zeros((1, 3)), np.zeros((3, 3)), np.ones(3, bool), 4.0)
    flat = np.array([[4.0, 0, 0], [8.0, 0, 0], [0, 0, 4.0]])
    with pytest.raises(TDNError, match="flat"):
        neighbor_list(np.zeros((1, 3)), flat, np.ones(3, bool), 4.0)


def test_batching_keeps_structures_apart():
    graphs = [graph_from_atoms(make(), [1, 8], 4.0) for make in STRUCTURES.values()]
    batch = collate(graphs)
    assert batch.num_graphs == len(graphs)
    assert batch.num_atoms == sum(g.num_atoms for g in graphs)
    center, neighbor = batch.edge_index
    assert torch.equal(batch.batch[center], batch.batch[neighbor])
    assert torch.equal(batch.edge_vec, torch.cat([g.edge_vec for g in graphs]))
    assert batch.atoms_per_graph.tolist() == [g.num_atoms for g in graphs]
    assert torch.allclose(batch.volume[2], torch.tensor(6.0 * 5.5 * 5.8, dtype=torch.float64))


@pytest.fixture
def sortings(monkeypatch) -> list[int]:
    """The number of edges of each call of `sort_edges`."""
    calls = []

    def counted(edge_index, *sizes):
        calls.append(edge_index.shape[1])
        return sort_edges(edge_index, *sizes)

    monkeypatch.setattr(tdn.graph, "sort_edges", counted)
    return calls


@pytest.mark.parametrize("name", ["default", "attention"])
def test_edges_are_sorted_once_per_graph(sortings, name):
    """However often a graph is evaluated, by whichever networks, also after a move."""
    graphs = [graph_from_atoms(make(), [1, 8], 4.0) for make in STRUCTURES.values()]
    potentials = [Potential(random_model(name, seed)) for seed in (1, 2)]
    for graph in (*graphs, collate(graphs)):
        sortings.clear()
        first = potentials[0](graph)
        again = potentials[0](graph.to("cpu"))
        potentials[1](graph)
        assert sortings == [graph.num_edges]
        assert torch.equal(first["forces"], again["forces"])


def test_sorted_edges_of_a_batch_and_of_a_copy():
    graphs = [graph_from_atoms(make(), [1, 8], 4.0) for make in STRUCTURES.values()]
    assert all(g.edges.center_ptr[-1] == g.num_edges for g in graphs)
    batch = collate(graphs)  # of graphs that are sorted already
    moved = batch.to("cpu")
    copies = [batch, moved, pickle.loads(pickle.dumps(batch)), pickle.loads(pickle.dumps(moved))]
    for graph in copies:
        expected = sort_edges(graph.edge_index, graph.num_atoms, graph.num_atoms)
        for found, wanted in zip(graph.edges, expected, strict=True):
            assert torch.equal(found, wanted)
            assert found.device == graph.species.device


def test_unsorted_edges_are_refused():
    graph = graph_from_atoms(STRUCTURES["cluster"](), [1, 8], 4.0)
    graph.edge_index = graph.edge_index.flip(1)
    with pytest.raises(ValueError, match="non-decreasing"):
        Potential(random_model("default"))(graph)
