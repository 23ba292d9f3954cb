"""Labels with their origin: once per structure, in an order that does not depend on chance."""

from __future__ import annotations

import numpy as np
from ase.build import bulk

from tdn.evaluation.teachers.process import Label
from tdn.training.distillation.label_store import LabelStore, Origin, structure_key

TEACHER = {"name": "a:B", "version": "1.2"}


def label(value: float, count: int = 4) -> Label:
    return Label(value, np.full((count, 3), value), np.eye(3) * value, 0.25)


def structure(shift: float):
    atoms = bulk("Cu", "fcc", a=3.6, cubic=True)
    atoms.positions[0] += shift
    return atoms


def test_the_same_structure_has_the_same_key():
    atoms = structure(0.1)
    assert structure_key(atoms) == structure_key(atoms.copy())
    rounded = atoms.copy()
    rounded.positions += 1e-9
    assert structure_key(rounded) == structure_key(atoms)
    for change in ("positions", "cell", "numbers", "pbc"):
        other = atoms.copy()
        if change == "positions":
            other.positions[2, 1] += 1e-4
        elif change == "cell":
            other.cell[0, 0] += 1e-4
        elif change == "numbers":
            other.numbers[3] = 28
        else:
            other.pbc = [True, True, False]
        assert structure_key(other) != structure_key(atoms), change
    zero, minus = structure(0.0), structure(0.0)
    minus.positions[0] = -0.0
    assert structure_key(zero) == structure_key(minus)


def test_order_follows_rounds_and_not_arrival(tmp_path):
    path = tmp_path / "labels.lmdb"
    arrivals = [(1, 1), (0, 2), (0, 0), (1, 0), (0, 1)]
    for part in (arrivals[:2], arrivals[2:]):  # interrupted in between
        with LabelStore(path, TEACHER) as labels:
            for number, index in part:
                origin = Origin(number, index, "kind", "valid" if index == 2 else "train")
                atoms = structure(number + 0.1 * index)
                labels.add(atoms, label(10 * number + index), origin, TEACHER)
    with LabelStore(path, {"name": "other"}) as labels:
        assert labels.teacher == TEACHER
        assert [f.energy for f in labels.frames()] == [0.0, 1.0, 2.0, 10.0, 11.0]
        assert [f.energy for f in labels.frames(0)] == [0.0, 1.0, 2.0]
        assert [f.energy for f in labels.frames(0, "valid")] == [2.0]
        record = labels.record(structure(0.1))
        assert (record["teacher"], record["version"], record["seconds"]) == ("a:B", "1.2", 0.25)
        assert record["created"].endswith("+00:00")
        assert labels.record(structure(0.7)) is None


def test_test_frames_and_failures_stay_apart(tmp_path):
    with LabelStore(tmp_path / "labels.lmdb", TEACHER) as labels:
        labels.add(structure(0.1), label(1.0), Origin(0, 0, "a"), TEACHER)
        labels.add(structure(0.2), label(2.0), Origin(1000, 0, "b", "test"), TEACHER)
        labels.set_aside(structure(0.3), "NaN", Origin(0, 1, "a"), TEACHER)
        assert [f.energy for f in labels.frames()] == [1.0]
        assert [f.energy for f in labels.frames(split="test")] == [2.0]
        assert labels.record(structure(0.3))["aside"] == "NaN"
        assert labels.counts() == (2, 1) and labels.for_training() == 1
        assert labels.seconds() == 0.5
