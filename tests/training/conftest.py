"""Fixtures of the training tests."""

import shutil
from pathlib import Path

import pytest
from training.helpers import write_config, write_frames

from tdn.training.cli import main
from tdn.training.run import final_report as report


@pytest.fixture
def folder(tmp_path) -> Path:
    """A folder with eight labelled frames."""
    write_frames(tmp_path / "train.xyz")
    return tmp_path


@pytest.fixture(scope="session")
def _finished(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("finished")
    write_frames(root / "train.xyz")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "write_figures", lambda run_dir, evaluations: None)
        assert main([str(write_config(root))]) == 0
    return root


@pytest.fixture
def finished(_finished, tmp_path) -> Path:
    """A folder of one's own with ``config.yaml`` and its finished run of three epochs."""
    shutil.copytree(_finished, tmp_path, dirs_exist_ok=True)
    resolved = tmp_path / "run" / "config.yaml"
    resolved.write_text(resolved.read_text().replace(str(_finished), str(tmp_path)))
    return tmp_path


@pytest.fixture
def figures():
    """Lets a test draw figures, which takes longer than training a tiny network."""


@pytest.fixture(autouse=True)
def _no_figures(request, monkeypatch):
    if "figures" not in request.fixturenames:
        monkeypatch.setattr(report, "write_figures", lambda run_dir, evaluations: None)
