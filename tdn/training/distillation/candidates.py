"""Structures that may be labeled, what their labels are for, and their files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import ase

from tdn.data.database.store import FrameStore
from tdn.data.database.writer import StoreWriter
from tdn.data.frames import Frame

# of every so many candidates one is for validation
VALID_EVERY = 10
# rounds from this number on are held out: labeled, never trained on
HELD_OUT = 1000
# kinds that no dynamics visit: they teach what must not be, or stresses of crystals at rest, and
# measure neither errors nor forces
FAR_KINDS = frozenset({"contact", "disorder", "elastic"})


@dataclass(frozen=True)
class Candidate:
    """A structure that may be labeled, and what made it."""

    atoms: ase.Atoms
    kind: str


def part_of(kind: str, number: int, index: int) -> str:
    """What a label is for: ``train``, ``valid`` or ``test``.

    Parameters
    ----------
    kind : of the candidate
    number : of the round
    index : among the round's candidates
    """
    if number >= HELD_OUT:
        return "test"
    turn = index % VALID_EVERY == VALID_EVERY - 1
    return "valid" if turn and kind not in FAR_KINDS else "train"


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
