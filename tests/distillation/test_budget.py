"""Plans that follow a budget of time."""

from __future__ import annotations

import pytest

from tdn.config.distillation import seconds_of
from tdn.system.errors import UsageError
from tdn.training.distillation import budget as module
from tdn.training.distillation.budget import FINAL_SHARE, REPORT_SHARE, Budget


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
    assert budget.seeds(50, 1e6) == 50
    assert budget.round_steps(1500, 1e6) == 1500
    assert budget.final_steps(8000, 1e6) == 8000
    assert budget.another_round()
    # dynamics of the teacher take as long as the labels, or a quarter of an hour
    assert budget.report_seconds(10.0) == 900.0 and budget.report_seconds(1e5) == 1e5


def test_measured_costs_decide(tmp_path, clock):
    budget = Budget(tmp_path / "clock.json", 1000.0)
    assert budget.seeds(50, 10.0) == 20  # a fifth of the time
    budget.measured("training step", 50.0, 500)
    half = 0.5 * (1 - FINAL_SHARE - REPORT_SHARE) * 1000.0
    assert budget.round_steps(10_000, 99.0) == int(half / 0.1)
    budget.measured("round", 100.0, 1)
    clock["time"] += 1000 * (1 - FINAL_SHARE - REPORT_SHARE) - 101
    assert budget.another_round()
    clock["time"] += 2
    assert not budget.another_round()
    left = 1000 * (FINAL_SHARE + REPORT_SHARE) + 99
    assert budget.final_steps(8000, 99.0) == int((left - REPORT_SHARE * 1000) / 0.1)


def test_earlier_attempts_count(tmp_path, clock):
    path = tmp_path / "clock.json"
    budget = Budget(path, 100.0)
    clock["time"] += 30
    budget.measured("label", 5.0, 10)
    clock["time"] += 1000  # the machine was off
    again = Budget(path, 100.0)
    assert again.left == pytest.approx(70) and again.costs == {"label": 0.5}
