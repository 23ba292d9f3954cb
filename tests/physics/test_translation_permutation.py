"""Neither the origin nor the order of atoms nor the choice of periodic image matters."""

import numpy as np
import torch
from structures import evaluate


def test_translation(model, atoms):
    before = evaluate(model, atoms)
    moved = atoms.copy()
    moved.translate([3.7, -11.2, 0.4])
    after = evaluate(model, moved)
    # coordinates of about 10 angstrom lose 1e-15 x 10 in a difference, forces amplify it
    assert torch.allclose(after["energy"], before["energy"], rtol=1e-12, atol=0)
    scale = before["forces"].abs().max()
    assert (after["forces"] - before["forces"]).abs().max() <= 1e-10 * scale


def test_wrapping_atoms_into_the_cell(model, atoms):
    before = evaluate(model, atoms)
    moved = atoms.copy()
    shifts = np.random.default_rng(0).integers(-2, 3, size=(len(atoms), 3)) * atoms.pbc
    moved.positions += shifts @ atoms.cell.array
    after = evaluate(model, moved)
    scale = before["forces"].abs().max()
    assert torch.allclose(after["energy"], before["energy"], rtol=1e-12, atol=0)
    assert (after["forces"] - before["forces"]).abs().max() <= 1e-10 * scale


def test_permutation(model, atoms):
    before = evaluate(model, atoms)
    order = np.random.default_rng(0).permutation(len(atoms))
    after = evaluate(model, atoms[order])
    scale = before["forces"].abs().max()
    assert torch.allclose(after["atom_energy"], before["atom_energy"][order], rtol=1e-13, atol=0)
    assert (after["forces"] - before["forces"][order]).abs().max() <= 1e-12 * scale


def test_no_net_force_and_symmetric_virial(model, atoms):
    result = evaluate(model, atoms)
    scale = result["forces"].abs().max()
    assert result["forces"].sum(dim=0).abs().max() <= 1e-12 * len(atoms) * scale
    virial = result["virial"][0]
    assert torch.equal(virial, virial.T)
