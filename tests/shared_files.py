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

# of the network "l3" as machine code: choices that the others in tests/export/test_matrix.py lack
MACHINE_CODE = {"radial": "shared", "gate": False}


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

    def checkpoint(self, name: str, seed: int = 1, **changes: object) -> Path:
        """Checkpoint of ``random_model(name, seed, **changes)``."""

        def make(path: Path) -> None:
            save_model(path, random_model(name, seed, **changes), {})

        return self.get(f"{self._stem(name, seed, changes)}.pt", make)

    def export(
        self, name: str, seed: int = 1, *, backend: str = "torchscript", **changes: object
    ) -> Path:
        """Compiled file of `checkpoint`, in float64."""
        suffix = {"torchscript": ".tdn.pth", "aotinductor": ".tdn.pt2"}[backend]

        def make(path: Path) -> None:
            checkpoint = self.checkpoint(name, seed, **changes)
            if changes.get("forces") == "direct":
                with pytest.warns(UserWarning, match="direct forces are no gradient"):
                    export_model(checkpoint, path, backend=backend, direct_forces=True)
            else:
                export_model(checkpoint, path, backend=backend)

        return self.get(self._stem(name, seed, changes) + suffix, make)

    @staticmethod
    def _stem(name: str, seed: int, changes: dict[str, object]) -> str:
        return "_".join([name, str(seed), *(f"{key}-{value}" for key, value in changes.items())])
