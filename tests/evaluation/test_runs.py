"""``tdn-eval md`` and ``scan``: stability and smoothness, on potentials with known answers."""

import json

import ase
import ase.io
import numpy as np
import pytest
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.lj import LennardJones
from structures import TRAINED_MODEL
from training.helpers import water_like

from tdn.evaluation.bond_scan import Scan, scan_bond
from tdn.evaluation.cli import main
from tdn.evaluation.stability import format_stages, run_stability

R_MAX = 3.0


class Pair(Calculator):
    """Energy of a pair of atoms as a function of the distance, with its derivative."""

    implemented_properties = ("energy", "forces")

    def __init__(self, energy, slope) -> None:
        super().__init__()
        self.function, self.slope = energy, slope

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        vector = self.atoms.positions[1] - self.atoms.positions[0]
        r = np.linalg.norm(vector)
        force = self.slope(r) * vector / r
        self.results = {"energy": self.function(r), "forces": np.array([force, -force])}


def spring(r: float) -> float:
    return 0.5 * 30.0 * (r - 1.0) ** 2


@pytest.mark.slow
def test_an_oscillator_conserves_energy():
    atoms = ase.Atoms("H2", positions=[[0, 0, 0], [1.0, 0, 0]])
    stages = run_stability(
        atoms, Pair(spring, lambda r: 30.0 * (r - 1.0)), timestep=0.1, steps=2000
    )
    assert [s.name for s in stages] == ["NVT", "NVE"] and not any(s.broken for s in stages)
    nve = stages[1]
    assert nve.lifetime == pytest.approx(0.2)
    # velocity Verlet: energy errors of order (omega dt)^2 / 8 of the energy, here 0.08 eV * 2e-4
    assert abs(nve.drift) < 0.05 and nve.fluctuation < 0.05
    assert "stable to the end" in format_stages(stages)
    np.testing.assert_array_equal(atoms.positions[1], [1.0, 0, 0])  # the start is not changed


@pytest.mark.slow
def test_forces_that_are_no_gradient_drift():
    """A force that always pushes along the velocity of the bond: the energy grows steadily."""
    work = [0.0]

    def slope(r: float) -> float:
        pushed = 30.0 * (r - 1.0) - 8.0 * (r - work[0])
        work[0] = r
        return pushed

    atoms = ase.Atoms("H2", positions=[[0, 0, 0], [1.0, 0, 0]])
    work[0] = 1.0
    stages = run_stability(atoms, Pair(spring, slope), timestep=0.1, steps=2000)
    assert stages[-1].drift > 10.0 or stages[-1].broken


def test_broken_bonds_end_a_run():
    """A weak force drives the atoms apart: the bond is too long soon."""
    atoms = ase.Atoms("H2", positions=[[0, 0, 0], [0.7, 0, 0]])
    (stage,) = run_stability(
        atoms, Pair(lambda r: -0.2 * r, lambda r: -0.2), steps=2000, temperature=1000.0
    )
    assert stage.name == "NVT" and "the bond of atoms 0 and 1" in stage.broken
    assert 0 < stage.lifetime < 0.5


def test_a_smooth_scan():
    """Energy exp(-r): the second difference changes by step times the third derivative."""
    atoms = ase.Atoms("H2", positions=[[0, 0, 0], [1.0, 0, 0]])
    scan = scan_bond(atoms, Pair(lambda r: np.exp(-r), lambda r: -np.exp(-r)), 0, 1, R_MAX)
    assert scan.distance[0] == pytest.approx(0.7) and scan.distance[-1] == pytest.approx(3.3)
    # fourth order: h^4 / 30 of the fifth derivative, and rounding
    assert scan.force_error < scan.step**4 / 30 + 1e-11
    assert scan.largest_jump == pytest.approx(scan.step * np.exp(-0.7), rel=0.02)
    assert scan.roughness == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize(("power", "ratio"), [(2, 1.0), (1, 2.0)])
def test_kinks_are_seen(power, ratio):
    """(2.4 - r)^n for r < 2.4 else 0: the second derivative jumps (n = 2), or the force (n = 1)."""

    def energy(r: float) -> float:
        return max(0.0, 2.4 - r) ** power

    def slope(r: float) -> float:
        return -power * max(0.0, 2.4 - r) ** (power - 1) if r < 2.4 else 0.0

    atoms = ase.Atoms("H2", positions=[[0, 0, 0], [1.0, 0, 0]])
    scan = scan_bond(atoms, Pair(energy, slope), 0, 1, R_MAX)
    # where the kink falls between points decides by up to a factor of two
    assert 0.5 * ratio < scan.roughness < 2 * ratio and scan.roughness > 0.6


def test_inconsistent_forces_are_seen():
    x = np.linspace(1.0, 2.0, 101)
    assert Scan(x, np.sin(x), -np.cos(x)).force_error < 1e-8
    assert Scan(x, np.sin(x), -np.cos(x) + 1e-3).force_error == pytest.approx(1e-3, rel=1e-3)


def test_periodic_liquids_have_no_bonds_to_break():
    """A Lennard-Jones box: atoms leave each other, which breaks nothing."""
    grid = np.stack(np.meshgrid(*3 * [np.arange(3)], indexing="ij"), axis=-1).reshape(-1, 3)
    atoms = ase.Atoms("Ar27", positions=3.9 * grid, cell=3 * [11.7], pbc=True)
    calculator = LennardJones(sigma=3.4, epsilon=0.01, rc=5.5, smooth=True)
    stages = run_stability(atoms, calculator, temperature=300.0, timestep=2.0, steps=100)
    assert not any(s.broken for s in stages)
    assert abs(stages[1].drift) < 1.0


@pytest.fixture
def folder(tmp_path):
    ase.io.write(tmp_path / "frames.xyz", [water_like(s) for s in range(2)])
    return tmp_path


@pytest.mark.slow
def test_scan_of_a_network(folder, capsys):
    """Trained on water: forces are the gradient and all is smooth, also across the cutoff."""
    arguments = ["scan", str(TRAINED_MODEL), str(folder / "frames.xyz"), "0", "1"]
    arguments += ["--points", "801"]
    assert main([*arguments, "-o", str(folder / "out"), "--frame", "2"]) == 0
    assert "force against -dE/dr" in capsys.readouterr().out
    scan = json.loads((folder / "out" / "scan.json").read_text())
    # the derivative's own error falls with the fourth power of the step
    assert scan["force_error_eV_per_A"] < 1e-3
    # 0.5 in the limit; a third derivative that varies from point to point gives a little more
    assert scan["jump_ratio_at_half_step"] < 0.75
    assert (folder / "out" / "scan.png").stat().st_size > 1000


def test_dynamics_of_a_network(folder, capsys):
    """One molecule for some femtoseconds: stable, and the numbers fit together."""
    arguments = ["md", str(TRAINED_MODEL), str(folder / "frames.xyz"), "--steps", "40"]
    code = main([*arguments, "-o", str(folder / "out"), "--temperature", "50"])
    out = capsys.readouterr().out
    values = json.loads((folder / "out" / "md.json").read_text())
    assert code == int(any(stage["broken"] is not None for stage in values.values()))
    assert out.startswith("NVT  ") and set(values) <= {"NVT", "NVE"}
    assert (folder / "out" / "stability.png").stat().st_size > 1000
