"""The energy of N copies is N times the energy; distant parts do not know of each other."""

import ase
import numpy as np
import pytest
import torch
from structures import STRUCTURES, evaluate, water_cluster

from tdn.graph import collate, graph_from_atoms
from tdn.network.potential import Potential, stress_of_virial


@pytest.mark.parametrize("name", ["small_cell", "triclinic"])
def test_supercell(model, name):
    atoms = STRUCTURES[name]()
    one = evaluate(model, atoms)
    eight = evaluate(model, atoms * (2, 2, 2))
    assert torch.allclose(eight["energy"], 8 * one["energy"], rtol=1e-12, atol=0)
    scale = one["forces"].abs().max()
    assert (eight["forces"] - one["forces"].repeat(8, 1)).abs().max() <= 1e-10 * scale
    assert torch.allclose(eight["stress"], one["stress"], rtol=1e-9, atol=1e-12)


def test_separated_clusters_add_up(model):
    first, second = water_cluster(0), water_cluster(1, count=3)
    second.translate([30.0, 0.0, 0.0])
    together = evaluate(model, first + second)["energy"]
    apart = evaluate(model, first)["energy"] + evaluate(model, second)["energy"]
    assert torch.allclose(together, apart, rtol=1e-12, atol=0)


def test_batch_equals_one_by_one(model):
    """Structures in one batch must not influence each other."""
    frames = [make() for make in STRUCTURES.values()] + [ase.Atoms("O")]
    graphs = [graph_from_atoms(a, model.atomic_numbers, model.r_max) for a in frames]
    batch = collate(graphs)
    batched = Potential(model)(batch)
    stress = stress_of_virial(batched["virial"], batch.volume)
    offset = np.cumsum([0] + [len(a) for a in frames])
    for i, atoms in enumerate(frames):
        single = evaluate(model, atoms)
        assert torch.allclose(batched["energy"][i], single["energy"][0], rtol=1e-13, atol=0)
        forces = batched["forces"][offset[i] : offset[i + 1]]
        assert torch.allclose(forces, single["forces"], rtol=1e-10, atol=1e-12)
        expected = single["stress"][0]
        assert torch.allclose(stress[i], expected, rtol=1e-9, equal_nan=True)
