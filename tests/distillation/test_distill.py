"""The whole loop with a cheap teacher: what it leaves, and that kills change nothing."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import ase.io
import forks
import numpy as np
import pytest
import torch
import yaml
from ase.build import bulk
from distillation.one_process import in_one_process, main_in_one_process

from tdn.config.distillation import distill_config_from_dict
from tdn.data.database.store import FrameStore
from tdn.evaluation.teachers.process import Label
from tdn.evaluation.teachers.source import CalculatorSource
from tdn.network.checkpoint import load_model
from tdn.training.distillation import loop
from tdn.training.distillation.budget import Budget
from tdn.training.distillation.candidates import HELD_OUT, Candidate, part_of, read_candidates
from tdn.training.distillation.cli import main
from tdn.training.distillation.label_store import LabelStore
from tdn.training.distillation.loop import Distillation

TEACHERS = Path(__file__).with_name("cheap_teachers.py")
Command = Callable[[list[str]], int]
SETTINGS = {
    "teacher": {"calculator": "cheap_teachers:Counting", "workers": 2},
    "seeds": {
        "structures": ["cu.cif"],
        "atoms": 16,
        "rattles": 4,
        "strains": 3,
        "shears": 2,
        "elastic": 0,
        "vacancies": 1,
        "surfaces": 1,
    },
    "rounds": {
        "temperatures": [300, 900],
        "melt": 2000,
        "pressures": [0],
        "max_rounds": 2,
        "committee": 2,
        "steps": 6,
        "final_steps": 9,
        "frames": 4,
        "md_steps": 60,
        "lower": 0.001,
        "upper": 30.0,
    },
    "student": {
        "model": {"r_max": 4.0, "l_max": 1, "num_channels": 4, "correlation": 2},
        "train": {"learning_rate": 0.02, "batch_size": 4, "save_interval": 0.0},
    },
    "report": {"heldout": 2, "teacher_steps": 100},
    "run": {"folder": "run", "jobs": 1},
}


def prepare(folder: Path, **changes: dict) -> Path:
    """A folder with structure, teachers and configuration."""
    folder.mkdir(exist_ok=True)
    bulk("Cu", "fcc", a=3.6, cubic=True).write(folder / "cu.cif")
    shutil.copy(TEACHERS, folder)
    values = json.loads(json.dumps(SETTINGS))
    values["teacher"]["arguments"] = {"folder": str(folder)}
    for section, keys in changes.items():
        values[section].update(keys)
    (folder / "distill.yaml").write_text(yaml.safe_dump(values))
    return folder


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A run that nobody disturbed."""
    folder = prepare(tmp_path_factory.mktemp("distill") / "whole")
    output = io.StringIO()
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(output),
        in_one_process(),
    ):
        patch.chdir(folder)
        forks.take_over(patch, lmp=True)
        assert main(["distill.yaml"]) == 0
    (folder / "output.txt").write_text(output.getvalue())
    return folder


pytestmark = [pytest.mark.slow, pytest.mark.lammps]


def test_everything_is_there(finished):
    run = finished / "run"
    names = ("model.pt", "model.tdn.pth", "committee.tdn.pth", "in.example", "report.html")
    assert all((run / name).stat().st_size for name in names)
    output = (finished / "output.txt").read_text()
    assert "rounds end: 2 rounds are done (rounds.max_rounds)" in output
    values = json.loads((run / "report.json").read_text())["sections"]
    for title in ("Held-out frames", "Calibration", "Rounds", "Equation of state: Cu4", "Speed"):
        assert title in values, sorted(values)
    kinds = set(values["Held-out frames"])
    assert {"300 K", "900 K", "melt 900 K", "all"} <= kinds
    assert any(kind.startswith("reference's dynamics") for kind in kinds)
    assert values["Speed"]["lammps_us_per_atom"] > 0
    # 20 steps at 2000 K melt nothing, and it is said
    said = "stayed solid instead of melting: atoms of s0_melt"
    assert said in output
    assert values["What the student has seen"]["stayed_solid"] == ["s0_melt_900_K"]
    assert f"Held-out runs {said}_900_K moved by" in (run / "report.html").read_text()


def test_nothing_was_labeled_twice(finished):
    calls = (finished / "calls.txt").read_text().splitlines()
    with LabelStore(finished / "run" / "labels.lmdb", {}) as labels:
        records = labels.records()
    assert len(records) == labels_of(finished)
    assert {r["teacher"] for r in records} == {"cheap_teachers:Counting"}
    assert all(r["seconds"] >= 0 and r["created"] and r["version"] for r in records)
    # beside the labels there are the checks of the teacher, and what the report computes
    held_out = [r for r in records if r["round"] >= 1000]
    assert len(held_out) == 6 and {r["split"] for r in held_out} == {"test"}
    assert len(calls) > len(records)


def labels_of(folder: Path) -> int:
    return FrameStore(folder / "run" / "labels.lmdb").metadata["labels"]["forces"]


def test_held_out_frames_are_in_no_training(finished):
    tests = {
        frame.atoms.positions.tobytes()
        for frame in FrameStore(finished / "run" / "labels.lmdb").iterate()
        if frame.split == "test"
    }
    for path in (finished / "run" / "rounds").glob("*/frames.lmdb"):
        frames = list(FrameStore(path).iterate())
        assert {frame.split for frame in frames} == {"train", "valid"}
        assert not tests & {frame.atoms.positions.tobytes() for frame in frames}


def test_no_frame_is_validated_with_that_dynamics_do_not_visit():
    kinds = ["melt", "disorder", "contact", "elastic"]
    parts = {kind: [part_of(kind, 0, index) for index in range(20)] for kind in kinds}
    assert parts["melt"].count("valid") == 2 and parts["melt"].count("train") == 18
    assert parts["disorder"] == parts["contact"] == parts["elastic"] == ["train"] * 20
    assert [part_of(kind, HELD_OUT, 0) for kind in kinds] == ["test"] * 4


def test_the_example_runs_in_lammps(finished):
    lmp = Path(sys.executable).parent / "lmp"
    result = subprocess.run(
        [lmp, "-in", "in.example", "-var", "steps", "10", "-log", "none"],
        cwd=finished / "run",
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout
    assert "Loop time" in result.stdout


def test_a_finished_run_does_nothing(finished, monkeypatch, capsys):
    monkeypatch.chdir(finished)
    calls = len((finished / "calls.txt").read_text().splitlines())
    assert main(["distill.yaml"]) == 0
    assert "this run is finished" in capsys.readouterr().out
    assert len((finished / "calls.txt").read_text().splitlines()) == calls


def test_another_configuration_in_the_same_folder_is_refused(finished, monkeypatch, capsys):
    monkeypatch.chdir(finished)
    assert main(["distill.yaml", "rounds.steps=7"]) == 2
    assert "rounds.steps is 7, but the run in" in capsys.readouterr().err
    assert main(["distill.yaml", "teacher.calculator=ase.calculators.emt:EMT"]) == 2
    assert "teacher.calculator is" in capsys.readouterr().err


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_model(folder / "run" / "model.pt")[0].state_dict()


def test_kills_at_any_time_lose_nothing_and_change_nothing(finished, tmp_path, monkeypatch):
    """Killed while it labels, trains, explores, and in the last training; the same end.

    At first trainings and exports are processes of their own, which end with the one that is
    killed. Of the report it has what needs labels.
    """
    forks.take_over(monkeypatch, lmp=True)
    folder = prepare(tmp_path / "killed", report={"teacher_steps": 0, "crystals": False})
    run = folder / "run"
    moments: list[tuple[Command, Callable[[], bool]]] = [
        (main, lambda: (run / "labels.lmdb").exists() and _count(folder) >= 8),
        (main, lambda: (run / "rounds" / "00" / "member_1" / "last.pt").exists()),
        (main, lambda: any((run / "rounds" / "00" / "dynamics").glob("*/0.dump"))),
        (
            main_in_one_process,
            lambda: (run / "rounds" / "final_01" / "member_0" / "last.pt").exists(),
        ),
    ]
    before = 0
    log = folder / "output.txt"
    for command, moment in moments:
        process = forks.start(command, ["distill.yaml"], log, folder)
        while process.is_alive() and not moment():
            time.sleep(0.02)
        assert process.is_alive(), log.read_text()
        process.kill()
        process.join()
        with LabelStore(run / "labels.lmdb", {}) as labels:
            assert labels.counts()[0] >= before
            before = labels.counts()[0]
    process = forks.start(main_in_one_process, ["distill.yaml"], log, folder)
    process.join(900)
    assert process.exitcode == 0, log.read_text()
    one, other = weights(finished), weights(folder)
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(value, other[name]), name
    both = []
    for place in (finished, folder):
        with LabelStore(place / "run" / "labels.lmdb", {}) as labels:
            keys = ("round", "index", "kind", "split")
            both.append([tuple(r[k] for k in keys) for r in labels.records()])
    assert both[0] == both[1]


def _count(folder: Path) -> int:
    """Structures that the teacher was asked for."""
    path = folder / "calls.txt"
    return len(path.read_text().splitlines()) if path.exists() else 0


def test_frames_without_a_label_are_set_aside_and_the_run_goes_on(tmp_path, monkeypatch, capsys):
    """NaN for the vacancies, no LAMMPS, one round."""
    folder = prepare(
        tmp_path / "nan",
        teacher={"calculator": "cheap_teachers:Nan"},
        rounds={"max_rounds": 1, "engine": "ase", "md_steps": 20, "temperatures": [300]},
        report={"teacher_steps": 0, "heldout": 1},
    )
    values = yaml.safe_load((folder / "distill.yaml").read_text())
    values["teacher"]["arguments"] = {"fewest": 32}
    values["rounds"]["melt"] = None
    (folder / "distill.yaml").write_text(yaml.safe_dump(values))
    monkeypatch.chdir(folder)
    with in_one_process():
        assert main(["distill.yaml"]) == 0
    captured = capsys.readouterr()
    assert "1 of 16 frames have no label and are set aside: NaN or infinity" in captured.err
    # the seed, and what the dynamics of the vacancy brought
    aside = ase.io.read("run/set_aside.xyz", ":")
    assert all(len(atoms) == 31 and atoms.info["reason"].startswith("NaN") for atoms in aside)
    assert f"{len(aside)} structures set aside" in (folder / "run" / "report.html").read_text()
    with LabelStore(folder / "run" / "labels.lmdb", {}) as labels:
        assert labels.counts()[1] == len(aside)


def test_equal_structures_are_labeled_once(workplace, monkeypatch):
    """Also where rounding separates them, as a strain of zero from the structure itself."""
    whole = Distillation(
        distill_config_from_dict(
            {"teacher": {"calculator": "a:B"}, "seeds": {"structures": ["cu.cif"], "atoms": 4}}
        )
    )
    atoms = bulk("Cu", "fcc", a=3.6, cubic=True)
    other = atoms.copy()
    other.set_cell(atoms.cell.array, scale_atoms=True)
    other.positions += 1e-12
    asked = []

    def label(structures, *rest):
        asked.extend(structures)
        return ((i, Label(0.0, np.zeros((4, 3)), None, 0.0)) for i in range(len(structures)))

    monkeypatch.setattr(loop, "label_structures", label)
    whole.teacher = {"name": "a", "version": "1"}
    whole.budget = Budget(workplace / "clock.json", None)
    whole.labels = LabelStore(workplace / "labels.lmdb", whole.teacher)
    with whole.labels:
        whole.label([Candidate(atoms, "structure"), Candidate(other, "strain")], 0, "labels")
        assert len(asked) == 1 and whole.labels.counts() == (1, 0)


def test_held_out_labels_are_not_counted_against_max_labels(workplace, monkeypatch):
    """Five at most: two are there beside two held-out ones, so that three of four are labeled.

    The seeds leave half of them to what the networks visit.
    """
    values = {
        "teacher": {"calculator": "a:B"},
        "seeds": {"structures": ["cu.cif"], "atoms": 4},
        "rounds": {"max_labels": 40, "melt": 2000.0},
    }
    whole = Distillation(distill_config_from_dict(values))
    structures = []
    for index in range(8):
        structures.append(bulk("Cu", "fcc", a=3.6 + 0.01 * index, cubic=True))

    def label(asked, *rest):
        return ((i, Label(0.0, np.zeros((4, 3)), None, 0.0)) for i in range(len(asked)))

    monkeypatch.setattr(loop, "label_structures", label)
    whole.teacher = {"name": "a", "version": "1", "seconds_per_atom": 0.0}
    whole.budget = Budget(workplace / "clock.json", None)
    whole.labels = LabelStore(workplace / "labels.lmdb", whole.teacher)
    with whole.labels:
        whole._begin()
        assert len(whole.seeds) > 40
        assert len(read_candidates(whole.folder.round(0) / "candidates.lmdb")) == 20
        whole.config = distill_config_from_dict({**values, "rounds": {"max_labels": 5}})
        whole.label([Candidate(a, "300 K") for a in structures[:2]], HELD_OUT, "held-out")
        whole.label([Candidate(a, "300 K") for a in structures[2:4]], 0, "labels")
        whole.label([Candidate(a, "300 K") for a in structures[4:]], 1, "labels")
        assert whole.labels.counts() == (7, 0) and whole.labels.for_training() == 5


def test_two_runs_in_one_folder_are_refused(finished, monkeypatch, capsys):
    from tdn.training.distillation.folder import RunFolder

    monkeypatch.chdir(finished)
    with RunFolder(finished / "run").locked():
        assert main(["distill.yaml"]) == 1
    assert "is used by another run of tdn-distill" in capsys.readouterr().err


def test_a_source_knows_its_interpreter():
    assert CalculatorSource("a:B").interpreter == sys.executable
