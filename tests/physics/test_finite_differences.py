"""Forces, virial and stress are the derivatives of the energy."""

import numpy as np
from structures import derivative, displaced, evaluate

# Energies are smooth but for the cutoff, where the third derivative jumps: when a pair crosses it,
# the error of a difference is h^2 times the jump, beside the rounding error 1e-16 E / h. With
# h = 1e-4, jumps up to 10 eV/angstrom^3 and E below 10^3 eV, both stay below 1e-6 eV/angstrom.
STEP = 1e-4


def test_forces(model, atoms):
    forces = evaluate(model, atoms)["forces"].numpy()
    scale = np.abs(forces).max()
    for atom, axis in [(0, 0), (1, 2), (len(atoms) - 1, 1)]:

        def energy(x, atom=atom, axis=axis):
            return binding_energy(model, displaced(atoms, atom, axis, x))

        assert abs(-derivative(energy, STEP) - forces[atom, axis]) <= 1e-6 * max(1.0, scale)


def test_virial_and_stress(model, atoms):
    result = evaluate(model, atoms)
    virial = result["virial"][0].numpy()
    scale = np.abs(virial).max()
    for a, b in [(0, 0), (1, 1), (2, 2), (0, 1), (1, 2), (0, 2)]:

        def energy(x, a=a, b=b):
            strain = np.eye(3)
            strain[a, b] += x / 2
            strain[b, a] += x / 2
            moved = atoms.copy()
            moved.set_cell(atoms.cell.array @ strain, scale_atoms=False)
            moved.positions = atoms.positions @ strain
            return binding_energy(model, moved)

        assert abs(-derivative(energy, STEP) - virial[a, b]) <= 1e-6 * max(1.0, scale)
    if atoms.pbc.all():
        stress = result["stress"][0].numpy()
        np.testing.assert_allclose(stress, -virial / atoms.get_volume(), rtol=1e-12)


def binding_energy(model, atoms):
    """Energy without the constant E0, which would cost digits in a difference."""
    result = evaluate(model, atoms)
    species = [model.atomic_numbers.index(n) for n in atoms.numbers]
    return float((result["atom_energy"] - model.atomic_energies[species]).sum())
