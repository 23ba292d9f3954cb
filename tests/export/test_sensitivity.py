"""Every single weight matters to the reference inside a compiled file.

A weight w changed to 1.001 w changes the results by 0.001 w d(results)/dw, to first order. With
signs s_k, |sum_k s_k x_k| / n is a lower bound of max |x_k|, so one backward pass from a sum with
random signs bounds the effect of all weights from below; some sums with other signs are enough to
find every weight above the tolerance. No weight needs an evaluation of its own.
"""

from __future__ import annotations

import dataclasses

import pytest
import torch
from structures import CONFIGS, random_model

from tdn.graph import Graph, graph_from_atoms
from tdn.inference.compiled_model import load_compiled
from tdn.network.base import Network, set_dtype
from tdn.network.build import build_model
from tdn.network.initial_norms import normalize_activations
from tdn.network.potential import Potential
from tdn_export import verify
from tdn_export.deployed import deployed_network
from tdn_export.reference import build_reference, reference_graph
from tdn_export.structures import random_cluster

CHANGE = 1e-3
SIGNS = 12  # random sums per quantity


def effects(model: Network, graph: Graph, tolerance: dict[str, float]) -> dict[str, torch.Tensor]:
    """Lower bounds of what the change of each weight does, in units of the tolerance."""
    model.requires_grad_(True)
    found = Potential(model)(graph, training=True)
    names, weights = zip(*model.named_parameters())
    bounds = [torch.zeros_like(w) for w in weights]
    generator = torch.Generator().manual_seed(0)
    for key, quantity in (("energy", "atom_energy"), ("forces", "forces")):
        values = found[quantity]
        for _ in range(SIGNS):
            signs = 2.0 * torch.randint(2, values.shape, generator=generator) - 1
            total = (signs * values).sum() / values.numel()
            gradients = torch.autograd.grad(total, weights, retain_graph=True, allow_unused=True)
            for k, (weight, gradient) in enumerate(zip(weights, gradients)):
                if gradient is not None:
                    change = (CHANGE * weight * gradient).abs().detach() / tolerance[key]
                    bounds[k] = torch.maximum(bounds[k], change)
    model.requires_grad_(False)
    return dict(zip(names, bounds))


def unnoticed(model: Network) -> list[str]:
    """Weights that matter in a large structure, but not enough in the reference."""
    # as it is deployed: tables belong to the rounding error that the tolerance covers
    precisions = torch.float32, torch.float64
    both = {d: [deployed_network(set_dtype(copy_of(model), d), True)[0]] for d in precisions}
    tolerance = build_reference(both, torch.float64)["tolerance"]
    graph = reference_graph(model.atomic_numbers, model.r_max)
    cluster = random_cluster(model.atomic_numbers, 120, model.r_max, seed=11)
    large = graph_from_atoms(cluster, model.atomic_numbers, model.r_max)
    small = effects(model, graph, tolerance)
    anywhere = effects(model, large, tolerance)
    # twice the tolerance: the estimate is of first order only
    return [
        f"{name}{index.tolist()}"
        for name in small
        for index in ((small[name] < 2.0) & (anywhere[name] > 0.0)).nonzero()
    ]


def copy_of(model: Network) -> Network:
    copy = build_model(model.config)
    copy.load_state_dict(model.state_dict())
    return copy.requires_grad_(False)


@pytest.mark.parametrize("name", list(CONFIGS))
def test_every_weight_is_noticed(name):
    assert unnoticed(random_model(name)) == []


@pytest.mark.slow
def test_every_direct_force_weight_is_noticed():
    assert unnoticed(random_model("attention", forces="direct")) == []


@pytest.mark.slow
def test_every_pair_of_many_species_is_noticed():
    species = ("H", "C", "N", "O", "F", "P", "S", "Cl")
    config = dataclasses.replace(
        CONFIGS["default"], species=species, avg_num_neighbors=12.0, r_max=4.5, num_channels=4
    )
    model = build_model(config, seed=3).requires_grad_(False)
    atoms = random_cluster(model.atomic_numbers, 60, model.r_max, seed=4)
    # activations of order one, as at the start of training: nothing hides in small features
    normalize_activations(model, graph_from_atoms(atoms, model.atomic_numbers, model.r_max))
    assert unnoticed(model) == []


def test_a_weight_without_effect_would_be_found():
    """One layer of a species pair that is no neighbor in the reference: the test must see it."""
    model = random_model("one_layer")
    with torch.no_grad():  # nothing but H-H reaches the readout
        model.layers[0].radial.pair_scale[1:] *= 1e-12
    assert any("pair_scale" in name for name in unnoticed(model))


def test_rounding_of_the_network_itself_is_allowed(export, monkeypatch):
    """Where terms cancel, a network in float32 is further from itself in float64 than the bound."""
    made = export("default", "float32")
    compiled = load_compiled(made.path)
    structures = {"cluster": random_cluster([1, 8], 8, 4.0, seed=1)}
    monkeypatch.setitem(verify.BOUND, "float32", 1e-9)
    network = deployed_network(made.model, True)[0]
    (found,) = verify.compare([network], compiled, structures)
    assert 1e-9 < found.largest < found.bound < 1e-4 and found.passed
    wrong = copy_of(made.model)
    next(p for p in wrong.parameters() if p.ndim > 1).mul_(1.001)
    (found,) = verify.compare([deployed_network(wrong, True)[0]], compiled, structures)
    assert not found.passed
