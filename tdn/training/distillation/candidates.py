"""Structures that may be labeled, and their files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import ase

from tdn.data.database.store import FrameStore
from tdn.data.database.writer import StoreWriter
from tdn.data.frames import Frame


@dataclass(frozen=True)
class Candidate:
    """A structure that may be labeled, and what made it."""

    atoms: ase.Atoms
    kind: str


def write_candidates(path: Path, candidates: Sequence[Candidate]) -> None:
    """Candidates as a database: exact, and in their order."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with StoreWriter(path) as writer:
        for index, candidate in enumerate(candidates):
            writer.add(Frame(candidate.atoms, index + 1, path.name, config_type=candidate.kind))


def read_candidates(path: Path) -> list[Candidate]:
    """The inverse of `write_candidates`."""
    store = FrameStore(path)
    return [Candidate(frame.atoms, frame.config_type or "") for frame in store.iterate()]
