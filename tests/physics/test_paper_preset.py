"""The published network without the options for molecular dynamics: what holds and what does not.

What arXiv 2507.01131 claims holds: translation, permutation, rotation up to the error of the CP
factors, forces as gradients if asked for. What molecular dynamics needs beyond that does not, which
is why these properties are options of their own that the default switches on.
"""

import ase
import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from structures import STRUCTURES, assert_forces_are_slopes, evaluate, small_cell, water_cluster

from tdn.config import model_config_from_dict
from tdn.cp import load_factors
from tdn.network.build import build_model

SMALL = {
    "num_channels": 8,
    "num_layers": 2,
    "num_heads": 2,
    "num_gaussians": 8,
    "radial_hidden": [8, 8],
    "r_max": 4.0,
}


def paper_model(**changes):
    """A small network of the published kind for H and O, random weights and biases."""
    values = {"preset": "paper", "species": ["H", "O"], "avg_num_neighbors": 12.0}
    model = build_model(model_config_from_dict({**values, **SMALL, **changes}), seed=1)
    model.eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(2)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):  # zero in a fresh network, not in a trained one
            noise = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
            parameter.copy_(0.3 * noise)
    model.set_statistics(torch.tensor([-13.6, -432.1]), torch.tensor([0.7, 1.3]))
    return model


@pytest.fixture(scope="module")
def paper():
    return paper_model()


def rotation_error(model, atoms, inversion=1):
    """Largest deviation of forces from turning with the structure, relative to the largest."""
    before = evaluate(model, atoms)["forces"]
    deviations = []
    for seed in range(3):
        matrix = inversion * Rotation.random(random_state=seed).as_matrix()
        turned = atoms.copy()
        turned.set_positions(atoms.positions @ matrix.T)
        turned.set_cell(atoms.cell.array @ matrix.T)
        after = evaluate(model, turned)["forces"]
        deviations.append((after - before @ torch.from_numpy(matrix.copy()).T).abs().max())
    return float(max(deviations) / before.abs().max())


# --- what holds -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(STRUCTURES))
def test_translation_and_permutation(paper, name):
    atoms = STRUCTURES[name]()
    before = evaluate(paper, atoms)
    scale = before["forces"].abs().max()
    order = np.random.default_rng(0).permutation(len(atoms))
    moved = atoms[order]
    moved.translate([3.7, -11.2, 0.4])
    after = evaluate(paper, moved)
    assert torch.allclose(after["atom_energy"], before["atom_energy"][order], rtol=1e-12, atol=0)
    assert (after["forces"] - before["forces"][order]).abs().max() <= 1e-10 * scale


def test_rotation_up_to_the_error_of_the_factors(paper):
    """Each of the products that stand in a row adds the error of the factors at most a few times.

    Embedding, two per block, two in the force head: 7 products. Norms and gates between them have
    slopes of order one; three per product are allowed.
    """
    factors = load_factors(1, paths="all", rank=7, free_coefficients=False, normalized=False)
    assert 1e-3 < factors.equivariance_error < 0.1
    error = rotation_error(paper, water_cluster())
    assert error < 7 * 3 * factors.equivariance_error
    assert error > 1e-4, "the published factors are approximate"


def test_rotation_with_exact_factors():
    """The same network and rank with free path coefficients is exactly equivariant."""
    assert rotation_error(paper_model(path_coefficients="free"), water_cluster()) < 1e-10


def test_gradient_forces():
    assert_forces_are_slopes(paper_model(forces="gradient"), water_cluster())


def test_supercell(paper):
    """A sum over atoms with a fixed divisor."""
    one, eight = evaluate(paper, small_cell()), evaluate(paper, small_cell() * (2, 2, 2))
    assert torch.allclose(eight["energy"], 8 * one["energy"], rtol=1e-12, atol=0)


# --- what does not hold ---------------------------------------------------------------------------


def test_mirror_images_differ(paper):
    """All SO(3) paths mix vectors and axial vectors."""
    atoms = water_cluster()
    mirrored = atoms.copy()
    mirrored.positions *= -1
    exact = paper_model(path_coefficients="free")
    difference = evaluate(exact, mirrored)["energy"] - evaluate(exact, atoms)["energy"]
    assert abs(float(difference)) > 1e-6
    assert rotation_error(exact, atoms, inversion=-1) > 1e-3
    parity = paper_model(paths="parity", path_coefficients="free", rank=None)
    assert rotation_error(parity, atoms, inversion=-1) < 1e-10


def jump_at_cutoff(model):
    """Change of energy and of the largest force when an atom crosses the cutoff by 2e-9."""
    cluster = water_cluster(count=2)
    cluster.positions -= cluster.positions[cluster.positions[:, 0].argmax()]
    found = []
    for distance in (model.r_max - 1e-9, model.r_max + 1e-9):
        found.append(evaluate(model, cluster + ase.Atoms("H", positions=[[distance, 0, 0]])))
    energy = (found[1]["energy"] - found[0]["energy"]).abs().max()
    forces = (found[1]["forces"] - found[0]["forces"]).abs().max()
    return float(energy), float(forces)


def test_jump_at_the_cutoff(paper):
    energy, forces = jump_at_cutoff(paper)
    assert energy > 1e-3 and forces > 1e-3
    energy, forces = jump_at_cutoff(paper_model(envelope=6, subtract_isolated=True))
    assert energy < 1e-10 and forces < 1e-10


def test_isolated_atoms_and_separated_parts(paper):
    """An atom alone has some energy, so parts far apart do not add up from E0."""
    for symbol, e0 in zip(paper.config.species, paper.atomic_energies, strict=True):
        assert abs(evaluate(paper, ase.Atoms(symbol))["energy"][0] - e0) > 1e-3
    cluster = water_cluster()
    far = cluster + ase.Atoms("H", positions=[[40.0, 0, 0]])
    added = evaluate(paper, far)["energy"] - evaluate(paper, cluster)["energy"]
    assert abs(float(added) - float(paper.atomic_energies[0])) > 1e-3


def test_direct_forces_do_not_conserve_energy(paper):
    """They do not sum to zero, are no gradient, and do work around a closed path."""
    atoms = water_cluster()
    forces = evaluate(paper, atoms)["forces"]
    scale = forces.abs().max()
    assert forces.sum(dim=0).abs().max() > 1e-3 * scale

    def closed_path(model, steps):
        work, largest, radius = 0.0, 0.0, 0.1
        for k in range(steps):
            angle = 2 * np.pi * k / steps
            moved = atoms.copy()
            moved.positions[0, :2] += radius * np.array([np.cos(angle), np.sin(angle)])
            force = evaluate(model, moved)["forces"][0, :2].numpy()
            tangent = np.array([-np.sin(angle), np.cos(angle)])
            work += float(force @ tangent) * radius * 2 * np.pi / steps
            largest = max(largest, float(np.linalg.norm(force)))
        return abs(work) / (largest * radius)

    assert closed_path(paper, steps=24) > 1e-2
    # the trapezoidal rule converges exponentially on a circle
    assert closed_path(paper_model(forces="gradient", envelope=6), steps=96) < 1e-6
