"""The only place that uses `torch.jit`: scripting, saving and loading of modules.

TorchScript is what a C++ program without Python can run, with operators of its own and gradients.
PyTorch deprecates its entry points; the warnings are caught here, where nothing else can hide.
"""

from __future__ import annotations

import io
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the deprecation warnings of `torch.jit` itself."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r".*torch\.jit", DeprecationWarning)
        yield


def script(module: nn.Module) -> torch.jit.ScriptModule:
    """Compile a module in inference mode. It is not frozen.

    Freezing drops ``detach`` as if nobody would differentiate, so that a call would write into the
    caller's ``edge_vec``; and it folds nothing here that counts.

    Files that declare ``buffer: Tensor`` in a class must not postpone annotations
    (``from __future__ import annotations``): TorchScript does not resolve those of attributes.
    """
    with _quiet():
        return torch.jit.script(module.requires_grad_(False).eval())


def save_bytes(module: torch.jit.ScriptModule, extra_files: dict[str, str]) -> bytes:
    """The archive of a compiled module with text files inside.

    Not written to a path: PyTorch would name the folder in the archive after a temporary file.
    Without the tables that lead from code to its source: they are a third of a small file and name
    folders of the machine that wrote it.
    """
    buffer, result = io.BytesIO(), io.BytesIO()
    with _quiet():
        torch.jit.save(module, buffer, _extra_files=extra_files)
    with zipfile.ZipFile(buffer) as full, zipfile.ZipFile(result, "w") as archive:
        for member in full.infolist():
            if not member.filename.endswith(".debug_pkl"):
                name = zipfile.ZipInfo(member.filename)  # with the date 1980, not that of today
                archive.writestr(name, full.read(member), member.compress_type)
    return result.getvalue()


def load(path: str | Path, device: torch.device | str) -> torch.jit.ScriptModule:
    """Load a compiled module; its operators must be registered already.

    Raises
    ------
    RuntimeError
        If the archive does not hold a module that this PyTorch can run.
    """
    with _quiet():
        return torch.jit.load(str(path), map_location=torch.device(device)).eval()


@contextmanager
def plain_execution() -> Iterator[None]:
    """Run compiled modules as written.

    The default executor first watches some calls, then rebuilds the code for the sizes it saw, and
    does so again whenever they change, which in molecular dynamics is every step.
    """
    with _quiet(), torch.jit.optimized_execution(False):
        yield
