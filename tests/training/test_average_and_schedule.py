"""Average of weights, learning rates and the log."""

import numpy as np
import pytest
import torch

from tdn.config import TrainConfig
from tdn.training.optimizer.schedule import Schedule
from tdn.training.optimizer.weight_average import WeightAverage
from tdn.training.run.csv_log import Log, read_log


def values(module: torch.nn.Module) -> np.ndarray:
    return torch.cat([p.detach().flatten() for p in module.parameters()]).numpy().copy()


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.9, 0.999])
def test_average_is_the_weighted_mean_of_all_weights(decay):
    model = torch.nn.Linear(2, 1).double()
    average = WeightAverage(model.parameters(), decay)
    history = []
    for step in range(1, 8):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.copy_(torch.randn_like(parameter))
        history.append(values(model))
        average.update()
        weights = decay ** np.arange(step - 1, -1, -1.0)
        expected = (weights[:, None] * np.array(history)).sum(axis=0) / weights.sum()
        with average.applied():
            np.testing.assert_allclose(values(model), expected, rtol=1e-10, atol=1e-14)
        np.testing.assert_array_equal(values(model), history[-1])


def test_average_leaves_the_weights_after_an_error_and_keeps_its_state():
    model = torch.nn.Linear(2, 1)
    average = WeightAverage(model.parameters(), 0.9)
    average.update()
    before = values(model)
    torch.nn.init.ones_(model.weight)
    changed = values(model)
    with pytest.raises(RuntimeError, match="stop"), average.applied():
        np.testing.assert_array_equal(values(model), before)
        raise RuntimeError("stop")
    np.testing.assert_array_equal(values(model), changed)
    other = WeightAverage(model.parameters(), 0.9)
    other.load_state_dict(average.state_dict())
    assert other.steps == 1
    with other.applied():
        np.testing.assert_array_equal(values(model), before)


def test_cosine_with_warm_up():
    settings = TrainConfig(
        learning_rate=0.1, min_learning_rate=0.001, warmup_epochs=2.0, max_epochs=12
    )
    rate = Schedule.from_config(settings, steps_per_epoch=10)
    rates = np.array([rate(step) for step in range(120)])
    np.testing.assert_allclose(rates[:20], 0.1 * np.arange(1, 21) / 21)
    assert rates[20] == 0.1 and rates[-1] == pytest.approx(0.001)
    assert (np.diff(rates[20:]) < 0).all()
    middle = 20 + 99 / 2
    np.testing.assert_allclose(np.interp(middle, range(120), rates), 0.0505, rtol=1e-3)


def test_other_schedules():
    assert Schedule(0.1, 0.0, 0, 11, "constant")(9) == 0.1
    linear = Schedule(0.1, 0.0, 0, 11, "linear")
    np.testing.assert_allclose([linear(s) for s in range(11)], np.linspace(0.1, 0, 11), atol=1e-15)
    # a minimum above the peak means a constant rate, not a rising one
    low = TrainConfig(learning_rate=1e-6, min_learning_rate=1e-5, warmup_epochs=0.0)
    assert Schedule.from_config(low, 10)(1999) == 1e-6


def test_log_drops_what_will_be_written_again(tmp_path):
    path = tmp_path / "log.csv"
    log = Log(path, 0)
    for epoch in (1, 2, 3):
        log.append({"epoch": epoch, "step": 10 * epoch, "train_loss": 1 / epoch})
    with open(path, "a") as file:
        file.write("4,40,0.")  # cut short by a crash
    log = Log(path, 2)
    log.append({"epoch": 3, "step": 30, "train_loss": 0.125, "valid_loss": None})
    rows = read_log(path)
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert rows[2]["train_loss"] == 0.125 and "valid_loss" not in rows[2]
    assert [row["epoch"] for row in read_log(Log(path, 0).path)] == []
