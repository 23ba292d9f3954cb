"""The network rewritten for inference gives what the trained one gives."""

import copy
import dataclasses
import functools

import ase
import pytest
import torch
from fresh_python import run_python
from structures import (
    CONFIGS,
    STRUCTURES,
    TRAINED_MODEL,
    assert_forces_are_slopes,
    evaluate,
    water_cluster,
)

from tdn import ops
from tdn.graph import collate, graph_from_atoms
from tdn.inference.network import inference_network
from tdn.inference.torchscript import plain_execution
from tdn.network.base import set_dtype
from tdn.network.build import build_model
from tdn.network.checkpoint import load_model
from tdn.network.potential import Potential
from tdn_export.script import script

SMALL = {"num_channels": 5, "radial_hidden": (6,), "readout_hidden": 4}
CHANGES = {
    "default": {},
    "l3": {},
    "one_layer": {},
    "scalars": {},
    "shared": {"l_max": 2, "radial": "shared", "correlation": 2, "num_layers": 2, **SMALL},
    "three_layers": {"l_max": 1, "correlation": 1, "num_layers": 3, "zbl": True, **SMALL},
    "no_gate": {"gate": False, "radial_smoothness": 2.0, "l_max": 2, "num_layers": 2, **SMALL},
    "three_species": {"species": ("H", "C", "O"), "num_channels": 17, "radial_hidden": (4,)},
}
NAMES = [*CHANGES, "trained"]


@functools.cache
def eager(name, dtype=torch.float64):
    """A network with random weights, statistics and norms, or the trained one."""
    if dtype != torch.float64:
        return set_dtype(copy.deepcopy(eager(name)), dtype)
    if name == "trained":
        return load_model(TRAINED_MODEL, dtype="float64")[0]
    values = {"species": ("H", "O"), "avg_num_neighbors": 12.0, "r_max": 4.0, **CHANGES[name]}
    config = dataclasses.replace(CONFIGS.get(name, CONFIGS["default"]), **values)
    model = build_model(config, seed=1).requires_grad_(False)
    count = len(config.species)
    model.set_statistics(torch.linspace(-13.6, -432.1, count), torch.linspace(0.7, 1.3, count))
    generator = torch.Generator().manual_seed(3)
    for layer in model.layers:  # norms of measured activations differ by degree
        for norm in (layer.convolution.norm, layer.product.norm):
            for l in range(round(len(norm) ** 0.5)):
                norm[l * l : (l + 1) ** 2] *= 0.5 + torch.rand(1, generator=generator)
    return model


@functools.cache
def fused(name, dtype=torch.float64):
    return inference_network(eager(name), dtype)


def structure(name, model):
    """A structure with every species of the network."""
    atoms = STRUCTURES[name]()
    if "C" in model.config.species:
        atoms.symbols[1::3] = "C"
    return atoms


def relative_errors(found, expected, model, atoms):
    """Errors of energies without E0, forces and virial, relative to the largest of each."""
    species = [model.atomic_numbers.index(n) for n in atoms.numbers]
    errors = {}
    for key in ("atom_energy", "forces", "virial"):
        size = expected[key] - (model.atomic_energies[species] if key == "atom_energy" else 0)
        assert size.abs().max() > 1e-4, "a test structure must have something to compare"
        errors[key] = float((found[key] - expected[key]).abs().max() / size.abs().max())
    return errors


@pytest.mark.parametrize("where", list(STRUCTURES))
@pytest.mark.parametrize("name", NAMES)
def test_float64_equals_the_network(name, where):
    """To 1e-10 of the largest energy, force and virial.

    Slopes of radial functions are right to 3e-12 of the largest slope, which stands at short
    distance. Where atoms are far apart and forces cancel, as in the slab, random networks lose up
    to thirty times that.
    """
    model = eager(name)
    atoms = structure(where, model)
    assert fused(name).table_error <= 3e-12
    errors = relative_errors(evaluate(fused(name), atoms), evaluate(model, atoms), model, atoms)
    assert max(errors.values()) <= min(1e-10, 30 * fused(name).table_error), errors
    if where == "cluster":
        assert max(errors.values()) <= 1e-11, errors


@pytest.mark.parametrize("where", list(STRUCTURES))
@pytest.mark.parametrize("name", NAMES)
def test_float32_is_as_good_as_the_network_in_float32_and_the_table(name, where):
    """Errors against float64: at most four times those of the float32 network, and the table's.

    Both round at random, in other operations, and the errors are the largest of a few dozen
    numbers; a network that happens to round to less than 1e-6 (eight last places) does not count as
    better. Errors of the table are relative to the largest slope, which stands at short distance:
    where atoms are 3 angstrom apart and forces cancel, as in the slab, they count some fifty times.
    Trained networks, which are smooth, are right to 1e-5 altogether.
    """
    model, table = eager(name), fused(name, torch.float32)
    atoms = structure(where, model)
    expected = evaluate(model, atoms)
    own = relative_errors(evaluate(eager(name, torch.float32), atoms), expected, model, atoms)
    errors = relative_errors(evaluate(table, atoms), expected, model, atoms)
    for key, error in errors.items():
        assert error <= 4 * max(own[key], 1e-6) + 60 * table.table_error, (errors, own)
        assert error <= 1e-5 or name != "trained"
    assert max(own.values()) > 1e-7


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_reference_operators_and_torchscript(name, dtype):
    """Kernels, plain torch and the scripted module are one function."""
    model = fused(name, dtype)
    atoms = structure("triclinic", model)
    found = evaluate(model, atoms)
    with ops.use_reference():
        plain = evaluate(model, atoms)
    tolerance = 1e-12 if dtype == torch.float64 else 1e-5
    # sums of some hundred terms in another order; forces cancel by two digits at most
    for key, error in relative_errors(plain, found, model, atoms).items():
        assert error <= 30 * tolerance, key
    scripted = script(copy.deepcopy(model))
    graph = graph_from_atoms(atoms, model.atomic_numbers, model.r_max)
    edges = ops.sort_edges(graph.edge_index, graph.num_atoms, graph.num_atoms)
    edge_vec = graph.edge_vec.requires_grad_()
    with plain_execution():
        energy = scripted(graph.species, edges, edge_vec, graph.num_atoms)
        (gradient,) = torch.autograd.grad(energy.sum(), edge_vec)
    expected = model(graph.species, edges, edge_vec, graph.num_atoms)
    assert torch.equal(energy, expected)
    assert torch.equal(gradient, torch.autograd.grad(expected.sum(), edge_vec)[0])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_isolated_atoms_keep_their_energy(name, dtype):
    model = fused(name, dtype)
    e0 = dict(zip(model.config.species, model.atomic_energies, strict=True))
    for symbol, expected in e0.items():
        alone = evaluate(model, ase.Atoms(symbol))
        assert alone["energy"][0] == expected
        assert torch.equal(alone["forces"], torch.zeros(1, 3, dtype=torch.float64))
        assert torch.equal(alone["virial"], torch.zeros(1, 3, 3, dtype=torch.float64))
    # one atom of a larger structure
    cluster = water_cluster(count=2)
    far = evaluate(model, cluster + ase.Atoms("O", positions=[[50.0, 0, 0]]))
    assert far["atom_energy"][-1] == e0["O"] and (far["forces"][-1] == 0).all()
    assert evaluate(model, ase.Atoms())["energy"].tolist() == [0.0]


@pytest.mark.parametrize("name", ["default", "three_layers"])
def test_copies_and_batches_add_up(name):
    model = fused(name)
    cell = STRUCTURES["triclinic"]()
    one, eight = evaluate(model, cell), evaluate(model, cell * (2, 2, 2))
    assert torch.allclose(eight["energy"], 8 * one["energy"], rtol=1e-12, atol=0)
    scale = one["forces"].abs().max()
    assert (eight["forces"] - one["forces"].repeat(8, 1)).abs().max() <= 1e-10 * scale
    frames = [make() for make in STRUCTURES.values()] + [ase.Atoms("O")]
    graphs = [graph_from_atoms(a, model.atomic_numbers, model.r_max) for a in frames]
    together = Potential(model)(collate(graphs))["energy"]
    apart = torch.cat([evaluate(model, a)["energy"] for a in frames])
    assert torch.allclose(together, apart, rtol=1e-13, atol=0)


def test_ghost_atoms():
    """Neighbors beyond the local atoms count by their species; nothing is computed for them."""
    model, network = fused("one_layer"), eager("one_layer")
    graph = graph_from_atoms(water_cluster(), model.atomic_numbers, model.r_max)
    local = 5
    kept = graph.edge_index[0] < local
    edges = ops.sort_edges(graph.edge_index[:, kept], local, graph.num_atoms)
    edge_vec = graph.edge_vec[kept].requires_grad_()
    results = []
    for m in (model, network):
        energy = m(graph.species, edges, edge_vec, local)
        results.append((energy, *torch.autograd.grad(energy.sum(), edge_vec)))
    (energy, gradient), (wanted, wanted_gradient) = results
    assert energy.shape == (local,)
    assert torch.allclose(energy, wanted, rtol=1e-12, atol=0)
    assert (gradient - wanted_gradient).abs().max() <= 1e-10 * wanted_gradient.abs().max()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("name", ["default", "trained"])
def test_crossing_the_cutoff(name, dtype):
    """Energy and forces of an atom that enters are those of the table's error, not a step."""
    model = fused(name, dtype)
    cluster = water_cluster(count=2)
    cluster.positions -= cluster.positions[cluster.positions[:, 0].argmax()]
    results = []
    for distance in (model.r_max - 1e-7, model.r_max + 1e-7):
        results.append(evaluate(model, cluster + ase.Atoms("H", positions=[[distance, 0, 0]])))
    inside, outside = results
    scale = outside["forces"].abs().max()
    assert (outside["forces"][-1] == 0).all()
    # tables and float32 are relative to the largest slope anywhere, some ten times that at the
    # equilibrium distances of the cluster
    error = 10 * max(model.table_error, torch.finfo(dtype).eps)
    assert (inside["forces"] - outside["forces"]).abs().max() <= error * scale
    assert (inside["energy"] - outside["energy"]).abs() <= error * scale


def test_forces_are_continuous_between_intervals():
    """Across the knots of the table the slope is the same from both sides."""
    model = fused("one_layer", torch.float32)
    intervals = model.first.table.shape[2]
    jumps = []
    for k in range(intervals // 3, intervals, intervals // 7):
        x = k / intervals
        r = model.r_max * model.first.stretch * x / (1 + model.first.stretch - x)
        forces = []
        for distance in (r - 1e-10, r + 1e-10):
            atoms = ase.Atoms("OH", positions=[[0, 0, 0], [distance, 0, 0]])
            forces.append(evaluate(model, atoms)["forces"])
        jumps.append(float((forces[1] - forces[0]).abs().max() / forces[0].abs().max()))
    # what rounding does to a few sums in float32
    assert max(jumps) <= 1e-5


def test_finite_differences():
    """Forces are the derivative of the energies of the table, as exactly as of the network."""
    model, atoms = fused("default"), water_cluster(count=2)
    assert_forces_are_slopes(model, atoms)


def test_the_network_is_not_changed():
    model = copy.deepcopy(eager("scalars"))
    set_dtype(model, torch.float32)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    result = inference_network(model, torch.float32)
    assert not any(p.requires_grad for p in result.parameters()) and not result.training
    after = model.state_dict()
    assert all(torch.equal(after[k], v) and after[k].dtype == v.dtype for k, v in before.items())


def test_float32_checkpoints_keep_exact_constants():
    """CP factors of a network in float32 are those of float64, not their rounded values."""
    model = set_dtype(copy.deepcopy(eager("default")), torch.float32)
    result = inference_network(model, torch.float64)
    exact = eager("default").layers[1].convolution.factors.input1
    assert torch.equal(result.layers[0].input1, exact)


@pytest.mark.slow
def test_without_the_compiled_library():
    """A process with the reference operators only, also inside TorchScript."""
    script = """
import torch
from inference.test_inference_network import eager, fused, relative_errors, structure, evaluate
from inference.test_inference_network import test_reference_operators_and_torchscript as scripted
from tdn import ops
assert not ops.is_compiled()
model = eager("default")
atoms = structure("cluster", model)
errors = relative_errors(evaluate(fused("default"), atoms), evaluate(model, atoms), model, atoms)
assert max(errors.values()) < 1e-10, errors
scripted("default", torch.float64)
"""
    run_python(script, TDN_OPS="reference")
