"""Copies of compiled files and checkpoints with something else in them."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path


def rewrite(source: Path, target: Path, change: Callable[[str, bytes], bytes | None]) -> Path:
    """Copy an archive with changed members; None drops a member."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for item in old.infolist():
            content = change(item.filename.partition("/")[2], old.read(item))
            if content is not None:
                new.writestr(item.filename, content)
    return target


def change_json(
    source: Path, target: Path, change: Callable[[dict], object], name: str = "metadata.json"
) -> Path:
    """Copy a compiled file after a change of one of its descriptions."""

    def changed(member: str, content: bytes) -> bytes:
        if member != f"extra/{name}":
            return content
        values = json.loads(content)
        change(values)
        return json.dumps(values).encode()

    return rewrite(source, target, changed)


def with_json(source: Path, target: Path, name: str = "metadata.json", /, **changes) -> Path:
    """Copy a compiled file with other values in one of its descriptions."""
    return change_json(source, target, lambda values: values.update(changes), name)
