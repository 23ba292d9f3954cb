"""Writing files: nothing is lost, and what cannot be written is named in one line."""

import os
from pathlib import Path

import pytest
import torch

from tdn.system.atomic_files import atomic_write, check_writable
from tdn.system.errors import TDNError


def write(path: Path, text: str = "new") -> None:
    with atomic_write(path) as temporary:
        temporary.write_text(text)


def test_an_older_file_stays_when_writing_fails(tmp_path):
    path = tmp_path / "model.pt"
    write(path, "old")
    with pytest.raises(RuntimeError), atomic_write(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    write(path)
    assert path.read_text() == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["model.pt"]


def test_a_link_keeps_pointing(tmp_path):
    (tmp_path / "store").mkdir()
    target, link = tmp_path / "store" / "model.pt", tmp_path / "model.pt"
    target.write_text("old")
    link.symlink_to(target)
    write(link)
    assert link.is_symlink()
    assert target.read_text() == "new"


def test_devices_and_pipes_are_left_alone(tmp_path):
    """A file renamed onto them would take their place."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for check in (check_writable, write):
        with pytest.raises(TDNError, match="a device or a pipe"):
            check(pipe)
    assert pipe.is_fifo()


@pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="no device that is always full")
def test_a_full_disk(tmp_path):
    """Both Python's files and torch.save, which fails in a way of its own, give one line."""
    path = tmp_path / "model.pt"
    write(path, "old")

    def with_python(temporary: Path) -> None:
        with open("/dev/full", "w") as full:
            full.write("new")

    def with_torch(temporary: Path) -> None:
        temporary.unlink()
        temporary.symlink_to("/dev/full")
        torch.save({"weights": torch.zeros(100_000)}, temporary)

    for fill in (with_python, with_torch):
        with pytest.raises(TDNError, match=r"cannot write .*model\.pt"), atomic_write(path) as file:
            fill(file)
        assert path.read_text() == "old"
        assert [p.name for p in tmp_path.iterdir()] == ["model.pt"]


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="no file system that refuses files")
def test_a_file_system_that_refuses_files():
    """Even root may write nothing there, though the permissions say otherwise."""
    with pytest.raises(TDNError, match=r"cannot write /proc/model\.pt"):
        write(Path("/proc/model.pt"))
