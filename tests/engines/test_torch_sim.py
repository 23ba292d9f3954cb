"""torch-sim: many structures at once give the numbers of the ASE calculator."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from ase.build import bulk
from structures import random_model, slab, triclinic_cell, water_cluster

from tdn import TDNCalculator
from tdn.network.checkpoint import save_model
from tdn.system.errors import TDNError

torch_sim = pytest.importorskip("torch_sim", reason="needs torch-sim-atomistic")


def crystals():
    """Of different sizes, elements and distortions."""
    rng = np.random.default_rng(3)
    found = [triclinic_cell(seed) for seed in range(3)]
    for size in (1, 2):
        atoms = bulk("O", "fcc", a=4.2, cubic=True) * (1, 1, size)
        atoms.symbols[::2] = "H"
        atoms.positions += 0.1 * rng.normal(size=atoms.positions.shape)
        found.append(atoms)
    return found


@pytest.fixture(params=["checkpoint", "export"])
def path(request, shared_files):
    return getattr(shared_files, request.param)("default")


def test_a_batch_gives_the_numbers_of_ase(path):
    from tdn.torch_sim import TDNModel

    model = TDNModel(path)
    state = torch_sim.io.atoms_to_state(crystals(), model.device, model.dtype)
    found = model(state)
    for number, atoms in enumerate(crystals()):
        atoms.calc = TDNCalculator(path)
        mine = state.system_idx == number
        energy = atoms.get_potential_energy()
        assert found["energy"][number].item() == pytest.approx(energy, rel=1e-12)
        forces = found["forces"][mine].numpy()
        np.testing.assert_allclose(forces, atoms.get_forces(), rtol=0, atol=1e-10)
        stress = found["stress"][number].numpy()
        np.testing.assert_allclose(stress, atoms.get_stress(voigt=False), rtol=0, atol=1e-12)


def test_molecules_have_no_stress(path):
    from tdn.torch_sim import TDNModel

    clusters = [water_cluster(1), water_cluster(2, 2)]
    model = TDNModel(path, compute_stress=False)
    state = torch_sim.io.atoms_to_state(clusters, model.device, model.dtype)
    state.pbc = False
    found = model(state)
    assert "stress" not in found
    for number, atoms in enumerate(clusters):
        atoms.calc = TDNCalculator(path)
        forces = found["forces"][state.system_idx == number].numpy()
        np.testing.assert_allclose(forces, atoms.get_forces(), rtol=0, atol=1e-10)


def test_dynamics_conserves_energy(path):
    """Velocity Verlet of torch-sim: the total energy of each crystal stays, the kinetic moves."""
    from tdn.torch_sim import TDNModel

    model = TDNModel(path, compute_stress=False)
    atoms = [triclinic_cell(0), triclinic_cell(1)]
    totals = []

    def kinetic(state):
        energy = state.momenta.square().sum(1) / (2 * state.masses)
        return torch.zeros(2, dtype=energy.dtype).index_add_(0, state.system_idx, energy)

    state = torch_sim.io.atoms_to_state(atoms, model.device, model.dtype)
    begin, advance = velocity_verlet(model, torch.tensor(0.002, dtype=model.dtype))
    state = begin(state)
    kinetics = []
    for _ in range(40):
        state = advance(state)
        kinetics.append(kinetic(state))
        totals.append(state.energy + kinetics[-1])
    totals, kinetics = torch.stack(totals), torch.stack(kinetics)
    assert (totals.max(0).values - totals.min(0).values).max() < 0.01 * (
        kinetics.max(0).values - kinetics.min(0).values
    ).min()


def velocity_verlet(model, step):
    """Functions that begin and advance; torch-sim 0.3 has one that makes both."""
    if not hasattr(torch_sim, "nve_init"):
        return torch_sim.integrators.nve(model, dt=step, kT=10 * step, seed=1)
    return (
        partial(torch_sim.nve_init, model=model, kT=10 * step, seed=1),
        partial(torch_sim.nve_step, model=model, dt=step),
    )


def test_what_is_refused(tmp_path, shared_files):
    from tdn.torch_sim import TDNModel

    with pytest.raises(TDNError, match="absent"):
        TDNModel(tmp_path / "absent.pt")
    save_model(tmp_path / "direct.pt", random_model("attention", forces="direct"), {})
    model = TDNModel(tmp_path / "direct.pt")
    assert not model.compute_stress
    with pytest.raises(NotImplementedError, match="direct forces has no stress"):
        model.compute_stress = True
    model = TDNModel(shared_files.checkpoint("default"))
    state = torch_sim.io.atoms_to_state([bulk("Cu", cubic=True)], model.device, model.dtype)
    with pytest.raises(TDNError, match="element Cu is not known"):
        model(state)
    flat = slab()
    flat.cell[2] = 0
    state = torch_sim.io.atoms_to_state([flat], model.device, model.dtype)
    state.pbc = False
    with pytest.raises(TDNError, match="three lattice vectors"):
        model(state)
