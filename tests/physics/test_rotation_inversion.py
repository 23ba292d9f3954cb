"""Energies are invariant, forces and virial turn with the structure: rotations and inversion."""

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from structures import evaluate

# rounding of some hundred float64 operations in a row, with two digits to spare
RELATIVE = 1e-10


def transformed(atoms, matrix):
    copy = atoms.copy()
    copy.set_positions(atoms.positions @ matrix.T)
    copy.set_cell(atoms.cell.array @ matrix.T)
    return copy


@pytest.mark.parametrize("inversion", [1, -1], ids=["rotation", "rotoinversion"])
def test_equivariance(model, atoms, inversion):
    before = evaluate(model, atoms)
    scale = before["forces"].abs().max()
    assert scale > 1e-3, "forces of a test structure must not vanish"
    for seed in range(3):
        matrix = inversion * Rotation.random(random_state=seed).as_matrix()
        after = evaluate(model, transformed(atoms, matrix))
        turn = torch.from_numpy(np.ascontiguousarray(matrix))
        energy_error = (after["atom_energy"] - before["atom_energy"]).abs().max()
        assert energy_error <= RELATIVE * before["atom_energy"].abs().max()
        assert (after["forces"] - before["forces"] @ turn.T).abs().max() <= RELATIVE * scale
        expected = turn @ before["virial"] @ turn.T
        assert (after["virial"] - expected).abs().max() <= RELATIVE * expected.abs().max()
