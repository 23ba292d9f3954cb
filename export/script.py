"""Compiling to TorchScript, with operators of its own and gradients; see `.deployed`."""

from __future__ import annotations

import io
import zipfile

import torch
from torch import nn

from tdn.inference.torchscript import quiet


def script(module: nn.Module) -> torch.jit.ScriptModule:
    """Compile a module in inference mode. It is not frozen.

    Freezing drops ``detach`` as if nobody would differentiate, so that a call would write into the
    caller's ``edge_vec``; and it folds nothing here that counts.

    Files that declare ``buffer: Tensor`` in a class must not postpone annotations
    (``from __future__ import annotations``): TorchScript does not resolve those of attributes.
    """
    with quiet():
        return torch.jit.script(module.requires_grad_(False).eval())


def save_bytes(module: torch.jit.ScriptModule, extra_files: dict[str, str]) -> bytes:
    """The archive of a compiled module with text files inside.

    Not written to a path: PyTorch would name the folder in the archive after a temporary file.
    Without the tables that lead from code to its source: they are a third of a small file and name
    folders of the machine that wrote it.
    """
    buffer, result = io.BytesIO(), io.BytesIO()
    with quiet():
        torch.jit.save(module, buffer, _extra_files=extra_files)
    with zipfile.ZipFile(buffer) as full, zipfile.ZipFile(result, "w") as archive:
        for member in full.infolist():
            if not member.filename.endswith(".debug_pkl"):
                name = zipfile.ZipInfo(member.filename)  # with the date 1980, not that of today
                archive.writestr(name, full.read(member), member.compress_type)
    return result.getvalue()
