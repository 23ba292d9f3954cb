"""What ``preset: paper`` trains with: its loss, and a learning rate that falls on plateaus."""

from __future__ import annotations

import ase
import numpy as np
import pytest
import torch

from tdn.config import config_from_dict
from tdn.data.frames import Frame
from tdn.data.statistics import energy_scale, find_atomic_energies, force_scale
from tdn.training.loss import Loss, Targets
from tdn.training.optimizer.schedule import Schedule, lower_on_plateau
from tdn.training.run.resume import Progress


def targets(forces, energy=(0.0, 0.0), weight=None):
    """Two frames of one and of two atoms."""
    return Targets(
        torch.tensor(energy, dtype=torch.float64),
        torch.as_tensor(forces, dtype=torch.float64),
        torch.zeros(2, 3, 3, dtype=torch.float64),
        torch.tensor([1, 2]),
        weight,
    )


def terms(loss, prediction, labels):
    return loss._sums(prediction, labels) / loss._counts(labels).clamp(min=1)


def test_loss_of_molecules():
    """L1 of the energy per atom, and the RMS of the force errors' norms over each frame."""
    loss = Loss(1.0, 1.0, 0.0, function="molecule")
    prediction = {
        "energy": torch.tensor([3.0, -4.0], dtype=torch.float64),
        "forces": torch.tensor([[3.0, 4, 0], [1, 0, 0], [0, 0, 7]], dtype=torch.float64),
    }
    labels = targets([[0.0] * 3] * 3)
    energy, forces, _ = terms(loss, prediction, labels).tolist()
    assert energy == pytest.approx((3 / 1 + 4 / 2) / 2)
    assert forces == pytest.approx((5 + ((1 + 49) / 2) ** 0.5) / 2)
    # an atom without a label takes no part, nor does a frame without any
    nan = float("nan")
    _, forces, _ = terms(loss, prediction, targets([[0.0] * 3, [0.0] * 3, [nan] * 3])).tolist()
    assert forces == pytest.approx((5 + 1) / 2)
    _, forces, _ = terms(loss, prediction, targets([[nan] * 3, [0.0] * 3, [0.0] * 3])).tolist()
    assert forces == pytest.approx(5.0)
    weight = torch.tensor([2.0, 0.0], dtype=torch.float64)
    _, forces, _ = terms(loss, prediction, targets([[0.0] * 3] * 3, weight=weight)).tolist()
    assert forces == pytest.approx(2 * 5 / 2)


def test_gradient_of_the_loss_where_forces_are_right():
    """The slope of a root at zero is taken as zero, not infinite."""
    loss = Loss(1.0, 1.0, 0.0, function="molecule")
    forces = torch.zeros(3, 3, dtype=torch.float64)
    forces[2, 0] = 1.0
    forces.requires_grad_()
    energy = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    found = terms(loss, {"energy": energy, "forces": forces}, targets([[0.0] * 3] * 3))
    loss.weighted(found).backward()
    assert torch.isfinite(forces.grad).all() and torch.isfinite(energy.grad).all()
    assert forces.grad[0].abs().max() == 0 and forces.grad[2, 0] > 0


def test_nan_predictions_are_no_missing_labels():
    loss = Loss(1.0, 1.0, 0.0, function="molecule")
    prediction = {
        "energy": torch.zeros(2, dtype=torch.float64),
        "forces": torch.full((3, 3), float("nan"), dtype=torch.float64),
    }
    assert terms(loss, prediction, targets([[0.0] * 3] * 3))[1].isnan()


def settings(**train):
    return config_from_dict({"train": {"schedule": "plateau", **train}}).train


def test_plateau_as_in_torch():
    """The same rates as ReduceLROnPlateau of PyTorch, which waits ``patience`` epochs more."""
    losses = [5, 4, 4, 3.9999, 4.1, 3, 3, 3, 3, 3, 3, 3, 2, 2.5, 2.5, 2.5, 2.5, 1, float("inf"), 1]
    config = settings(plateau_epochs=3, min_learning_rate=0.0)
    progress = Progress()
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    expected = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, mode="min", patience=2)
    for loss in losses:
        lower_on_plateau(progress, loss, config)
        optimizer.step()
        expected.step(loss)
        assert progress.rate_factor == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-12)
    assert progress.rate_factor < 1e-2


def test_plateau_stops_at_the_smallest_rate():
    config = settings(plateau_epochs=1, learning_rate=1e-3, min_learning_rate=2e-4)
    progress = Progress()
    for _ in range(5):
        lower_on_plateau(progress, 1.0, config)
    assert progress.rate_factor * config.learning_rate == pytest.approx(2e-4)
    schedule = Schedule.from_config(settings(warmup_epochs=0.0), steps_per_epoch=10)
    assert {schedule(step) for step in range(0, 2000, 100)} == {0.005}


def test_no_e0_and_no_scale():
    """``none`` takes labels as they are; nothing is asked of the frames."""
    energies = find_atomic_energies("none", ["H", "O"], [], [])
    assert energies.values == {"H": 0.0, "O": 0.0}
    assert set(energies.origin.values()) == {"none"}
    atoms = ase.Atoms("HO", positions=[[0, 0, 0], [0, 0, 1]])
    forces = np.array([[3.0, 0, 0], [0, 0, 4.0]])
    frames = [Frame(atoms, 1, "frames.xyz", energy=-9.0, forces=forces)]
    np.testing.assert_array_equal(energy_scale(frames, ["H", "O"], "none"), [1.0, 1.0])
    for setting, per_species in (("global", False), ("per_species", True)):
        np.testing.assert_array_equal(
            energy_scale(frames, ["H", "O"], setting),
            force_scale(frames, ["H", "O"], per_species),
        )
