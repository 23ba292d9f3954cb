"""Eager network = compiled file = ASE calculator of either file."""

from __future__ import annotations

import ase
import numpy as np
import pytest
import torch
from structures import CONFIGS, STRUCTURES

from tdn.graph import collate, graph_from_atoms
from tdn.inference.calculator import TDNCalculator
from tdn.inference.compiled_model import load_compiled
from tdn.network.potential import Potential, stress_of_virial
from tdn_export import export_model
from tdn_export.structures import random_cell, standard_structures
from tdn_export.tolerances import SYMMETRY_BOUND, TABLE_AMPLIFICATION

pytestmark = pytest.mark.usefixtures("plain")

# float64 and float32 of the same operations; float32 differs where e3nn compiles its own code
BOUND = {"float64": 1e-10, "float32": 1e-5}
CASES = [(name, "float64", True) for name in CONFIGS]
CASES += [(name, "float64", False) for name in CONFIGS if not name.startswith("attention")]
CASES += [("default", "float32", True), ("l3", "float32", False), ("attention", "float32", True)]


def bound(made) -> float:
    """Rounding, which differs in fused operators; and what tables of the radial functions add over
    layers and orders of products."""
    metadata = made.report.metadata
    if metadata["radial_table_error"] is None:
        return BOUND[metadata["dtype"]]
    return SYMMETRY_BOUND[metadata["dtype"]] + TABLE_AMPLIFICATION * metadata["radial_table_error"]


def structures() -> dict[str, ase.Atoms]:
    """All kinds of structures, with and without edges and cells."""
    return {
        **{name: make() for name, make in STRUCTURES.items()},
        **{k: v for k, v in standard_structures([1, 8], 4.0).items() if k != "500 atoms"},
        "many atoms": random_cell([1, 8], 60, 4.0, seed=5),
    }


@pytest.mark.parametrize("name, dtype, fused", CASES)
def test_eager_compiled_and_calculator_agree(export, name, dtype, fused):
    made = export(name, dtype, fused)
    allowed = bound(made)
    assert fused or allowed == BOUND[dtype]
    compiled = load_compiled(made.path)
    eager = Potential(made.model)
    calculators = [TDNCalculator(path, device="cpu") for path in (made.checkpoint, made.path)]
    for label, atoms in structures().items():
        graph = graph_from_atoms(atoms, made.model.atomic_numbers, made.model.r_max)
        expected = eager(graph)
        isolated = made.model.atomic_energies[graph.species]
        interaction = (expected["atom_energy"] - isolated).numpy()
        edges = graph.species, graph.edge_index, graph.edge_vec, graph.num_atoms
        gradient = compiled.evaluate_edges(*edges)[1]  # whose sums cancel on symmetric sites
        scale = {
            "energy": max(np.abs(interaction).sum(), 1e-3),
            "forces": max([1e-3, *gradient.abs().flatten().tolist()]),
            "virial": max(expected["virial"].abs().max().item(), 1e-3),
        }
        found = compiled(graph)
        for key, size in scale.items():
            error = (found[key] - expected[key]).abs().max().item()
            assert error <= allowed * size, (label, key)
        for calculator in calculators:
            result = atoms.copy()
            result.calc = calculator
            error = abs(result.get_potential_energy() - expected["energy"].item())
            assert error <= allowed * scale["energy"], label
            error = np.abs(result.get_forces() - expected["forces"].numpy()).max()
            assert error <= allowed * scale["forces"], label
            if atoms.cell.rank == 3 and atoms.pbc.any():
                stress = result.get_stress(voigt=False)
                error = np.abs(-stress * atoms.get_volume() - expected["virial"][0].numpy()).max()
                assert error <= allowed * scale["virial"], label


def test_edges_matter(export):
    """The comparison above would be empty for a network that ignores its edges."""
    made = export()
    graph = graph_from_atoms(STRUCTURES["cluster"](), [1, 8], 4.0)
    found = load_compiled(made.path)(graph)
    isolated = made.model.atomic_energies[graph.species].sum()
    assert abs(found["energy"] - isolated) > 0.01
    assert found["forces"].abs().max() > 0.01


def test_isolated_atoms_have_exactly_e0(export):
    made = export()
    compiled = load_compiled(made.path)
    atoms = ase.Atoms("HO", positions=[[0, 0, 0], [0, 0, 9.0]])
    found = compiled(graph_from_atoms(atoms, [1, 8], 4.0))
    assert found["atom_energy"].tolist() == made.model.atomic_energies.tolist()
    assert found["forces"].abs().max() == 0


def test_batch_of_structures(export):
    made = export()
    compiled = load_compiled(made.path)
    graphs = [graph_from_atoms(make(), [1, 8], 4.0) for make in STRUCTURES.values()]
    batch = collate(graphs)
    together = compiled(batch)
    for i, graph in enumerate(graphs):
        alone = compiled(graph)
        assert together["energy"][i].item() == pytest.approx(alone["energy"].item(), rel=1e-13)
        difference = together["virial"][i] - alone["virial"][0]
        assert difference.abs().max() <= 1e-11 * alone["virial"].abs().max()
    stress = stress_of_virial(together["virial"], batch.volume)
    assert torch.isnan(stress[0]).all()  # the cluster has no volume


def test_precision_can_be_chosen(export, tmp_path):
    """A float32 checkpoint in float64 computes what its weights say, to float32 rounding."""
    made = export("default", "float32")
    report = export_model(made.checkpoint, tmp_path / "m.tdn.pth", dtype="float64")
    assert report.metadata["dtype"] == "float64"
    graph = graph_from_atoms(STRUCTURES["triclinic"](), [1, 8], 4.0)
    single, double = load_compiled(made.path)(graph), load_compiled(report.path)(graph)
    error = (single["forces"] - double["forces"]).abs().max() / double["forces"].abs().max()
    assert 0 < error < 1e-4
