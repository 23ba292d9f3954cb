"""A folder with a structure of copper and the teachers of the tests."""

from __future__ import annotations

import shutil
from pathlib import Path

import forks
import pytest
from ase.build import bulk

TEACHERS = Path(__file__).with_name("cheap_teachers.py")


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with ``cu.cif`` and ``cheap_teachers.py``; Python starts in no time."""
    monkeypatch.chdir(tmp_path)
    forks.take_over(monkeypatch)
    bulk("Cu", "fcc", a=3.6, cubic=True).write("cu.cif")
    shutil.copy(TEACHERS, tmp_path)
    return tmp_path
