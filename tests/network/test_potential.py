"""One assembly of energies, forces and virials, whatever computes the energies."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from structures import STRUCTURES, random_model

from tdn import TDNCalculator
from tdn.graph import collate, graph_from_atoms
from tdn.inference.compiled_model import load_compiled
from tdn.network import potential
from tdn.network.checkpoint import save_model
from tdn.network.potential import Potential, stress_of_virial
from tdn_export import export_model


@pytest.fixture(scope="module", params=["gradient", "direct", "committee"])
def files(request, tmp_path_factory):
    """Checkpoints and the compiled file of a network, or of a committee."""
    folder = tmp_path_factory.mktemp(request.param)
    direct = request.param == "direct"
    models = [random_model("attention", forces="direct")] if direct else [random_model("scalars")]
    if request.param == "committee":
        models.append(random_model("scalars", seed=2))
    paths = [folder / f"{k}.pt" for k in range(len(models))]
    for path, model in zip(paths, models, strict=True):
        save_model(path, model, {})
    output = folder / "model.tdn.pth"
    with pytest.warns() if direct else torch.no_grad():
        export_model(paths, output, direct_forces=direct, fused=False)
    return models, paths, output


def test_eager_compiled_and_calculator_go_through_it(files, monkeypatch):
    """Another assembly changes all of them alike."""
    models, paths, output = files
    compiled = load_compiled(output)
    atoms = STRUCTURES["triclinic"]()
    graph = graph_from_atoms(atoms, [1, 8], 4.0)

    def everything() -> dict[str, torch.Tensor]:
        found = {f"eager {k}": Potential(m)(graph)["forces"] for k, m in enumerate(models)}
        found |= {f"member {k}": m["forces"] for k, m in enumerate(compiled.member_results(graph))}
        found["compiled"] = compiled(graph)["forces"]
        for path in [*paths, output]:
            atoms.calc = TDNCalculator(path, device="cpu")
            found[f"calculator {path.name}"] = torch.from_numpy(atoms.get_forces())
        return found

    before = everything()
    deviation = compiled.reference_deviations()
    original = potential.assemble

    def doubled(*args, **options):
        result = original(*args, **options)
        return result | {"forces": 2 * result["forces"]}

    monkeypatch.setattr(potential, "assemble", doubled)
    load = {"load_compiled": lambda path, device: load_compiled(path, device, check=False)}
    monkeypatch.setattr("tdn.inference.calculator.load_compiled", load["load_compiled"])
    after = everything()
    for name, forces in before.items():
        assert forces.abs().max() > 1e-3
        assert torch.equal(after[name], 2 * forces), name
    assert compiled.reference_deviations()["forces"] > 1e6 * max(deviation["forces"], 1e-17)


def test_sums_over_edges_by_hand():
    """Three edges of two structures, one of which is an atom with its own image."""
    edge_index = torch.tensor([[0, 1, 2], [1, 0, 2]])
    edge_vec = torch.tensor([[1.0, 0, 0], [-1.0, 0, 0], [0, 2.0, 1.0]], dtype=torch.float64)
    gradient = torch.tensor([[3.0, 1.0, 0], [0, 0, 2.0], [1.0, 1.0, 0]], dtype=torch.float64)
    energy = torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64)
    batch = torch.tensor([0, 0, 1])
    found = potential.assemble(energy, gradient, edge_index, edge_vec, batch, 2)
    assert found["energy"].tolist() == [3.0, 4.0]
    assert found["forces"].tolist() == [[3.0, 1.0, -2.0], [-3.0, -1.0, 2.0], [0.0, 0.0, 0.0]]
    first = [[-3.0, -0.5, 1.0], [-0.5, 0.0, 0.0], [1.0, 0.0, 0.0]]
    second = [[0.0, -1.0, -0.5], [-1.0, -2.0, -0.5], [-0.5, -0.5, 0.0]]
    assert found["virial"].tolist() == [first, second]
    assert "virial" not in potential.assemble(
        energy, gradient, edge_index, edge_vec, batch, 2, virial=False
    )
    stress = stress_of_virial(found["virial"], torch.tensor([2.0, 0.0]))
    assert stress[0].tolist() == [[-x / 2 for x in row] for row in first]
    assert stress[1].isnan().all()


def test_direct_forces_have_no_virial():
    forces = torch.ones(3, 3, dtype=torch.float64)
    none = torch.zeros(2, 0, dtype=torch.int64), torch.zeros(0, 3, dtype=torch.float64)
    found = potential.assemble(
        torch.ones(3, dtype=torch.float64),
        forces,
        *none,
        torch.tensor([0, 1, 1]),
        2,
        direct_forces=True,
    )
    assert found["energy"].tolist() == [1.0, 2.0]
    assert torch.equal(found["forces"], forces)
    assert found["virial"].shape == (2, 3, 3) and found["virial"].isnan().all()


def test_virials_of_a_batch_are_derivatives_by_strain(files):
    """Eager, compiled and committee: W = -dE / d(strain), for every structure of a batch."""
    models, _, output = files
    if models[0].config.forces == "direct":
        pytest.skip("direct forces have no virial")
    for evaluate in (*map(Potential, models), load_compiled(output)):
        batch = collate([graph_from_atoms(make(), [1, 8], 4.0) for make in STRUCTURES.values()])
        virial = evaluate(batch)["virial"]
        h = 1e-4
        for a, b in ((0, 0), (1, 2)):
            strain = np.zeros((3, 3))
            strain[a, b] += 0.5
            strain[b, a] += 0.5
            energies = []
            for step in (h, -h):
                matrix = torch.from_numpy(np.eye(3) + step * strain)
                strained = collate([batch])
                strained.positions = batch.positions @ matrix
                strained.edge_shift = batch.edge_shift @ matrix
                energies.append(evaluate(strained)["energy"])
            slope = (energies[0] - energies[1]) / (2 * h)
            # truncation h^2 times third derivatives, and rounding 1e-13 / h of energies with E0
            assert (virial[:, a, b] + slope).abs().max() <= 1e-6 * virial.abs().max()
