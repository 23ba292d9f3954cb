"""Files that are made once for all tests, also where several processes run them."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from structures import random_model

from tdn.network.checkpoint import save_model
from tdn_export import export_model


class SharedFiles:
    """A folder of files by name; the processes of pytest-xdist share it.

    Parameters
    ----------
    tmp_path_factory : of pytest; the folder goes with its folders
    """

    def __init__(self, tmp_path_factory: pytest.TempPathFactory) -> None:
        base = tmp_path_factory.getbasetemp()
        if "PYTEST_XDIST_WORKER" in os.environ:
            base = base.parent  # every process has its own folder in there
        self.folder = base / "shared"
        self._unfinished = self.folder / "unfinished"
        self._unfinished.mkdir(parents=True, exist_ok=True)

    def get(self, name: str, make: Callable[[Path], object]) -> Path:
        """The file of this name; ``make`` writes it where it is told if there is none yet."""
        path = self.folder / name
        with open(self._unfinished / f"{name}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not path.exists():
                make(self._unfinished / name)
                os.replace(self._unfinished / name, path)
        return path

    def checkpoint(self, name: str, seed: int = 1, *, direct: bool = False) -> Path:
        """Checkpoint of ``random_model(name, seed)``, with direct forces or not."""
        changes = {"forces": "direct"} if direct else {}

        def make(path: Path) -> None:
            save_model(path, random_model(name, seed, **changes), {})

        return self.get(f"{self._stem(name, seed, direct)}.pt", make)

    def export(
        self, name: str, seed: int = 1, *, direct: bool = False, backend: str = "torchscript"
    ) -> Path:
        """Compiled file of `checkpoint`, in float64."""
        suffix = {"torchscript": ".tdn.pth", "aotinductor": ".tdn.pt2"}[backend]

        def make(path: Path) -> None:
            checkpoint = self.checkpoint(name, seed, direct=direct)
            if direct:
                with pytest.warns(UserWarning, match="direct forces are no gradient"):
                    export_model(checkpoint, path, backend=backend, direct_forces=True)
            else:
                export_model(checkpoint, path, backend=backend)

        return self.get(self._stem(name, seed, direct) + suffix, make)

    @staticmethod
    def _stem(name: str, seed: int, direct: bool) -> str:
        return f"{name}_{seed}" + ("_direct" if direct else "")
