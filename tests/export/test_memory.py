"""What a step of dynamics takes from memory: nothing grows, nothing has edges times channels."""

from __future__ import annotations

import ctypes
from collections.abc import Callable

import ase
import numpy as np
import pytest
import torch
from structures import random_model
from torch.profiler import ProfilerActivity, profile

from tdn import ops
from tdn.graph import Graph, graph_from_atoms
from tdn.inference.network import InferenceNetwork, inference_network
from tdn_export.deployed import deployed_module
from tdn_export.script import script

CHANNELS, ATOMS = 64, 40
ROW = CHANNELS * 4  # bytes of the channels of one edge in float32

pytestmark = [
    # dynamics runs compiled modules as they are written
    pytest.mark.usefixtures("plain"),
    pytest.mark.skipif(
        not ops.is_compiled(), reason="the reference operators do store edges times channels"
    ),
]


def box(length: float, seed: int = 0) -> ase.Atoms:
    """Atoms anywhere in a cube (angstrom); of a few angstrom, every atom has some eighty edges."""
    places = np.random.default_rng(seed).uniform(size=(ATOMS, 3))
    numbers = [1] * (ATOMS // 2) + [8] * (ATOMS // 2)
    return ase.Atoms(numbers, scaled_positions=places, cell=[length] * 3, pbc=True)


def graph_of(atoms: ase.Atoms) -> Graph:
    return graph_from_atoms(atoms, [1, 8], 4.0)


@pytest.fixture(scope="module")
def fused() -> InferenceNetwork:
    model = random_model("default", num_channels=CHANNELS, correlation=2)
    return inference_network(model, torch.float32)


@pytest.fixture(scope="module")
def compiled(fused) -> torch.jit.ScriptModule:
    """What is in a compiled file."""
    return script(deployed_module([fused]))


def step(compiled: torch.jit.ScriptModule, graph: Graph) -> tuple[torch.Tensor, torch.Tensor]:
    """What LAMMPS calls in every step."""
    return compiled(graph.species, graph.edge_index, graph.edge_vec, graph.num_atoms)


def allocations(function: Callable[[], object]) -> list[int]:
    """Bytes that PyTorch takes (positive) and gives back (negative) during a call, in order."""
    with profile(
        activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True
    ) as profiler:
        function()
    events = profiler.profiler.kineto_results.events()
    return [event.nbytes() for event in events if event.name() == "[memory]"]


def test_nothing_of_the_size_of_edges_times_channels(compiled, fused):
    """Neither in one piece nor in all that a step takes together.

    With 80 neighbors in the place of 17 ranks, one array of edges times channels would be more
    than four times as large as the largest array of atoms, and each would add its row to every
    edge.
    """
    graphs = [graph_of(box(length)) for length in (5.0, 6.0)]
    edges = [graph.num_edges for graph in graphs]
    assert edges[0] > 60 * ATOMS and edges[0] > 1.5 * edges[1]
    taken = []
    for graph in graphs:
        step(compiled, graph)
        found = [size for size in allocations(lambda g=graph: step(compiled, g)) if size > 0]
        assert max(found) >= 17 * ATOMS * ROW, "the features of atoms in rank space are not seen"
        assert max(found) < graph.num_edges * ROW / 2
        taken.append(sum(found))
    # vectors (copies for autograd, gradients of two layers, sums) and one index per edge
    per_edge = (taken[0] - taken[1]) / (edges[0] - edges[1])
    assert 24 <= per_edge <= 6 * 24 + 8 < ROW
    # the same network in plain PyTorch is seen to store such arrays
    with ops.use_reference():
        found = allocations(lambda: evaluate_plainly(fused, graphs[1]))
    assert max(found) >= edges[1] * ROW


def evaluate_plainly(network: torch.nn.Module, graph: Graph) -> None:
    edges = ops.sort_edges(graph.edge_index, graph.num_atoms, graph.num_atoms)
    edge_vec = graph.edge_vec.detach().requires_grad_()
    energy = network(graph.species, edges, edge_vec, graph.num_atoms)
    torch.autograd.grad(energy.sum(), edge_vec)


def test_every_step_takes_and_returns_the_same(compiled):
    """From the first step on: the same sizes in the same order, and nothing is kept.

    Neighbors come and go between the steps, as in dynamics.
    """
    graphs = [graph_of(box(6.0, seed)) for seed in (0, 1)]
    assert graphs[0].num_edges != graphs[1].num_edges
    for graph in graphs:  # the executor of TorchScript looks at the first runs
        step(compiled, graph)
        step(compiled, graph)
    first = [allocations(lambda g=graph: step(compiled, g)) for graph in graphs]
    assert first[0] != first[1] and all(len(sizes) > 50 for sizes in first)
    for _ in range(2):
        for graph, sizes in zip(graphs, first, strict=True):
            found = allocations(lambda g=graph: step(compiled, g))
            assert sum(found) == 0
            assert found == sizes


class MallocInfo(ctypes.Structure):
    """``struct mallinfo2`` of glibc, for all threads."""

    _fields_ = [(name, ctypes.c_size_t) for name in ("arena", "ordblks", "smblks", "hblks")]
    _fields_ += [("hblkhd", ctypes.c_size_t), ("usmblks", ctypes.c_size_t)]
    _fields_ += [(name, ctypes.c_size_t) for name in ("fsmblks", "uordblks", "fordblks")]
    _fields_ += [("keepcost", ctypes.c_size_t)]


def bytes_in_use() -> int:
    """What this process has taken from malloc and not returned, in C++ and in PyTorch."""
    try:
        mallinfo = ctypes.CDLL(None).mallinfo2
    except AttributeError:
        pytest.skip("this C library has no mallinfo2")
    mallinfo.restype = MallocInfo
    found = mallinfo()
    return found.uordblks + found.hblkhd


def test_memory_in_use_stays(compiled):
    """A byte per atom and step, kept anywhere in C++, would be seen."""
    graphs = [graph_of(box(6.0, seed)) for seed in range(3)]
    steps = 100
    for _ in range(3):
        for graph in graphs:
            step(compiled, graph)
    before = bytes_in_use()
    for k in range(steps):
        step(compiled, graphs[k % len(graphs)])
    assert bytes_in_use() - before < steps * ATOMS
    # a step kept alive is seen
    kept = step(compiled, graphs[0])
    assert bytes_in_use() - before >= sum(x.nbytes for x in kept)
