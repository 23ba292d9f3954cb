"""Databases that grow frame by frame: readable at any time, nothing lost by a kill."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
from pathlib import Path

import ase
import forks
import numpy as np
import pytest

from tdn.data.database.append import StoreAppender
from tdn.data.database.store import FrameStore
from tdn.data.database.writer import StoreWriter
from tdn.data.frames import Frame
from tdn.system.errors import TDNError


def frame(index: int, split: str | None = None) -> Frame:
    rng = np.random.default_rng(index)
    atoms = ase.Atoms("CuO", rng.normal(size=(2, 3)), cell=[5, 6, 7], pbc=True)
    return Frame(
        atoms, index + 1, "test", float(index), rng.normal(size=(2, 3)), np.eye(3), split=split
    )


def test_an_appended_database_reads_like_a_written_one(tmp_path):
    frames = [frame(i, ("train", "valid", "test")[i % 3]) for i in range(10)]
    with StoreWriter(tmp_path / "written.lmdb") as writer:
        for each in frames:
            writer.add(each)
    for part in (frames[:4], frames[4:]):  # opened twice
        with StoreAppender(tmp_path / "appended.lmdb") as appender:
            for each in part:
                appender.append(each)
    one, other = (FrameStore(tmp_path / f"{n}.lmdb") for n in ("written", "appended"))
    for key in ("frames", "atoms", "elements", "labels", "periodicity", "splits", "single_atoms"):
        assert one.metadata[key] == other.metadata[key], key
    assert [f.energy for f in other.iterate()] == [f.energy for f in one.iterate()]
    assert [f.split for f in other.iterate()] == [f.split for f in frames]
    for a, b in zip(other.iterate(), frames, strict=True):
        assert np.array_equal(a.atoms.positions, b.atoms.positions)
        assert np.array_equal(a.forces, b.forces)
    assert [other.num_atoms(i) for i in range(10)] == [2] * 10


def test_another_kind_of_file_is_refused(tmp_path):
    (tmp_path / "text.lmdb").write_text("no database")
    with pytest.raises(TDNError, match="cannot be opened as LMDB"):
        StoreAppender(tmp_path / "text.lmdb")


KILLED = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from distillation.test_append import frame
from tdn.data.database.append import StoreAppender
with StoreAppender(sys.argv[1]) as store:
    for index in range(len(store), 10_000):
        store.append(frame(index))
        print(index, flush=True)
"""


@pytest.mark.slow
def test_a_kill_loses_nothing_that_was_appended(tmp_path):
    path = tmp_path / "labels.lmdb"
    command = [forks.python(), "-c", KILLED, str(path), str(Path(__file__).parents[1])]
    last = -1
    for count in (1, 7, 20):
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            for line in process.stdout:
                last = int(line)
                count -= 1
                if not count:
                    os.kill(process.pid, signal.SIGKILL)
                    break
            last = max([last, *(int(line) for line in process.stdout)])
        with StoreAppender(path) as store:
            # one more may have been written and not been told
            assert last + 1 <= len(store) <= last + 2
            assert all(store.frame(i).energy == i for i in range(len(store)))


def test_a_full_disk_is_one_line_and_leaves_what_was_there(tmp_path):
    path = tmp_path / "labels.lmdb"
    with StoreAppender(path) as store:
        store.append(frame(0))
    script = """
import resource, signal, sys
sys.path.insert(0, sys.argv[2])
from distillation.test_append import frame
from tdn.data.database.append import StoreAppender
from tdn.system.errors import TDNError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))
try:
    with StoreAppender(sys.argv[1]) as store:
        for index in range(1, 10_000):
            store.append(frame(index))
except TDNError as error:
    print(error)
"""
    command = [forks.python(), "-c", script, str(path), str(Path(__file__).parents[1])]
    result = subprocess.run(command, capture_output=True, text=True)
    assert "cannot write" in result.stdout and "disk full?" in result.stdout, result.stderr
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 65536
    store = FrameStore(path)
    assert len(store) > 1
    assert [f.energy for f in store.iterate()] == list(range(len(store)))
