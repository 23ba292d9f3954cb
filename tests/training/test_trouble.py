"""Losses that are not finite."""

import math

import pytest
import torch
from training.helpers import trainer_of, write_config

from tdn.system.errors import TDNError
from tdn.training.recovery import MAX_RESTORES, MAX_SKIPPED
from tdn.training.run.csv_log import read_log
from tdn.training.run.interrupt import StopRequest


@pytest.fixture
def trainer(folder):
    return trainer_of(write_config(folder))


def weights(trainer) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in trainer.model.parameters()])


def spoil(trainer, calls: set[int] | None) -> None:
    """Make the training loss NaN in some calls (all for None)."""
    potential = trainer.potentials[0]
    original, count = potential.forward, 0

    def forward(graph, training=False, virial=True):
        nonlocal count
        result = original(graph, training, virial)
        if training:
            count += 1
            if calls is None or count in calls:
                result["energy"] = result["energy"] * torch.nan
        return result

    potential.forward = forward


def test_a_bad_batch_is_left_out(trainer):
    """It changes neither weights nor optimizer, and is named."""
    spoil(trainer, {2})
    batches = trainer.batches.steps(0)
    trainer._step(batches[0])
    before = weights(trainer)
    trainer._step(batches[1])
    assert torch.equal(weights(trainer), before)
    assert "batch left out" in trainer.display.warnings[0]
    number = trainer.dataset.train.frames[batches[1][0][0]].number
    assert f"frames {number}" in trainer.display.warnings[0]
    trainer._step(batches[2])
    assert not torch.equal(weights(trainer), before)
    assert trainer.progress.skipped == 0


@pytest.mark.parametrize("valid", [0.25, 0.0])
def test_an_epoch_without_a_good_batch_has_no_loss(folder, valid):
    """Not a loss of zero; without validation frames its network is not the one to keep."""
    config = write_config(folder, train={"batch_size": 8}, data={"valid_fraction": valid})
    trainer = trainer_of(config)
    spoil(trainer, {2})
    assert trainer.fit()
    losses = [row["train_loss"] for row in read_log(folder / "run" / "log.csv")]
    assert math.isnan(losses[1]) and losses[0] > 0 and losses[2] > 0
    assert trainer.progress.best > 0


def test_several_bad_batches_bring_good_weights_back(trainer):
    spoil(trainer, set(range(5, 5 + MAX_SKIPPED)))
    assert trainer.fit()
    assert trainer.progress.rate_factor == 0.5 and trainer.progress.restores == 1
    assert torch.isfinite(weights(trainer)).all()
    assert "brought back" in trainer.display.warnings[-1]


def test_a_hopeless_run_stops_with_one_line(trainer):
    spoil(trainer, None)
    with pytest.raises(TDNError, match=f"brought back {MAX_RESTORES} times in vain") as caught:
        for _ in range(MAX_SKIPPED * (MAX_RESTORES + 1)):
            trainer._step([[0, 1]])
    assert "\n" not in str(caught.value)
    assert torch.isfinite(weights(trainer)).all()


def blow_up(trainer, epochs: set[int], factor: float = 4.0) -> None:
    """Spoil the averaged weights before they are validated at the end of some epochs.

    That is how it happens: one wild step late in a run, when the learning rate is too small to
    repair it, and the average carries it on.
    """
    validate = trainer._validate

    def spoiled(row, train_loss):
        if trainer.progress.epoch in epochs:
            good = trainer.recovery.good["average"]["average"]
            for average, kept, parameter in zip(
                trainer.average._average, good, trainer.average._parameters, strict=True
            ):
                average.copy_(factor * kept)
                with torch.no_grad():
                    parameter.copy_(average)
        return validate(row, train_loss)

    trainer._validate = spoiled


def test_an_average_that_blows_up_is_noticed_and_survived(trainer):
    """Finite, but far above: the good average comes back and the run ends near it."""
    blow_up(trainer, {2})
    for _ in range(2):
        trainer._epoch(StopRequest())
        trainer._end_of_epoch([])
    assert "the validation loss jumped from" in trainer.display.warnings[-1]
    assert "train.max_loss_jump = 10" in trainer.display.warnings[-1]
    good = trainer.recovery.good
    for average, kept in zip(trainer.average._average, good["average"]["average"], strict=True):
        assert torch.equal(average, kept)
    assert torch.equal(trainer.model.embedding, good["weights"]["embedding"])
    assert trainer.progress.jumps == 1 and trainer.progress.rate_factor == 0.5
    assert trainer.progress.best_epoch == 1
    trainer._epoch(StopRequest())
    trainer._end_of_epoch([])
    assert trainer.progress.good_metric < 10 * trainer.progress.best
    assert trainer.progress.jumps == 1


def test_losses_that_always_jump_do_not_end_a_run(folder):
    """After some times the jumps are left alone; model.pt has the best weights anyway."""
    trainer = trainer_of(write_config(folder, train={"max_epochs": 9}))
    blow_up(trainer, set(range(2, 10)))
    assert trainer.fit()
    assert trainer.progress.jumps == MAX_RESTORES
    assert sum("jumped" in w for w in trainer.display.warnings) == MAX_RESTORES
    assert trainer.progress.best_epoch == 1 and trainer.model_file.exists()


def test_jumps_can_be_allowed(folder):
    trainer = trainer_of(write_config(folder, train={"max_loss_jump": 0.0}))
    blow_up(trainer, {2})
    assert trainer.fit()
    assert trainer.progress.jumps == 0 and trainer.display.warnings == []


def test_weight_decay_on_matrices_only(trainer):
    settings = trainer.config.train
    for group in trainer.optimizer.param_groups:
        group["weight_decay"] = 0.5 if group["weight_decay"] == settings.weight_decay else 0.0
        group["lr"] = 1.0
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    trainer.flat.zero_grad()
    trainer.optimizer.step()  # without a gradient decay is all that changes weights
    for name, parameter in trainer.model.named_parameters():
        factor = 0.5 if parameter.ndim >= 2 else 1.0
        assert torch.equal(parameter, factor * before[name]), name


def test_a_weight_to_come_is_judged_when_it_has_come(folder):
    """What the energy will weigh at the end decides about the best model, not about jumps."""
    settings = {"max_epochs": 4, "energy_weight": 1.0, "final_energy_weight": 1e6}
    trainer = trainer_of(write_config(folder, train=settings))
    judged = []
    trainer._judge = judged.append
    assert trainer.fit()
    rows = read_log(folder / "run" / "log.csv")
    for epoch, (loss, row) in enumerate(zip(judged, rows, strict=True), 1):
        energy, forces = (row[f"train_{name}_loss"] for name in ("energy", "forces"))
        # of steps of the epoch, so between its beginning and its end
        low, high = (1e6 ** max(0.0, 2 * (e / 4) - 1) for e in (epoch - 1, epoch))
        weight = (row["train_loss"] - 10 * forces) / energy
        rounding = 2e-7 * row["train_loss"] / energy  # the file has eight digits
        assert low - rounding <= weight <= high + rounding
        if epoch <= 2:
            assert loss < 0.1 * row["valid_loss"]
    assert judged[-1] == pytest.approx(rows[-1]["valid_loss"], rel=1e-7)
