"""Fixtures of the training tests."""

import pytest

from tdn.training.run import final_report as report


@pytest.fixture
def figures():
    """Lets a test draw figures, which takes longer than training a tiny network."""


@pytest.fixture(autouse=True)
def _no_figures(request, monkeypatch):
    if "figures" not in request.fixturenames:
        monkeypatch.setattr(report, "write_figures", lambda run_dir, evaluations: None)
