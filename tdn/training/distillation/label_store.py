"""Labels on the disk: at once, with where they come from, and never twice for one structure."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import ase
import numpy as np

from tdn.data.database.append import StoreAppender
from tdn.data.frames import Frame
from tdn.evaluation.teachers.process import Label

PREFIX = b"label:"
# positions and cells that agree to this many decimals (angstrom) are the same structure
DECIMALS = 6


def structure_key(atoms: ase.Atoms) -> str:
    """The same text for the same elements, positions, cell and periodicity."""
    digest = hashlib.sha256(atoms.numbers.astype("<i4").tobytes())
    digest.update(np.asarray(atoms.pbc, dtype="u1").tobytes())
    for array in (atoms.positions, atoms.cell.array):
        # adding zero makes -0 and 0 the same bytes
        digest.update((np.round(array, DECIMALS) + 0.0).astype("<f8").tobytes())
    return digest.hexdigest()[:32]


@dataclass(frozen=True)
class Origin:
    """Where a structure comes from: round, place in it, kind, part, and its trajectory."""

    round: int
    index: int
    kind: str
    split: str = "train"


class LabelStore:
    """``labels.lmdb``: frames, and beside each a record of teacher, version, time and origin.

    A frame that the teacher could not label leaves a record with the reason instead.

    Parameters
    ----------
    path : of the database
    teacher : what the metadata of a new database say
    """

    def __init__(self, path: Path, teacher: dict[str, Any]) -> None:
        self._store = StoreAppender(path, {"teacher": teacher})

    def __enter__(self) -> LabelStore:
        return self

    def __exit__(self, *arguments: object) -> None:
        self._store.__exit__(*arguments)

    @property
    def teacher(self) -> dict[str, Any]:
        """The teacher of the first label."""
        return self._store.metadata["origin"]["teacher"]

    def record(self, atoms: ase.Atoms) -> dict[str, Any] | None:
        """What is known about a structure, None before it was labeled."""
        value = self._store.get(PREFIX + structure_key(atoms).encode())
        return None if value is None else json.loads(value)

    def add(self, atoms: ase.Atoms, label: Label, origin: Origin, teacher: dict[str, Any]) -> None:
        """Store a label; it is on the disk when this returns."""
        frame = Frame(
            atoms=atoms,
            number=len(self._store) + 1,
            source=self._store.path.name,
            energy=label.energy,
            forces=label.forces,
            stress=label.stress,
            config_type=origin.kind,
            split=origin.split,
        )
        record = _record(origin, teacher, seconds=label.seconds, frame=len(self._store))
        self._store.append(frame, {PREFIX + structure_key(atoms).encode(): record})

    def set_aside(
        self, atoms: ase.Atoms, reason: str, origin: Origin, teacher: dict[str, Any]
    ) -> None:
        """Remember that a structure has no label, and why."""
        record = _record(origin, teacher, aside=reason)
        self._store.put(PREFIX + structure_key(atoms).encode(), record)

    def records(self) -> list[dict[str, Any]]:
        """All records, by round and place; isolated atoms have round -1."""
        found = [json.loads(value) for _, value in self._store.items(PREFIX)]
        return sorted(found, key=lambda record: (record["round"], record["index"]))

    def frames(self, last_round: int | None = None, split: str | None = None) -> list[Frame]:
        """Labeled frames up to a round, in an order that does not depend on who was fastest."""
        chosen = [
            self._store.frame(record["frame"])
            for record in self.records()
            if "frame" in record
            and (last_round is None or record["round"] <= last_round)
            and (record["split"] == "test") == (split == "test")
        ]
        return [frame for frame in chosen if split is None or frame.split == split]

    def seconds(self) -> float:
        """What all labels took, one after the other."""
        return sum(record.get("seconds", 0.0) for record in self.records())

    def for_training(self) -> int:
        """Labels that networks are trained and validated with; none is held out."""
        return sum("frame" in r and r["split"] != "test" for r in self.records())

    def counts(self) -> tuple[int, int]:
        """Labels, and structures that were set aside."""
        records = self.records()
        labeled = sum("frame" in record for record in records)
        return labeled, len(records) - labeled


def _record(origin: Origin, teacher: dict[str, Any], **values: Any) -> bytes:
    created = datetime.now(timezone.utc).isoformat(timespec="seconds")
    record = {
        "round": origin.round,
        "index": origin.index,
        "kind": origin.kind,
        "split": origin.split,
        "teacher": teacher["name"],
        "version": teacher["version"],
        "created": created,
        **values,
    }
    return json.dumps(record).encode()
