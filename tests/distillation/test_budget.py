"""Plans that follow a budget of time."""

from __future__ import annotations

import pytest

from tdn.config.distillation import seconds_of
from tdn.system.errors import UsageError
from tdn.training.distillation import budget as module
from tdn.training.distillation.budget import FINAL_SHARE, REPORT_SHARE, ROUNDS_SHARE, Budget
from tdn.training.distillation.result import report_steps


@pytest.fixture
def clock(monkeypatch):
    """The time, to be set by hand."""
    now = {"time": 100.0}
    monkeypatch.setattr(module.time, "monotonic", lambda: now["time"])
    return now


@pytest.mark.parametrize(
    "text, seconds", [("90s", 90), ("30min", 1800), ("1.5 h", 5400), ("2d", 172800), (None, None)]
)
def test_times(text, seconds):
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["30", "min", "-3h", "0min", "2 weeks"])
def test_bad_times(text):
    with pytest.raises(UsageError, match="expected a time such as 90s"):
        seconds_of(text)


def test_without_a_budget_everything_is_as_wanted(tmp_path, clock):
    budget = Budget(tmp_path / "clock.json", None)
    budget.guess(1e3, 100, 10)
    assert budget.seeds(50, 1e6) == 50
    assert budget.round_steps(1500) == 1500
    assert budget.dynamics_steps(3000, 24) == 3000
    assert budget.frames(60) == 60
    assert budget.final_steps(8000) == 8000
    assert budget.another_round()
    # dynamics of the teacher take as long as the labels, or a quarter of an hour
    assert budget.report_seconds(10.0) == 900.0 and budget.report_seconds(1e5) == 1e5


def test_measured_costs_decide(tmp_path, clock):
    budget = Budget(tmp_path / "clock.json", 1000.0, max_rounds=6)
    assert budget.seeds(50, 10.0) == int(module.SEEDS_SHARE * 1000 / 10)
    budget.guess(64, 4, 1.5)
    budget.measured("training step", 50.0, 500)
    # rounds of at least 500 steps, 0.1 s each, which are half of a round
    rounds = int(1000 * ROUNDS_SHARE / (500 * 0.1 / module.TRAINING_PART))
    assert 2 < rounds < 6
    seconds = 1000 * ROUNDS_SHARE / rounds
    assert budget.round_seconds == pytest.approx(seconds)
    assert budget.round_steps(10_000) == int(module.TRAINING_PART * seconds / 0.1) >= 500
    assert budget.round_steps(10) == module.FEWEST_STEPS
    budget.measured("dynamics step", 10.0, 1000)
    assert budget.dynamics_steps(10_000, 5) == int(module.DYNAMICS_PART * seconds / (5 * 0.01))
    budget.measured("label", 10.0, 10)
    assert budget.frames(100) == int(module.LABELS_PART * seconds)
    assert budget.frames(7) == 7
    budget.measured("label", 1000.0, 1)
    assert budget.frames(100) == module.FEWEST_FRAMES
    budget.measured("round", 100.0, 1)
    clock["time"] += 1000 * ROUNDS_SHARE - 101
    assert budget.another_round()
    clock["time"] += 2
    assert not budget.another_round()
    left = 1000 * (FINAL_SHARE + REPORT_SHARE) + 99
    assert budget.final_steps(8000) == int((left - REPORT_SHARE * 1000) / 0.1)


def test_the_number_of_rounds_follows_the_time(tmp_path, clock):
    """At most those that are wanted, at least two, and all of them fill their share."""
    for total, expected in ((10.0, 2), (1000.0, 5), (1e6, 6)):
        budget = Budget(tmp_path / f"{total}.json", total, max_rounds=6)
        budget.guess(100, 4, 1.0)  # 0.1 s for a step
        assert budget.round_seconds == pytest.approx(ROUNDS_SHARE * total / expected)


def test_earlier_attempts_count(tmp_path, clock):
    path = tmp_path / "clock.json"
    budget = Budget(path, 100.0)
    clock["time"] += 30
    budget.measured("label", 5.0, 10)
    clock["time"] += 1000  # the machine was off
    again = Budget(path, 100.0)
    assert again.left == pytest.approx(70) and again.costs == {"label": 0.5}


def test_fast_teachers_go_on_for_longer_in_the_report():
    """Two molecules at 2 ms a step, a crystal at 0.35 s, one at 20 s; steps of 1 fs."""
    assert report_steps(None, 4e-3, 900.0, 1.0) == 6000  # half a minute
    assert report_steps(None, 1e-4, 900.0, 1.0) == 10_000  # 10 ps
    assert report_steps(None, 4e-3, 50.0, 1.0) == 2000  # a fifth of what there is
    assert report_steps(None, 0.35, 900.0, 1.0) == 600
    assert report_steps(None, 20.0, 900.0, 1.0) == 36
    assert report_steps(200, 1e-4, 900.0, 1.0) == 200
