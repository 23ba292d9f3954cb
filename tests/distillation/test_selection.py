"""Which frames are labeled: bounds, distance in features, runs that explode."""

from __future__ import annotations

import ase
import numpy as np
import pytest
from ase.calculators.calculator import Calculator
from scipy.spatial.transform import Rotation
from structures import TRAINED_MODEL, small_cell

from tdn.config.distillation import RoundsConfig
from tdn.data.frames import Frame
from tdn.evaluation.dynamics.plan import Plan, Sample, Segment, Trajectory
from tdn.training.distillation.features import farthest_points, frame_features
from tdn.training.distillation.selection import Bounds, error_ratio, find_bounds, select


def test_farthest_points_of_a_line():
    known = np.array([[0.0, 0.0]])
    found = np.array([[1.0, 0.0], [10.0, 0.0], [5.0, 0.0], [9.5, 0.0], [0.0, 0.0]])
    # 10 is farthest from 0; then the middle; then what is farthest from 0, 5 and 10
    assert farthest_points(known, found, 3) == [1, 2, 0]
    assert farthest_points(known, found, 10)[:3] == [1, 2, 0]
    assert farthest_points(known, found[:0], 3) == []


def test_points_that_are_equal_are_taken_once():
    found = np.repeat(np.array([[1.0, 2.0], [3.0, 4.0]]), 5, axis=0)
    assert len(farthest_points(np.zeros((0, 2)), found, 10)) == 2


def test_what_matters_more_is_chosen_where_it_is_as_far():
    known = np.array([[0.0]])
    found = np.array([[1.0], [-1.0], [4.0]])
    assert farthest_points(known, found, 1, np.array([1.0, 2.0, 1.0])) == [2]
    assert farthest_points(known, found, 1, np.array([1.0, 5.0, 1.0])) == [1]
    # what was chosen is known: its weight no longer counts
    assert farthest_points(known, found, 3, np.array([1.0, 1e6, 1.0])) == [1, 2, 0]


def test_columns_without_spread_do_not_matter():
    found = np.array([[1.0, 1e-30], [2.0, 0.0], [3.0, 0.0]])
    assert np.isfinite(farthest_points(found[:1], found, 2)).all()


def test_features_know_matter_and_not_its_orientation():
    atoms = small_cell()
    turned = atoms.copy()
    turned.positions = atoms.positions @ Rotation.random(random_state=0).as_matrix().T
    turned.cell = atoms.cell.array @ Rotation.random(random_state=0).as_matrix().T
    moved = atoms.copy()
    moved.positions += 0.1 * np.random.default_rng(0).normal(size=moved.positions.shape)
    one, same, other, double = frame_features(
        TRAINED_MODEL, [atoms, turned, moved, atoms * (2, 1, 1)]
    )
    scale = np.abs(one).max()
    assert np.abs(one - same).max() < 1e-4 * scale
    assert np.abs(one - double).max() < 1e-4 * scale
    assert np.abs(one - other).max() > 1e-2 * scale


def run_of(name: str, deviations: list[float], broken: str | None = None) -> Trajectory:
    rng = np.random.default_rng(len(name))
    atoms = small_cell()
    samples = []
    for deviation in deviations:
        work = atoms.copy()
        work.positions += 0.05 * rng.normal(size=work.positions.shape)
        samples.append(Sample(work, name, deviation))
    plan = Plan(name, atoms, (Segment(name, 300, 300, 10),), 1.0, 1)
    return Trajectory(plan, samples, broken)


def test_frames_between_the_bounds_are_chosen():
    runs = [run_of("a", [0.01, 0.2, 0.3, 5.0]), run_of("b", [0.02, 0.03])]
    found = select(runs, Bounds(0.1, 1.0), TRAINED_MODEL, [], 10)
    assert [c.kind for c in found.chosen] == ["a", "a"]
    assert (found.total, found.above, found.beyond) == (6, 3, 1)
    assert found.share == pytest.approx(0.5)
    assert found.worst == {"a": 5.0, "b": 0.03}


def test_the_number_is_limited():
    runs = [run_of("a", [0.5] * 8)]
    assert len(select(runs, Bounds(0.1, 1.0), TRAINED_MODEL, [], 3).chosen) == 3


def test_the_last_sane_frames_of_an_explosion_are_candidates():
    runs = [run_of("a", [0.01, 0.02, 0.03, 0.04], "the temperature is 99999 K")]
    found = select(runs, Bounds(0.1, 1.0), TRAINED_MODEL, [], 10)
    positions = sorted(c.atoms.positions.sum() for c in found.chosen)
    expected = sorted(s.atoms.positions.sum() for s in runs[0].samples[-2:])
    assert positions == pytest.approx(expected)
    assert found.share == 1.0 and found.broken == {"a": "the temperature is 99999 K"}


def test_frames_after_atoms_have_met_are_dropped():
    run = run_of("a", [0.1, 0.1, 0.1])
    run.samples[1].atoms.positions[1] = run.samples[1].atoms.positions[0] + [0.1, 0, 0]
    run.keep_sane()
    assert len(run.samples) == 1 and "atoms 0 and 1 are 0.10 A apart" in run.broken


def test_the_last_sane_frames_come_before_all_others():
    deviations = [0.5] * 20 + [0.2, 0.2, 3.0]
    run = run_of("a", deviations, "the deviation is 3 eV/angstrom")
    found = select([run, run_of("b", [0.9] * 20)], Bounds(0.1, 1.0), TRAINED_MODEL, [], 4)
    assert len(found.chosen) == 4
    for candidate, sample in zip(found.chosen[:2], run.samples[20:22], strict=True):
        assert np.array_equal(candidate.atoms.positions, sample.atoms.positions)
    # but take no more than half
    found = select([run, run_of("b", [0.9] * 20)], Bounds(0.1, 1.0), TRAINED_MODEL, [], 2)
    assert [c.kind for c in found.chosen] == ["a", "b"]


class Spread(Calculator):
    """Forces and deviations that are the same everywhere."""

    implemented_properties = ("energy", "forces")

    def __init__(self, force: float, spread: float) -> None:
        super().__init__()
        self.force, self.spread = force, spread

    def calculate(self, atoms, *arguments, **keys):
        super().calculate(atoms, *arguments, **keys)
        size = len(atoms)
        self.results = {
            "energy": 0.0,
            "forces": np.full((size, 3), self.force),
            "forces_std": np.full(size, self.spread),
        }


def test_the_ratio_of_error_to_deviation_is_that_of_validation_frames():
    atoms = ase.Atoms("H2", [[0, 0, 0], [1, 0, 0]])

    def frame(split, force, config_type="x"):
        return Frame(
            atoms, 1, "x", 0.0, np.full((2, 3), force), config_type=config_type, split=split
        )

    # a training frame without error, a close contact with a large one
    frames = [frame("train", 0.2), frame("valid", 0.5), frame("valid", 0.5), frame("valid", 50.0)]
    error = 0.3 * np.sqrt(3)
    assert error_ratio(Spread(0.2, 0.1), frames) == pytest.approx(error / 0.1)
    assert error_ratio(Spread(0.2, 1.0), frames) == 1.0  # errors below the deviation are luck
    assert error_ratio(Spread(0.2, 1e-3), frames) == 10.0
    assert error_ratio(Spread(0.2, 0.1), frames[:1]) == 1.0


def test_artificial_frames_do_not_set_the_bounds():
    atoms = ase.Atoms("H2", [[0, 0, 0], [1, 0, 0]])
    frames = [
        Frame(atoms, 1, "x", 0.0, np.full((2, 3), 2.0)),
        Frame(atoms, 2, "x", 0.0, np.full((2, 3), 99.0), config_type="contact"),
    ]
    assert find_bounds(RoundsConfig(), frames) == find_bounds(RoundsConfig(), frames[:1])
    # an error is that many times the deviation
    assert find_bounds(RoundsConfig(), frames, 3.0).lower == pytest.approx(0.02 * np.sqrt(12.0))
    assert find_bounds(RoundsConfig(), frames, 3.0).upper == pytest.approx(1.2 * np.sqrt(12.0))


def test_bounds_follow_the_forces():
    forces = np.full((2, 3), 2.0)
    atoms = ase.Atoms("H2", [[0, 0, 0], [1, 0, 0]])
    frames = [
        Frame(atoms, 1, "x", 0.0, forces),
        Frame(ase.Atoms("H"), 2, "x", 0.0, np.zeros((1, 3))),
    ]
    rms = np.sqrt(12.0)  # of the length of the force; isolated atoms do not count
    found = find_bounds(RoundsConfig(), frames)
    assert found.lower == pytest.approx(0.06 * rms) and found.upper == pytest.approx(1.2 * rms)
    found = find_bounds(RoundsConfig(lower=0.05, upper=0.3), frames)
    assert (found.lower, found.upper) == (0.05, 0.3)
