"""Early stopping: when a run cools down, from which weights, and how."""

import dataclasses

import pytest
import torch
from training.helpers import assert_same, trainer_of, write_config

from tdn.training.optimizer.weight_average import WeightAverage
from tdn.training.patience import Patience, last_epoch, schedule_epoch
from tdn.training.run.csv_log import read_log
from tdn.training.run.display import Display
from tdn.training.run.resume import Progress
from tdn.training.trainer import Trainer


def test_back_to_the_averaged_weights_of_the_lowest_loss():
    weight = torch.nn.Parameter(torch.zeros(3))
    average = WeightAverage([weight], 0.5)
    patience, progress = Patience([weight], average, 3, 100), Progress()
    # equal is not lower
    losses = {
        1: 5.0,
        2: 4.0,
        3: 4.5,
        4: 4.1,
        5: 3.9,
        6: 4.0,
        7: 3.5,
        8: 3.0,
        9: 3.5,
        10: 3.1,
        11: 3,
    }
    for epoch, loss in losses.items():
        with torch.no_grad():
            weight.fill_(float(epoch))
        average.update()
        if epoch == 8:
            with average.applied():
                lowest = weight.detach().clone()
        progress.epoch = epoch
        text = patience.watch(loss, progress)
        assert (text is not None) == (epoch == 11)
    assert "epoch 8" in text and "after epoch 13" in text
    assert torch.equal(weight.detach(), lowest) and not torch.equal(lowest, torch.full((3,), 8.0))
    with average.applied():  # the average begins anew
        assert torch.equal(weight.detach(), lowest)
    # a quarter of the epochs up to the lowest loss, through the second half of the schedule
    assert (progress.cooling_from, progress.cooling_epochs) == (11, 2)
    assert last_epoch(progress, 100) == 13
    assert [schedule_epoch(progress, e, 100) for e in (11, 12, 13)] == [50, 75, 100]
    progress.epoch = 12
    assert patience.watch(99.0, progress) is None  # once is enough


@pytest.mark.parametrize("limit, epoch", [(None, 40), (50, 40), (3, 60)])
def test_without_a_limit_before_it_or_in_the_second_half_nothing_happens(limit, epoch):
    weight = torch.nn.Parameter(torch.zeros(3))
    patience, progress = Patience([weight], WeightAverage([weight], 0.5), limit, 100), Progress()
    progress.epoch = 1
    assert patience.watch(1.0, progress) is None
    progress.epoch = epoch
    assert patience.watch(2.0, progress) is None
    assert last_epoch(progress, 100) == 100 and schedule_epoch(progress, 40.5, 100) == 40.5


@pytest.fixture
def configured(folder):
    """A run whose validation losses rise after the eighth epoch."""

    def make(run: str, **train) -> Trainer:
        settings = {"max_epochs": 40, "patience": 4, "run_dir": run, "final_energy_weight": 100.0}
        trainer = trainer_of(write_config(folder, train=settings | train))
        risen(trainer)
        return trainer

    return make


def risen(trainer: Trainer) -> None:
    watch = trainer.patience.watch
    trainer.patience.watch = lambda loss, progress: watch(abs(progress.epoch - 8) + 1.0, progress)


def test_a_run_cools_down_early(configured):
    trainer = configured("whole")
    assert trainer.fit()
    # lowest in epoch 8, four more without a lower one, two to cool down
    assert trainer.progress.epoch == trainer.last_epoch == 14
    rates = [row["learning_rate"] for row in read_log(trainer.run_dir / "log.csv")]
    settings = trainer.config.train
    assert min(rates[1:12]) > 0.75 * settings.learning_rate
    assert rates[12] < 0.6 * settings.learning_rate and rates[13] < 0.3 * settings.learning_rate
    assert "train.patience" in trainer.display.warnings[-1]


def test_the_time_left_is_that_of_the_run_that_ends_early(configured, capsys):
    trainer = configured("shown")
    trainer.display = Display()
    assert trainer.fit()
    captured = capsys.readouterr()
    lines = [line for line in captured.out.splitlines() if line.startswith("epoch")]
    assert "train.patience" in captured.err and len(lines) == 14
    assert lines[10].startswith("epoch 11/40  ") and lines[12].startswith("epoch 13/14  ")
    assert lines[13].startswith("epoch 14/14  ") and lines[13].rstrip(" *").endswith("(00:00 left)")


@pytest.mark.parametrize("stop", [10, 13])
def test_a_stop_before_or_while_it_cools_down_changes_nothing(configured, stop):
    whole, part = configured("whole"), configured("part")
    assert whole.fit()
    epoch = part._epoch

    def interrupted(request):
        return part.progress.epoch < stop and epoch(request)

    part._epoch = interrupted
    assert not part.fit()
    again = Trainer(part.config, part.dataset, resume=True)
    risen(again)
    assert again.progress.epoch == stop and again.fit()
    assert again.progress.epoch == 14
    assert_same(dict(whole.model.named_parameters()), dict(again.model.named_parameters()))


def test_states_from_before_there_was_patience_go_on(configured):
    trainer = configured("old", max_epochs=2, optimizer="adamw")
    assert trainer.fit()
    content = torch.load(trainer.last_file, weights_only=True)
    del content["patience"], content["config"]["train"]["patience"]
    for name in ("lowest", "lowest_epoch", "cooling_from", "cooling_epochs"):
        del content["progress"][name]
    torch.save(content, trainer.last_file)
    settings = dataclasses.replace(trainer.config.train, patience=None, max_epochs=3)
    config = dataclasses.replace(trainer.config, train=settings)
    again = Trainer(config, trainer.dataset, resume=True)
    assert again.progress.epoch == 2 and again.fit()
