"""Errors against deviations of a committee: the factor, the curve, the area."""

import json

import ase.io
import numpy as np
import pytest
from ase.calculators.singlepoint import SinglePointCalculator
from structures import STRUCTURES, random_model

from tdn.evaluation.calibration import SHARES, calibrate
from tdn.evaluation.cli import main
from tdn.network.checkpoint import save_model
from tdn_export import export_model

COUNT = 20_000


def normal_errors(components: int, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """Sizes of normal errors that are ``scale`` times as large as the deviations say."""
    generator = np.random.default_rng(components)
    deviation = np.exp(generator.normal(size=COUNT))
    vectors = generator.normal(size=(COUNT, components)) / np.sqrt(components)
    return scale * deviation * np.linalg.norm(vectors, axis=1), deviation


@pytest.mark.parametrize("components", [1, 3])
def test_normal_errors_lie_on_the_diagonal(components):
    error, deviation = normal_errors(components, 3.0)
    found = calibrate(error, deviation, components)
    # weights by deviation^2, which is lognormal with exponent 2: mean of squares over square of
    # the mean is e^4, so COUNT / 55 effective errors; four standard errors
    assert found.factor == pytest.approx(3.0, rel=4 / np.sqrt(2 * components * COUNT / np.exp(4)))
    exact = calibrate(error, deviation, components, factor=3.0)
    # a share is known to 1 / sqrt(4 COUNT)
    assert np.abs(exact.observed - SHARES).max() < 4 / np.sqrt(4 * COUNT)
    assert exact.area < 0.01 and exact.used == 3.0 and exact.factor == found.factor
    assert exact.area_as_is > 0.2
    # a wrong factor shows
    assert calibrate(error, deviation, components, factor=1.0).area == exact.area_as_is


def test_the_order_alone_decides_the_rank_correlation():
    deviation = np.linspace(1.0, 2.0, 50)
    assert calibrate(deviation**3, deviation, 3).correlation == pytest.approx(1.0)
    assert calibrate(1 / deviation, deviation, 3).correlation == pytest.approx(-1.0)


def test_overconfident_everywhere_gives_half_the_square():
    """Errors beyond all bounds: nothing is observed within any share but the last."""
    found = calibrate(np.full(10, 1e6), np.ones(10), 1, factor=1.0)
    assert found.area == pytest.approx(0.5, abs=0.01)


def test_missing_labels_and_atoms_without_deviation_do_not_count():
    error, deviation = np.array([1.0, np.nan, 2.0, 5.0]), np.array([1.0, 1.0, 1.0, 0.0])
    found = calibrate(error, deviation, 1)
    assert found.count == 2 and found.factor == pytest.approx(np.sqrt(2.5))
    assert calibrate(np.full(3, np.nan), np.ones(3), 1) is None


def test_command_prints_and_writes_the_calibration(tmp_path, capsys):
    paths = [tmp_path / "a.pt", tmp_path / "b.pt"]
    for seed, path in enumerate(paths):
        save_model(path, random_model("l1", seed), {})
    committee, frames = tmp_path / "committee.tdn.pth", tmp_path / "frames.xyz"
    export_model(paths, committee, fused=False)
    generator, written = np.random.default_rng(1), []
    for _ in range(3):
        atoms = STRUCTURES["cluster"]()
        forces = generator.normal(size=(len(atoms), 3))
        atoms.calc = SinglePointCalculator(atoms, energy=1.0, forces=forces)
        written.append(atoms)
    ase.io.write(frames, written)
    capsys.readouterr()
    assert main(["errors", str(committee), str(frames), "-o", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert "forces  error =" in printed and "rank correlation" in printed
    values = json.loads((tmp_path / "out" / "errors.json").read_text())["calibration"]
    assert values["forces"]["count"] == 3 * len(written[0])
    assert values["forces"]["used"] == values["forces"]["factor"] > 0
    assert (tmp_path / "out" / "calibration.png").stat().st_size > 0
