"""Loading and running of TorchScript: what a C++ program without Python can run.

`tdn_export.script` writes the archives. PyTorch deprecates the entry points of `torch.jit`; the
warnings are caught in these two modules, where nothing else can hide.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch


@contextmanager
def quiet() -> Iterator[None]:
    """Without the deprecation warnings of `torch.jit` itself; PyTorch 2.14 shows them to all."""
    with warnings.catch_warnings():
        for category in (DeprecationWarning, FutureWarning):
            warnings.filterwarnings("ignore", r".*torch\.jit", category)
        yield


def load(path: str | Path, device: torch.device | str) -> torch.jit.ScriptModule:
    """Load a compiled module; its operators must be registered already.

    Raises
    ------
    RuntimeError
        If the archive does not hold a module that this PyTorch can run.
    """
    with quiet():
        return torch.jit.load(str(path), map_location=torch.device(device)).eval()


@contextmanager
def plain_execution() -> Iterator[None]:
    """Run compiled modules as written.

    The default executor first watches some calls, then rebuilds the code for the sizes it saw, and
    does so again whenever they change, which in molecular dynamics is every step.
    """
    with quiet(), torch.jit.optimized_execution(False):
        yield
