"""An atom that crosses the cutoff changes nothing abruptly; alone it keeps E0."""

import ase
import numpy as np
import pytest
import torch
from structures import evaluate, water_cluster

from tdn.network.attention_model import AttentionModel


def test_isolated_atoms_keep_their_energy(model):
    for symbol, expected in zip(model.config.species, model.atomic_energies, strict=True):
        alone = evaluate(model, ase.Atoms(symbol))
        assert alone["energy"][0] == expected
        assert torch.equal(alone["forces"], torch.zeros(1, 3, dtype=torch.float64))
        assert torch.equal(alone["virial"], torch.zeros(1, 3, 3, dtype=torch.float64))
    far = ase.Atoms("HOH", positions=[[0, 0, 0], [9, 0, 0], [0, 9, 0]], cell=[30] * 3, pbc=True)
    e0 = dict(zip(model.config.species, model.atomic_energies, strict=True))
    assert evaluate(model, far)["energy"][0] == e0["H"] + e0["O"] + e0["H"]


def test_no_atoms(model):
    result = evaluate(model, ase.Atoms())
    assert result["energy"].tolist() == [0.0]
    assert result["forces"].shape == (0, 3)


def approach(model, distance):
    """A cluster and one atom at a distance from its nearest atom, the outermost along x."""
    cluster = water_cluster(count=2)
    cluster.positions -= cluster.positions[cluster.positions[:, 0].argmax()]
    direction = np.array([1.0, 0.0, 0.0])
    guest = ase.Atoms("H", positions=[distance * direction])
    lengths = np.linalg.norm(cluster.positions - guest.positions, axis=1)
    return evaluate(model, cluster + guest), np.sort(lengths)


def test_crossing_the_cutoff_is_smooth(model):
    """Just inside the cutoff energy and force of the guest vanish as (r_max - r)^3 and ^2."""
    r_max = model.r_max
    outside, lengths = approach(model, r_max + 1e-9)
    assert lengths[0] > r_max
    assert outside["forces"][-1].abs().max() == 0
    reference = outside["energy"][0]
    e0 = model.atomic_energies[model.config.species.index("H")]
    steps = np.array([0.04, 0.02, 0.01])
    energies, forces = [], []
    for step in steps:
        inside, _ = approach(model, r_max - step)
        energies.append(abs(float(inside["energy"][0] - reference)))
        forces.append(float(inside["forces"][-1].norm()))
    assert min(forces) > 0, "the guest must be felt inside the cutoff"
    # three vanishing orders (times the zero of the Bessel functions): halving the distance to
    # the cutoff divides force by at least 2^2 and energy by at least 2^3, less 20 % of slack
    # for higher orders
    assert forces[0] / forces[1] > 3.2 and forces[1] / forces[2] > 3.2
    if energies[2] > 1e-11 * abs(float(reference)):
        assert energies[1] / energies[2] > 6.4
    assert float(e0) < 0


def edge_weights(model, r):
    """What the contributions of an edge of each length are multiplied by, one row per length."""
    if isinstance(model, AttentionModel):
        return model.envelope(r).unsqueeze(1)
    pair = torch.zeros_like(r, dtype=torch.int64)
    return torch.cat([layer.radial.weights_at(r, pair).flatten(1) for layer in model.layers], dim=1)


@pytest.mark.parametrize("index", [0, 1, 2])
def test_edges_end_with_two_derivatives(model, index):
    r = torch.linspace(model.r_max - 1e-3, model.r_max + 1e-3, 5, dtype=torch.float64)
    r.requires_grad_(True)
    value = edge_weights(model, r).sum(dim=1)
    (slope,) = torch.autograd.grad(value.sum(), r, create_graph=True)
    (curvature,) = torch.autograd.grad(slope.sum(), r)
    derivative = (value, slope, curvature)[index]
    assert derivative[2:].abs().max() < 1e-9
    assert derivative[0].abs() > 0
