"""Which network of a run is kept."""

import pytest
import torch
from training.helpers import assert_same, trainer_of, write_config

from tdn.network.checkpoint import load_model
from tdn.training.best_network import TOLERANCE, BestNetwork
from tdn.training.run.resume import Progress


@pytest.mark.parametrize(
    "falling, loss, wanted",
    [
        (False, 0.99, True),
        (False, 1.0, False),  # equal is not lower
        (False, 1.0 + 0.5 * TOLERANCE, False),
        (True, 0.99, True),
        (True, 1.0 + 0.99 * TOLERANCE, True),
        (True, 1.0 + 1.01 * TOLERANCE, False),
        (True, float("nan"), False),
    ],
)
def test_lowest_loss_and_later_the_newest_of_about_the_lowest(falling, loss, wanted):
    best, progress = BestNetwork(torch.nn.Linear(1, 1), True), Progress()
    progress.epoch = 3
    assert best.wants(1.0, progress, False) and progress.best_epoch == 3
    progress.epoch = 4
    assert best.wants(loss, progress, falling) is wanted
    assert progress.best_epoch == (4 if wanted else 3)
    assert progress.best == (loss if loss < 1.0 else 1.0)


def test_tolerances_do_not_add_up():
    """Each loss is compared with the lowest one, not with that of the network kept before."""
    best, progress = BestNetwork(torch.nn.Linear(1, 1), True), Progress()
    for epoch, loss in enumerate((1.0, 1.0 + 0.7 * TOLERANCE, 1.0 + 1.4 * TOLERANCE), 1):
        progress.epoch = epoch
        best.wants(loss, progress, True)
    assert progress.best_epoch == 2 and progress.best == 1.0


def test_without_validation_the_newest_finite_one():
    best, progress = BestNetwork(torch.nn.Linear(1, 1), False), Progress()
    for epoch, loss in enumerate((1.0, 9.0, float("inf")), 1):
        progress.epoch = epoch
        best.wants(loss, progress, False)
    assert progress.best_epoch == 2


@pytest.mark.parametrize("loss, kept", [(1.05, 4), (1.2, 2)])
def test_a_run_keeps_its_end_within_the_tolerance(folder, loss, kept):
    """Lowest loss in epoch 2 of 4; those of the second half are a little or much above it."""
    trainer = trainer_of(write_config(folder, train={"max_epochs": 4}))
    losses, weights = iter((3.0, 1.0, loss, loss)), []
    wants = trainer.best.wants

    def told(_, progress, falling):
        weights.append({k: v.clone() for k, v in trainer.model.state_dict().items()})
        return wants(next(losses), progress, falling)

    trainer.best.wants = told
    assert trainer.fit()
    assert trainer.progress.best_epoch == kept and trainer.progress.best == 1.0
    model, metadata = load_model(trainer.model_file)
    assert metadata["epoch"] == kept
    assert_same(dict(model.state_dict()), weights[kept - 1])
