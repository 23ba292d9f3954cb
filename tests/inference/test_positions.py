"""Forces from positions by the explicit adjoint are those of autograd over the edges."""

import copy
from itertools import product

import ase
import pytest
import torch
from fresh_python import run_python
from structures import STRUCTURES, TRAINED_MODEL, water_cluster

from tdn import ops
from tdn.graph import Graph, collate, graph_from_atoms
from tdn.inference.compiled_model import load_compiled
from tdn.inference.pair_list import pair_list
from tdn.inference.positions import PositionNetwork
from tdn.inference.torchscript import plain_execution
from tdn_export import export_model
from tdn_export.deployed import PositionModel, deployed_module
from tdn_export.script import script

from .test_inference_network import NAMES, fused, structure

pytestmark = pytest.mark.skipif(not ops.is_compiled(), reason="kernels only")
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5}
QUANTITIES = ("energy", "forces", "virial", "atom_virial", "centroid")


def naive(model, graph: Graph) -> dict[str, torch.Tensor]:
    """Everything from energies over edges, by autograd and sums over these."""
    n = graph.num_atoms
    edges = ops.sort_edges(graph.edge_index, n, n)
    vec = graph.edge_vec.requires_grad_()
    energy = model(graph.species, edges, vec, n)
    (gradient,) = torch.autograd.grad(energy.sum(), vec, allow_unused=True)
    gradient = torch.zeros_like(vec) if gradient is None else gradient
    center, neighbor = graph.edge_index
    zeros = torch.zeros(n, 3, dtype=torch.float64)
    outer = -vec.detach().unsqueeze(2) * gradient.unsqueeze(1)
    per_atom = torch.zeros(n, 3, 3, dtype=torch.float64)
    return {
        "energy": energy.detach(),
        "forces": zeros.index_add(0, center, gradient).index_add(0, neighbor, -gradient),
        "virial": outer.sum(0),
        "atom_virial": per_atom.index_add(0, center, outer / 2).index_add(0, neighbor, outer / 2),
        "centroid": per_atom.index_add(0, neighbor, outer),
    }


def from_positions(function, pairs, dtype, per_atom=True, workspace=None):
    workspace = torch.empty(0, dtype=dtype) if workspace is None else workspace
    with torch.no_grad():
        return dict(zip(QUANTITIES, function(*pairs, per_atom, workspace), strict=True))


def assert_same(found, wanted, model, graph, tolerance):
    """Energies without E0, relative to the largest; the rest to the largest term of its sums."""
    vec = graph.edge_vec.requires_grad_()
    edges = ops.sort_edges(graph.edge_index, graph.num_atoms, graph.num_atoms)
    energy = model(graph.species, edges, vec, graph.num_atoms)
    (gradient,) = torch.autograd.grad(energy.sum(), vec)
    offset = model.atomic_energies[graph.species]
    force = gradient.norm(dim=1).max()
    virial = (vec.norm(dim=1) * gradient.norm(dim=1)).max().detach()
    sizes = {"energy": (wanted["energy"] - offset).abs().max(), "forces": force}
    for name, values in wanted.items():
        assert found[name].shape == values.shape, name
        size = sizes.get(name, virial)
        rounding = 1e-15 * offset.abs().max() if name == "energy" else 0.0
        error = (found[name] - values).abs().max()
        assert error <= tolerance * size + rounding, (name, float(error / size))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("where", list(STRUCTURES))
@pytest.mark.parametrize("name", NAMES)
def test_equals_autograd(name, where, dtype):
    """Pairs up to 0.7 angstrom beyond the cutoff change nothing."""
    model = fused(name, dtype)
    atoms = structure(where, model)
    graph = graph_from_atoms(atoms, model.atomic_numbers, model.r_max)
    longer = graph_from_atoms(atoms, model.atomic_numbers, model.r_max + 0.7)
    assert longer.edge_index.size(1) > graph.edge_index.size(1)
    wanted, network = naive(model, graph), PositionNetwork(model)
    found = from_positions(network, pair_list(longer), dtype)
    assert_same(found, wanted, model, graph, TOLERANCE[dtype])
    few = from_positions(network, pair_list(longer), dtype, per_atom=False)
    for quantity in QUANTITIES[:3]:
        difference = (few[quantity] - found[quantity]).abs().max()
        assert difference <= 1e-14 * found[quantity].abs().max(), quantity
    assert few["atom_virial"].shape == few["centroid"].shape == (0, 3, 3)


def test_rows_of_lammps():
    """Images of atoms as rows that many pairs share, in any order, and rows that are no nodes."""
    model = fused("default")
    atoms = STRUCTURES["small_cell"]()
    graph = graph_from_atoms(atoms, model.atomic_numbers, model.r_max)
    wanted = from_positions(PositionNetwork(model), pair_list(graph), torch.float64)
    n = len(atoms)
    shifts = torch.tensor(list(product(range(-2, 3), repeat=3)), dtype=torch.float64)
    shifts = shifts @ torch.tensor(atoms.cell.array)
    positions = (graph.positions + shifts.unsqueeze(1)).flatten(0, 1)
    owner = torch.arange(n, dtype=torch.int32).repeat(len(shifts))
    home = len(shifts) // 2 * n + torch.arange(n)
    # strangers between the others, very close to them
    positions = torch.cat([positions + 0.01, positions])
    node = torch.cat([torch.full_like(owner, -1), owner])
    home = home + len(owner)
    distance = torch.cdist(positions[home], positions)
    near = (distance < model.r_max + 0.5) & (torch.arange(len(positions)) != home[:, None])
    counts = near.sum(1)
    pairs = (
        positions,
        home.to(torch.int32),
        torch.cat([torch.zeros(1, dtype=torch.int64), counts.cumsum(0)]),
        near.nonzero()[:, 1].to(torch.int32),
        node,
        graph.species,
    )
    found = from_positions(PositionNetwork(model), pairs, torch.float64)
    assert_same(found, wanted, model, graph, 1e-11)


@pytest.mark.parametrize("name", ["default", "one_layer", "three_layers", "no_gate"])
def test_scripted_and_workspace(name):
    """One workspace serves structures of any size, in any order; the script gives the same bits."""
    model = fused(name, torch.float32)
    module = deployed_module([model], positions=True)
    assert isinstance(module, PositionModel)
    scripted = script(copy.deepcopy(module))
    workspace = torch.empty(0, dtype=torch.float32)
    frames = [ase.Atoms(), ase.Atoms("O"), water_cluster(), STRUCTURES["triclinic"]() * (2, 1, 1)]
    for atoms in [*frames, *reversed(frames)]:
        graph = graph_from_atoms(atoms, model.atomic_numbers, model.r_max)
        before = pair_list(graph)
        wanted = from_positions(PositionNetwork(model), before, torch.float32)
        with plain_execution():
            found = from_positions(
                scripted.from_positions, before, torch.float32, workspace=workspace
            )
        for quantity in QUANTITIES:
            assert torch.equal(found[quantity], wanted[quantity]), quantity
        if len(atoms) == 1:
            assert found["energy"].item() == model.atomic_energies[graph.species].item()
            assert not found["forces"].any()


@pytest.mark.parametrize("name", ["default", "one_layer"])
def test_threads(name):
    """Sums of threads are added up; everything else is the same."""
    model = fused(name)
    atoms = STRUCTURES["triclinic"]() * (3, 2, 2)
    graph = graph_from_atoms(atoms, model.atomic_numbers, model.r_max)
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            results.append(from_positions(PositionNetwork(model), pair_list(graph), torch.float64))
    finally:
        torch.set_num_threads(before)
    alone, together = results
    assert torch.equal(alone["energy"], together["energy"])
    # some 5000 terms, half a last place each
    assert_same(together, alone, model, graph, 1e-12)


def test_finite_differences():
    """Forces and virial are derivatives of the energies."""
    model = fused("default")
    network = PositionNetwork(model)
    graph = graph_from_atoms(STRUCTURES["triclinic"](), model.atomic_numbers, model.r_max)
    pairs = pair_list(graph)
    found = from_positions(network, pairs, torch.float64)
    neighbor = pairs[4].long()

    def slope(move, step):
        energies = [
            from_positions(network, (pairs[0] + x * move, *pairs[1:]), torch.float64)["energy"]
            for x in (-2 * step, -step, step, 2 * step)
        ]
        far_left, left, right, far_right = (energy.sum() for energy in energies)
        return (far_left - 8 * left + 8 * right - far_right) / (12 * step)

    generator = torch.Generator().manual_seed(0)
    direction = torch.randn(graph.num_atoms, 3, generator=generator, dtype=torch.float64)
    terms = -found["forces"] * direction  # which cancel
    error = abs(slope(direction[neighbor], 1e-3) - terms.sum())
    assert error <= 1e-6 * terms.abs().sum()
    strain = torch.randn(3, 3, generator=generator, dtype=torch.float64)
    strain = strain + strain.T
    terms = -found["virial"] * strain
    assert abs(slope(pairs[0] @ strain, 1e-4) - terms.sum()) <= 1e-6 * terms.abs().sum()


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda p: (p[0].float(), *p[1:]), "positions float64"),
        (lambda p: (*p[:3], p[3] + 1000, *p[4:]), "rows of other atoms must lie in 0.."),
        (lambda p: (*p[:4], p[4] + 100, p[5]), "nodes of rows must lie in -1.."),
        (lambda p: (*p[:2], p[2].flip(0), *p[3:]), "ptr must not decrease"),
        (lambda p: (p[0], p[1] - 1, *p[2:]), "rows of centers must lie in 0.."),
    ],
)
def test_bad_lists(change, message):
    model = fused("scalars")
    graph = graph_from_atoms(water_cluster(), model.atomic_numbers, model.r_max)
    with pytest.raises((ValueError, RuntimeError), match=message):
        from_positions(PositionNetwork(model), change(pair_list(graph)), torch.float64)


def test_ghosts_need_a_transport():
    model = fused("default")
    graph = graph_from_atoms(water_cluster(), model.atomic_numbers, model.r_max)
    *pairs, species = pair_list(graph)
    with pytest.raises((ValueError, RuntimeError), match="no transport between processes"):
        ghost = torch.cat([species, species[:1]])
        from_positions(PositionNetwork(model), (*pairs, ghost), torch.float64)


@pytest.mark.parametrize("count", [1, 2])
def test_results_of_a_batch(tmp_path, count):
    """What the calculator gives, from positions: of several structures, and of a committee."""
    path = tmp_path / "model.tdn.pth"
    export_model([TRAINED_MODEL] * count if count > 1 else TRAINED_MODEL, path, dtype="float64")
    model = load_compiled(path)
    frames = [STRUCTURES["triclinic"](), ase.Atoms(), water_cluster()]
    graphs = [graph_from_atoms(atoms, model.atomic_numbers, model.r_max) for atoms in frames]
    graph = collate(graphs)
    found = model.results_from_positions(graph, members=count > 1)
    expected = model.member_results(graph)
    assert len(found) == len(expected) == count
    for a, b in zip(found, expected, strict=True):
        assert a.keys() == b.keys()
        for name, values in b.items():
            assert a[name].shape == values.shape
            assert (a[name] - values).abs().max() <= 1e-10 * values.abs().max()


@pytest.mark.slow
@pytest.mark.parametrize("capability", ["generic", "avx2", "avx512"])
def test_every_instruction_set(capability):
    """Other widths of vectors and tiles of ranks, in a process of their own."""
    if capability == torch.ops.tdn.cpu_capability():
        return  # that of all other tests
    code = """
import torch
from inference.test_positions import test_equals_autograd, test_scripted_and_workspace
print(torch.ops.tdn.cpu_capability())
for name in ("default", "l3", "one_layer", "three_layers", "three_species"):
    for dtype in (torch.float64, torch.float32):
        test_equals_autograd(name, "triclinic", dtype)
test_scripted_and_workspace("default")
"""
    if run_python(code, TDN_CPU_CAPABILITY=capability).stdout.strip() != capability:
        pytest.skip(f"this processor has no {capability}")


@pytest.mark.slow
def test_files_load_without_the_compiled_library(tmp_path):
    """They are evaluated from edges there; the other function says what it needs."""
    path = tmp_path / "model.tdn.pth"
    export_model(TRAINED_MODEL, path)
    code = f"""
import torch
from fresh_python import run_python
from structures import water_cluster
from tdn.graph import graph_from_atoms
from tdn.inference.compiled_model import load_compiled
model = load_compiled({str(path)!r})
assert not model.takes_positions
graph = graph_from_atoms(water_cluster(), model.atomic_numbers, model.r_max)
print(repr(model(graph)["energy"].item()))
try:
    model.evaluate_positions(graph)
except RuntimeError as error:
    assert "need the compiled operators" in str(error), error
else:
    raise AssertionError
"""
    model = load_compiled(path)
    assert model.takes_positions
    graph = graph_from_atoms(water_cluster(), model.atomic_numbers, model.r_max)
    found = float(run_python(code, TDN_OPS="reference").stdout)
    assert found == pytest.approx(model(graph)["energy"].item(), rel=1e-6)
