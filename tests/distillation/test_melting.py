"""Whether runs that should melt have melted: measured, said, and in the report."""

from __future__ import annotations

import ase
import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.lj import LennardJones

from tdn.config.distillation import RoundsConfig
from tdn.evaluation.dynamics.in_ase import run_in_ase
from tdn.evaluation.dynamics.melting import SOLID, displacement_in_spacings
from tdn.evaluation.dynamics.plan import Plan, Sample, Segment, Trajectory
from tdn.training.distillation.exploration import still_solid, words_of_solids

SALT = bulk("NaCl", "rocksalt", a=5.6, cubic=True) * 2
# angstrom, of the cube that an ion has for itself
SPACING = 2.8


def vibrating(deviation: float, count: int = 40) -> list[ase.Atoms]:
    """Independent displacements with this standard deviation of a component, wrapped."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(count):
        atoms = SALT.copy()
        atoms.positions += deviation * rng.standard_normal(atoms.positions.shape)
        atoms.wrap()
        found.append(atoms)
    return found


def walking(step: float, moving: np.ndarray, count: int = 40) -> list[ase.Atoms]:
    """Random walks of some atoms, wrapped."""
    rng = np.random.default_rng(1)
    atoms, found = SALT.copy(), []
    for _ in range(count):
        atoms.positions[moving] += step * rng.standard_normal((int(moving.sum()), 3))
        sample = atoms.copy()
        sample.wrap()
        found.append(sample)
    return found


def samples(structures: list[ase.Atoms], kind: str = "melt 900 K") -> list[Sample]:
    return [Sample(atoms, kind, 0.0) for atoms in structures]


def test_a_crystal_that_vibrates_has_the_displacement_of_its_atoms():
    moved = displacement_in_spacings(SALT, samples(vibrating(0.3)))
    # 10 samples of 32 atoms of one element: 960 numbers, their RMS is right within 2.3 %
    assert moved == pytest.approx(np.sqrt(3) * 0.3 / SPACING, rel=0.1)
    assert moved < SOLID


def test_walks_are_followed_through_the_faces_of_the_cell():
    walk = walking(0.5, np.ones(64, bool), 400)
    moved = displacement_in_spacings(SALT, samples(walk))
    # 3 * 0.25 angstrom^2 for each step, 350 steps on average, without the motion of the whole;
    # half of 64 walks that are all but constant at the end: 10 % each for two standard errors
    assert moved == pytest.approx(np.sqrt(0.75 * 350) / SPACING, rel=0.2)


def test_the_motion_of_the_whole_and_a_swelling_cell_are_no_melt():
    drifting = []
    for step in range(40):
        atoms = SALT.copy()
        atoms.set_cell(atoms.cell.array * (1 + 2e-3 * step), scale_atoms=True)
        atoms.positions += 0.3 * step
        atoms.wrap()
        drifting.append(atoms)
    assert displacement_in_spacings(SALT, samples(drifting)) < 1e-9


def test_a_crystal_with_one_liquid_sublattice_is_no_melt():
    walk = walking(0.5, SALT.numbers == 11, 100)
    assert displacement_in_spacings(SALT, samples(walk)) < SOLID


def test_argon_melts_where_it_is_hot_enough():
    """Below the melting point (84 K) it stays; far above it and less dense, not."""
    crystal = bulk("Ar", "fcc", a=5.3, cubic=True) * 2
    loose = crystal.copy()
    loose.set_cell(1.1 * crystal.cell.array, scale_atoms=True)
    for atoms, temperature, melts in ((crystal, 40.0, False), (loose, 500.0, True)):
        segments = (Segment("melt", temperature, temperature, 300),)
        calculator = LennardJones(sigma=3.4, epsilon=0.0104, rc=5.2, smooth=False)
        run = run_in_ase(Plan("melt", atoms, segments, 10.0, 10, seed=2), calculator)
        assert (displacement_in_spacings(atoms, run.samples) > SOLID) == melts
        assert set(still_solid([run])) == (set() if melts else {"melt"})


def test_only_whole_runs_that_should_melt_are_judged():
    def trajectory(name: str, kind: str, broken: str | None = None) -> Trajectory:
        plan = Plan(name, SALT, (Segment(kind, 2000.0, 2000.0, 40),), 2.0, 1)
        return Trajectory(plan, samples(vibrating(0.2), kind), broken)

    runs = [
        trajectory("s0_melt", "melting"),
        trajectory("s0_T300", "300 K"),
        trajectory("s1_melt", "melt 900 K", broken="atoms 3 and 5 are 0.1 A apart"),
    ]
    runs[0].samples += samples(walking(0.5, np.ones(64, bool)), "quench")
    found = still_solid(runs)
    assert set(found) == {"s0_melt"}
    words = words_of_solids(found, RoundsConfig(melt=2000.0, md_steps=3000))
    assert words.startswith(
        "stayed solid instead of melting: atoms of s0_melt moved by 0.12 of their spacing"
    )
    assert "higher rounds.melt (now 2000 K)" in words and "rounds.md_steps (now 3000)" in words
