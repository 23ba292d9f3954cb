"""Every kind of network in every kind of file gives what the network itself gives."""

from __future__ import annotations

import dataclasses

import ase
import numpy as np
import pytest
import torch
from structures import STRUCTURES

from tdn import TDNCalculator
from tdn.config import ModelConfig
from tdn.graph import collate, graph_from_atoms
from tdn.inference.compiled_model import load_compiled
from tdn.network.base import Network, set_dtype
from tdn.network.build import build_model
from tdn.network.checkpoint import DTYPES, save_model
from tdn.network.initial_norms import normalize_activations
from tdn.network.potential import Potential
from tdn_export import export_model
from tdn_export.deployed import deployed_network
from tdn_export.structures import random_cell, tiny_cell

pytestmark = pytest.mark.usefixtures("plain")

# the file against the network that was compiled: the same operations in another order
BOUND = {"float64": 1e-10, "float32": 1e-5}
# against the network as it was trained: in float32 other operations round otherwise, all the way
TRAINED_BOUND = {"float64": 1e-10, "float32": 1e-4}

NETWORKS = [("convolution", l_max, fused) for l_max in (1, 2, 3) for fused in (True, False)]
NETWORKS += [("attention", l_max, True) for l_max in (1, 2, 3)]  # which has nothing to tabulate
CASES = [(*network, "float32", "torchscript") for network in NETWORKS]
# the others in float64 are those of test_roundtrip.py
CASES += [("convolution", 1, True, "float64", "torchscript")]
CASES += [("attention", 3, True, "float64", "torchscript")]
# compiling costs much: with those of test_aotinductor.py (l_max 3 with tables in float64; attention
# in float32) and tests/lammps (attention with l_max 1 in float64) each value of each choice
COMPILED = ("convolution", 2, False, "float32", "aotinductor")
# which take seconds; machine code takes ten
SLOW = [case for case in CASES if case[0] == "attention" and case[1] > 1]
SLOW.append(COMPILED)
CASES = [case for case in CASES if case not in SLOW]
CASES += [pytest.param(*case, marks=pytest.mark.slow) for case in SLOW]


def network(architecture: str, l_max: int) -> Network:
    """Small, random, with activations of order one."""
    config = ModelConfig(
        architecture=architecture,
        species=("H", "O"),
        r_max=4.0,
        l_max=l_max,
        num_channels=4,
        num_layers=2 if architecture == "convolution" else 1,
        radial_hidden=(6,),
        readout_hidden=4,
        gate=l_max < 3,
        radial_smoothness=2.0 if l_max > 1 else 0.0,
        avg_num_neighbors=12.0,
    )
    if architecture == "attention":
        config = dataclasses.replace(config, num_heads=2, num_gaussians=6)
    model = build_model(config, seed=l_max).requires_grad_(False)
    normalize_activations(
        model, collate([graph_from_atoms(make(), [1, 8], 4.0) for make in STRUCTURES.values()])
    )
    model.set_statistics(torch.tensor([-13.6, -432.1]), torch.tensor([0.7, 1.3]))
    return model


def structures() -> dict[str, ase.Atoms]:
    """With and without cells, large and smaller than the cutoff, and hardly any atoms."""
    return {
        **{name: make() for name, make in STRUCTURES.items()},
        "many atoms": random_cell([1, 8], 60, 4.0, seed=5),
        "tiny cell": tiny_cell([1, 8], 4.0),
        "one atom": ase.Atoms("O", positions=[[0, 0, 0]]),
        "no atoms": ase.Atoms(),
    }


def largest(values: torch.Tensor) -> float:
    return values.abs().max().item() if values.numel() else 0.0


@pytest.mark.parametrize("architecture, l_max, fused, dtype, backend", CASES)
def test_file_is_the_network(request, tmp_path, architecture, l_max, fused, dtype, backend):
    if backend == "aotinductor":
        request.getfixturevalue("compiler")
    model = set_dtype(network(architecture, l_max), DTYPES[dtype])
    save_model(tmp_path / "model.pt", model, {})
    report = export_model(tmp_path / "model.pt", fused=fused, backend=backend)
    assert report.metadata["dtype"] == dtype
    assert (report.metadata["radial_table_error"] is None) == (
        not fused or architecture == "attention"
    )
    compiled = load_compiled(report.path)
    deployed = Potential(deployed_network(model, fused)[0])
    trained = Potential(model)
    for label, atoms in structures().items():
        graph = graph_from_atoms(atoms, [1, 8], 4.0)
        found = compiled(graph)
        edges = graph.species, graph.edge_index, graph.edge_vec, graph.num_atoms
        energy, gradient = compiled.evaluate_edges(*edges)
        scale = {
            "atom_energy": max(1e-3, largest(energy - model.atomic_energies[graph.species])),
            "forces": max(1e-3, largest(gradient)),  # those of symmetric sites cancel
            "virial": max(1e-3, largest(graph.edge_vec.unsqueeze(2) * gradient.unsqueeze(1))),
        }
        for eager, bound in ((deployed, BOUND[dtype]), (trained, TRAINED_BOUND[dtype])):
            expected = eager(graph)
            for name, size in scale.items():
                assert found[name].shape == expected[name].shape
                error = largest(found[name] - expected[name])
                assert error <= bound * size, (label, name, error / size)
        if len(atoms):
            atoms.calc = TDNCalculator(report.path, device="cpu")
            error = np.abs(atoms.get_forces() - found["forces"].numpy()).max()
            assert error <= BOUND[dtype] * scale["forces"], label  # edges in another order
