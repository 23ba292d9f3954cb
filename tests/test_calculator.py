"""The ASE calculator: units, signs, derivatives, dynamics and messages."""

from __future__ import annotations

from pathlib import Path

import ase
import ase.io
import ase.units
import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.calculator import PropertyNotImplementedError
from ase.filters import FrechetCellFilter
from ase.md.verlet import VelocityVerlet
from ase.optimize import FIRE
from structures import STRUCTURES, TRAINED_MODEL, random_model

from tdn import TDNCalculator, TDNError, UsageError
from tdn.graph import collate, graph_from_atoms
from tdn.network.checkpoint import save_model
from tdn.network.initial_norms import normalize_activations
from tdn_export import export_model

WATER = Path(__file__).parents[1] / "examples" / "water" / "water.xyz.gz"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A small network with activations of order one and forces of the size of a trained one."""
    model = random_model("default")
    graphs = [graph_from_atoms(make(), model.atomic_numbers, 4.0) for make in STRUCTURES.values()]
    normalize_activations(model, collate(graphs))
    model.set_statistics(model.atomic_energies, 0.2)
    path = tmp_path_factory.mktemp("calculator") / "model.pt"
    save_model(path, model, {"epochs": 1})
    return path


@pytest.fixture(scope="module")
def compiled(checkpoint):
    return export_model(checkpoint).path


@pytest.fixture(scope="module", params=["checkpoint", "compiled"])
def calculator(request):
    return TDNCalculator(request.getfixturevalue(request.param), device="cpu")


def shifted_energy(atoms: ase.Atoms, atom: int, axis: int, step: float) -> float:
    moved = atoms.copy()
    moved.calc = atoms.calc
    moved.positions[atom, axis] += step
    return moved.get_potential_energy()


@pytest.mark.parametrize("name", ["cluster", "small_cell", "triclinic"])
def test_forces_are_minus_the_gradient(calculator, name):
    """Central differences: at h = 1e-5 truncation (h^2) and rounding (1e-13/h) stay below 1e-7."""
    atoms = STRUCTURES[name]()
    atoms.calc = calculator
    forces = atoms.get_forces()
    assert np.abs(forces).max() > 0.01
    h = 1e-5
    for atom, axis in ((0, 0), (1, 2), (2, 1)):
        up, down = (shifted_energy(atoms, atom, axis, s * h) for s in (1, -1))
        slope = -(up - down) / (2 * h)
        assert slope == pytest.approx(forces[atom, axis], abs=1e-6 * np.abs(forces).max() + 1e-7)


@pytest.mark.parametrize("name", ["small_cell", "triclinic"])
def test_stress_is_the_derivative_by_strain(calculator, name):
    """sigma = 1/V dE/d(strain), each Voigt component with ASE's sign and order."""
    atoms = STRUCTURES[name]()
    atoms.calc = calculator
    stress = atoms.get_stress()
    assert np.abs(stress).max() > 1e-4
    h = 1e-5
    for component, (i, j) in enumerate([(0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1)]):
        energies = []
        for sign in (1, -1):
            strain = np.eye(3)
            strain[i, j] += sign * h / 2
            strain[j, i] += sign * h / 2
            moved = atoms.copy()
            moved.set_cell(atoms.cell @ strain, scale_atoms=True)
            moved.calc = calculator
            energies.append(moved.get_potential_energy())
        slope = (energies[0] - energies[1]) / (2 * h) / atoms.get_volume()
        assert slope == pytest.approx(stress[component], abs=1e-6 * np.abs(stress).max() + 1e-8)


def test_all_properties(calculator):
    atoms = STRUCTURES["triclinic"]()
    atoms.calc = calculator
    energy = atoms.get_potential_energy()
    assert isinstance(energy, float)
    assert atoms.get_potential_energies().sum() == pytest.approx(energy, rel=1e-13)
    assert atoms.get_potential_energy(force_consistent=True) == energy
    assert atoms.get_forces().shape == (10, 3)
    assert np.abs(atoms.get_forces().sum(axis=0)).max() < 1e-12 * np.abs(atoms.get_forces()).sum()
    assert atoms.get_stress().shape == (6,)
    assert set(calculator.results) == set(calculator.implemented_properties)


def test_results_follow_the_atoms(calculator):
    """Moved atoms, another cell, other elements and other atoms are computed anew."""
    atoms = STRUCTURES["triclinic"]()
    atoms.calc = calculator
    seen = [atoms.get_potential_energy()]
    atoms.positions[0] += 0.1
    seen.append(atoms.get_potential_energy())
    atoms.set_cell(atoms.cell * 1.02, scale_atoms=True)
    seen.append(atoms.get_potential_energy())
    atoms.symbols[0] = "O"
    seen.append(atoms.get_potential_energy())
    del atoms[-1]
    seen.append(atoms.get_potential_energy())
    atoms.pbc = False
    seen.append(atoms.get_potential_energy())
    assert len({round(e, 9) for e in seen}) == len(seen)


def test_stress_needs_a_periodic_cell(calculator):
    atoms = STRUCTURES["cluster"]()
    atoms.calc = calculator
    atoms.get_potential_energy()
    with pytest.raises(PropertyNotImplementedError, match="periodic cell"):
        atoms.get_stress()
    boxed = STRUCTURES["cluster"]()
    boxed.cell = [20, 20, 20]  # a cell without periodicity is only a box
    boxed.calc = calculator
    with pytest.raises(PropertyNotImplementedError, match="periodic cell"):
        boxed.get_stress()


def test_unknown_element_is_named(calculator):
    atoms = bulk("Cu")
    atoms.calc = calculator
    with pytest.raises(TDNError, match=r"element Cu is not known to the model \(it knows H, O\)"):
        atoms.get_potential_energy()


def test_lone_atom_and_no_atoms(calculator):
    atoms = ase.Atoms("O")
    atoms.calc = calculator
    assert atoms.get_potential_energy() == pytest.approx(-432.1, rel=1e-6)
    assert np.abs(atoms.get_forces()).max() == 0
    empty = ase.Atoms()
    empty.calc = calculator
    assert empty.get_potential_energy() == 0


def test_positions_that_are_no_numbers(calculator):
    atoms = STRUCTURES["cluster"]()
    atoms.positions[1, 1] = np.nan
    atoms.calc = calculator
    with pytest.raises(TDNError, match="NaN"):
        atoms.get_potential_energy()


def test_atoms_at_the_same_place(calculator):
    """The direction between them means nothing: an error, not results that are NaN."""
    atoms = ase.Atoms("H2", positions=np.ones((2, 3)))
    atoms.calc = calculator
    with pytest.raises(TDNError, match="atoms at the same place"):
        atoms.get_forces()


def test_precision_of_a_checkpoint(checkpoint):
    atoms = STRUCTURES["cluster"]()
    forces = {}
    for dtype in (None, "float64", "float32"):
        atoms.calc = TDNCalculator(checkpoint, device="cpu", dtype=dtype)
        forces[dtype] = atoms.get_forces().copy()
        assert forces[dtype].dtype == np.float64
    assert np.array_equal(forces[None], forces["float64"])
    error = np.abs(forces["float32"] - forces["float64"]).max() / np.abs(forces["float64"]).max()
    assert 0 < error < 1e-4


def test_bad_arguments(checkpoint, tmp_path):
    with pytest.raises(UsageError, match="dtype is 'half'"):
        TDNCalculator(checkpoint, dtype="half")
    with pytest.raises(UsageError, match="unknown option 'devise'"):
        TDNCalculator(checkpoint, devise="cpu")
    with pytest.raises(UsageError, match="model is None, expected the path"):
        TDNCalculator(None)
    with pytest.raises(UsageError, match="device = 'gpu'"):
        TDNCalculator(checkpoint, device="gpu")
    with pytest.raises(TDNError, match="not found"):
        TDNCalculator(tmp_path / "none.pt")


def test_optimizers_lower_the_energy(calculator):
    """A few short steps of the atoms, then of atoms and cell; random weights have no minimum."""
    for name, wrap in (("cluster", lambda atoms: atoms), ("triclinic", FrechetCellFilter)):
        atoms = STRUCTURES[name]()
        atoms.calc = calculator
        energies = [atoms.get_potential_energy()]
        optimizer = FIRE(wrap(atoms), logfile=None, maxstep=0.002)
        optimizer.attach(lambda: energies.append(atoms.get_potential_energy()))  # noqa: B023
        optimizer.run(fmax=1e-6, steps=4)
        assert energies[-1] < energies[0] - 1e-4


def energy_fluctuation(calculator: TDNCalculator, timestep: float, duration: float) -> float:
    """Standard deviation of the total energy in eV along a trajectory at 300 K."""
    frames = ase.io.read(WATER, ":")
    atoms = next(f for f in frames if f.info["config_type"] == "n16_d1.00_T300")
    atoms.calc = calculator
    rng = np.random.default_rng(0)
    masses = atoms.get_masses()[:, None]
    momenta = rng.normal(size=(len(atoms), 3)) * np.sqrt(300 * ase.units.kB * masses)
    atoms.set_momenta(momenta - masses * momenta.sum(axis=0) / masses.sum())
    dynamics = VelocityVerlet(atoms, timestep=timestep * ase.units.fs)
    energies = []
    dynamics.attach(lambda: energies.append(atoms.get_total_energy()))
    dynamics.run(round(duration / timestep))
    assert atoms.get_kinetic_energy() > 0.01
    return float(np.std(energies))


@pytest.mark.slow
def test_dynamics_conserve_energy():
    """Velocity Verlet conserves a shadow energy: the true one fluctuates by O(dt^2).

    Halving the time step must divide the fluctuation by four, if forces are the exact gradient of a
    smooth energy, also while atoms cross the cutoff; any other error would not fall so.
    """
    calculator = TDNCalculator(TRAINED_MODEL, device="cpu", dtype="float64")
    coarse = energy_fluctuation(calculator, 0.4, 40.0)
    fine = energy_fluctuation(calculator, 0.2, 40.0)
    assert coarse / fine == pytest.approx(4.0, rel=0.15)
    assert fine < 0.01  # eV for 48 atoms, whose kinetic energy is 2 eV
