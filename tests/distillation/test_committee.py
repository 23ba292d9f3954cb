"""How the trainings of a committee share the cores."""

from __future__ import annotations

import pytest

from tdn.config.distillation import StudentConfig
from tdn.training.distillation import committee as module
from tdn.training.distillation.committee import Committee, train_committee


@pytest.mark.parametrize(
    "members, cores, expected",
    [(3, 2, 3), (4, 2, 2), (2, 2, 2), (3, 1, 1), (3, 16, 3), (4, 3, 4)],
)
def test_no_core_is_left_idle(tmp_path, monkeypatch, members, cores, expected):
    """In turns where they come out even, otherwise all at once."""
    asked = []

    def stop(programs, at_once, *others):
        asked.append(min(at_once, len(programs)))
        return [130] * len(programs)

    monkeypatch.setattr(module, "run_programs", stop)
    with pytest.raises(KeyboardInterrupt):
        train_committee(
            Committee(tmp_path, members), tmp_path / "x", 8, ["H"], StudentConfig(), 10, cores
        )
    assert asked == [expected]
