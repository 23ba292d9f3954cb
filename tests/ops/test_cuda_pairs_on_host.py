"""The pair list's operators for a GPU, compiled as host code: forces from positions as on the CPU.

See ``test_cuda_kernels_on_host.py`` for what this can show.
"""

import ase
import pytest
import torch
from inference.test_inference_network import NAMES, fused, structure
from inference.test_positions import QUANTITIES, TOLERANCE, assert_same, from_positions
from structures import STRUCTURES, random_model

from tdn.graph import graph_from_atoms
from tdn.inference.network import inference_network
from tdn.inference.pair_list import pair_list
from tdn.inference.positions import PositionNetwork

from .test_exchange import loopback_library  # noqa: F401
from .test_find_pairs import DISTANCE, PLACES, check

pytestmark = pytest.mark.slow  # what it needs takes ten seconds to compile

OPERATORS = ("sums", "row_size", "project", "forward", "last", "backward", "density_ghosts", "zbl")
NO_LIMIT = 2**31 - 1


@pytest.fixture(scope="module")
def on_host(compile_torch_library):
    """Names `torch.ops.tdn_on_host`."""
    compile_torch_library("pairs_on_host.cpp")
    return torch.ops.tdn_on_host


@pytest.fixture(params=[None, 2], ids=["all at once", "some at a time"])
def limits(request, on_host):
    """A grid and parts of nodes that cover everything, or 2 blocks and 5 nodes at a time."""
    on_host.set_limits(request.param or NO_LIMIT, 5 if request.param else NO_LIMIT)
    yield
    on_host.set_limits(NO_LIMIT, 1 << 14)


@pytest.fixture
def swapped(on_host, limits, monkeypatch):
    """Call a function with the operators for a GPU in the place of those of the CPU."""

    def call(function, *arguments, **keywords):
        with monkeypatch.context() as patch:
            for name in [*(f"pair_{name}" for name in OPERATORS), "exchange_"]:
                patch.setattr(torch.ops.tdn, name, getattr(on_host, name))
            return function(*arguments, **keywords)

    return call


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_agrees_with_cpu(swapped, name, dtype):
    """Energies, forces and all virials; pairs beyond the cutoff count for nothing."""
    model = fused(name, dtype)
    network = PositionNetwork(model)
    for where in ("triclinic", "small_cell"):
        atoms = structure(where, model)
        graph = graph_from_atoms(atoms, model.atomic_numbers, model.r_max)
        pairs = pair_list(graph_from_atoms(atoms, model.atomic_numbers, model.r_max + 0.7))
        wanted = from_positions(network, pairs, dtype)
        found = swapped(from_positions, network, pairs, dtype)
        assert_same(found, wanted, model, graph, TOLERANCE[dtype])
        few = swapped(from_positions, network, pairs, dtype, per_atom=False)
        for quantity in QUANTITIES[:3]:  # other sums of the two edges of a pair
            difference = (few[quantity] - found[quantity]).abs().max()
            assert difference <= 10 * TOLERANCE[dtype] * found[quantity].abs().max(), quantity
        assert few["atom_virial"].shape == few["centroid"].shape == (0, 3, 3)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize(
    "name, changes",
    [
        ("default", {"num_channels": 64}),
        ("l3", {"num_channels": 66}),
        ("l1", {"num_channels": 1}),
        ("one_layer", {"num_channels": 7}),
    ],
)
def test_channels(swapped, name, changes, dtype):
    """The usual number, more than a pass takes, one, and odd ones: rows start at odd addresses."""
    model = inference_network(random_model(name, **changes), dtype)
    network = PositionNetwork(model)
    atoms = structure("triclinic", model)
    graph = graph_from_atoms(atoms, model.atomic_numbers, model.r_max)
    wanted = from_positions(network, pair_list(graph), dtype)
    found = swapped(from_positions, network, pair_list(graph), dtype)
    assert_same(found, wanted, model, graph, TOLERANCE[dtype])


@pytest.mark.parametrize("name", ["default", "three_layers", "one_layer"])
def test_ghosts(swapped, loopback_library, name):  # noqa: F811
    """Every second pair reaches its other atom as a ghost, whose rows come from its owner."""
    model = fused(name)
    network = PositionNetwork(model)
    atoms = structure("triclinic", model)
    graph = graph_from_atoms(atoms, model.atomic_numbers, model.r_max)
    n = len(atoms)
    positions, center, ptr, other, node, species = pair_list(graph)
    wanted = from_positions(network, (positions, center, ptr, other, node, species), torch.float64)
    center_of, neighbor = graph.edge_index
    ghost = (center_of + neighbor) % 2 == 1
    node = torch.cat([node[:n], (neighbor + n * ghost).to(torch.int32)])
    pairs = (positions, center, ptr, other, node, torch.cat([species, species]))
    loopback_library.install(list(range(n)))
    try:
        there = from_positions(network, pairs, torch.float64)
        before = len(loopback_library.calls())
        found = swapped(from_positions, network, pairs, torch.float64)
        calls = loopback_library.calls()[before:]
    finally:
        loopback_library.library.loopback_remove()
    assert_same(there, wanted, model, graph, 1e-12)
    assert_same(found, wanted, model, graph, 1e-12)
    layers = model.config.num_layers
    assert [call[0] for call in calls] == [1] * (2 * layers - 1)  # all of them forward


@pytest.mark.parametrize("where", PLACES)
def test_finds_all_pairs(on_host, limits, where):
    """In the order of the CPU."""
    found = check(on_host.find_pairs, *PLACES[where])
    wanted = torch.ops.tdn.find_pairs(*PLACES[where], DISTANCE)
    assert all(torch.equal(x, y) for x, y in zip(found, wanted, strict=True))


@pytest.mark.parametrize("takes_gpu_memory", [False, True])
def test_rows_where_the_transport_takes_them(on_host, loopback_library, takes_gpu_memory):  # noqa: F811
    """In a copy in memory of the host, unless it takes those of a GPU: then nothing is copied."""
    x = torch.randn(5, 2, 3)
    wanted = torch.cat([x[:3], x[[2, 0]]])
    address = x.data_ptr()
    loopback_library.install([2, 0])
    try:
        if takes_gpu_memory:
            loopback_library.library.loopback_take_gpu_memory()
        on_host.exchange_(x, 3)
        assert (loopback_library.library.loopback_rows() == address) == takes_gpu_memory
        with pytest.raises(ValueError, match="exchange_: x must be float32 or float64, found Long"):
            on_host.exchange_(torch.ones(5, 2, dtype=torch.int64), 3)
    finally:
        loopback_library.library.loopback_remove()
    assert torch.equal(x, wanted)
    with pytest.raises(ValueError, match="exchange_: found 2 ghost atoms, but no transport"):
        on_host.exchange_(x, 3)


def test_no_atoms_and_one(swapped):
    model = fused("default", torch.float32)
    network = PositionNetwork(model)
    for atoms in (ase.Atoms(), ase.Atoms("O")):
        graph = graph_from_atoms(atoms, model.atomic_numbers, model.r_max)
        found = swapped(from_positions, network, pair_list(graph), torch.float32)
        assert torch.equal(found["energy"], model.atomic_energies[graph.species])
        assert not found["forces"].any() and not found["virial"].any()


def test_one_broken_position(swapped):
    """Not a number does not hide."""
    model = fused("default")
    graph = graph_from_atoms(STRUCTURES["triclinic"](), model.atomic_numbers, model.r_max)
    positions, *rest = pair_list(graph)
    positions[0, 1] = torch.nan
    found = swapped(from_positions, PositionNetwork(model), (positions, *rest), torch.float64)
    assert found["energy"][0].isnan() and found["forces"][0].isnan().any()


def test_same_bits_every_time(swapped):
    model = fused("default", torch.float32)
    network = PositionNetwork(model)
    pairs = pair_list(
        graph_from_atoms(STRUCTURES["triclinic"](), model.atomic_numbers, model.r_max)
    )
    first, second = (swapped(from_positions, network, pairs, torch.float32) for _ in range(2))
    for quantity in QUANTITIES:
        assert torch.equal(first[quantity], second[quantity]), quantity


@pytest.mark.parametrize(
    "change",
    [
        lambda p: (*p[:3], p[3] + 1000, *p[4:]),
        lambda p: (*p[:4], p[4] + 100, p[5]),
        lambda p: (*p[:2], p[2] + 1, *p[3:]),
        lambda p: (p[0], p[1] - 1, *p[2:]),
        lambda p: (*p[:5], p[5] + 2),
    ],
)
def test_indices_out_of_range_end_the_kernel(swapped, change):
    model = fused("scalars")
    graph = graph_from_atoms(STRUCTURES["triclinic"](), model.atomic_numbers, model.r_max)
    with pytest.raises((IndexError, RuntimeError), match=r"pairs: list or species|out of range"):
        swapped(from_positions, PositionNetwork(model), change(pair_list(graph)), torch.float64)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_room_behind_the_list_changes_no_bit(swapped, name, dtype):
    """Further rows and pairs, which no center has: not even numbers that are none do harm."""
    model = fused(name, dtype)
    network = PositionNetwork(model)
    graph = graph_from_atoms(structure("triclinic", model), model.atomic_numbers, model.r_max + 0.7)
    positions, center, ptr, other, node, species = pair_list(graph)
    more_positions = torch.cat([positions, torch.full((7, 3), torch.nan, dtype=torch.float64)])
    more_nodes = torch.cat([node, node.new_zeros(7)])
    more_others = torch.cat([other, other.new_zeros(11)])
    roomy = (more_positions, center, ptr, more_others, more_nodes, species)
    wanted = swapped(from_positions, network, (positions, center, ptr, other, node, species), dtype)
    found = swapped(from_positions, network, roomy, dtype)
    for quantity in QUANTITIES:
        assert torch.equal(found[quantity], wanted[quantity]), quantity


def test_wrong_types_are_named(swapped):
    model = fused("scalars")
    graph = graph_from_atoms(STRUCTURES["triclinic"](), model.atomic_numbers, model.r_max)
    positions, *rest = pair_list(graph)
    with pytest.raises(ValueError, match="pair_sums: expected contiguous positions float64"):
        swapped(from_positions, PositionNetwork(model), (positions.float(), *rest), torch.float64)
