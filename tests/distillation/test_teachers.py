"""Teachers in their processes: labels, checks, deaths, parallel labels, other environments."""

from __future__ import annotations

import os
import signal
import sys
import venv
from pathlib import Path

import ase
import forks
import numpy as np
import pytest
from ase.build import bulk, molecule
from ase.calculators.emt import EMT

from tdn.evaluation.teachers.calculator import calculator_named
from tdn.evaluation.teachers.process import CalculatorProcess, WorkerDied
from tdn.evaluation.teachers.source import CalculatorSource, parse_calculator
from tdn.system.errors import TDNError, UsageError
from tdn.training.distillation import labeling
from tdn.training.distillation.labeling import label_structures
from tdn.training.distillation.teacher_check import check_teacher


def copper(seed: int = 0, deviation: float = 0.1) -> ase.Atoms:
    atoms = bulk("Cu", "fcc", a=3.6, cubic=True) * (2, 2, 1)
    atoms.positions += deviation * np.random.default_rng(seed).normal(size=(16, 3))
    return atoms


def teacher(name: str, **arguments) -> CalculatorSource:
    return CalculatorSource(f"cheap_teachers:{name}", arguments)


def test_labels_are_those_of_the_calculator_to_the_last_bit(workplace):
    atoms = copper()
    process = CalculatorProcess(CalculatorSource("ase.calculators.emt:EMT"), workplace / "w")
    label = process.label(atoms)
    assert process.version == ase.__version__
    process.close()
    atoms.calc = EMT()
    assert label.energy == atoms.get_potential_energy()
    assert np.array_equal(label.forces, atoms.get_forces())
    assert np.array_equal(label.stress, atoms.get_stress(voigt=False))


def test_what_a_calculator_prints_does_not_disturb(workplace):
    process = CalculatorProcess(teacher("Talking"), workplace / "w")
    assert np.isfinite(process.label(copper()).energy)
    process.close()
    log = (workplace / "w" / "worker.log").read_text()
    assert "converged in 17 steps" in log and "and from C" in log


@pytest.mark.parametrize(
    "path, message",
    [
        ("no_such_module:EMT", "cannot import no_such_module"),
        ("ase.calculators.emt:Emt", "module ase.calculators.emt has no 'Emt'"),
    ],
)
def test_unknown_import_paths_are_usage_errors(workplace, path, message):
    with pytest.raises(UsageError, match=message):
        CalculatorProcess(CalculatorSource(path), workplace / "w").start()


def test_wrong_arguments_are_usage_errors(workplace):
    source = CalculatorSource("cheap_teachers:Nan", {"smallest": 3})
    with pytest.raises(UsageError, match="smallest"):
        CalculatorProcess(source, workplace / "w").start()


def test_an_interpreter_that_is_none_is_a_usage_error(workplace):
    source = CalculatorSource("ase.calculators.emt:EMT", python=str(workplace / "python"))
    with pytest.raises(UsageError, match=r"teacher.python .* is no program"):
        CalculatorProcess(source, workplace / "w").start()


def test_text_forms():
    source = parse_calculator("tblite.ase:TBLite {method: GFN2-xTB, verbosity: 0}")
    assert source.path == "tblite.ase:TBLite"
    assert source.arguments == {"method": "GFN2-xTB", "verbosity": 0}
    for bad in ("tblite.ase", "a:b {c", "a:b [1]", "a b:c", "model.pt"):
        with pytest.raises(UsageError, match="expected module:Name"):
            parse_calculator(bad)


@pytest.mark.parametrize(
    "source, message",
    [
        (teacher("Unordered"), "depends on the order of the atoms"),
        (teacher("NoForces"), "NoForces gives no forces; choose a calculator that does"),
        (teacher("Nan", fewest=100), "gives NaN or infinity for a structure of 16 atoms with Cu"),
    ],
)
def test_unusable_teachers_are_refused(workplace, source, message):
    with pytest.raises(TDNError, match=message):
        check_teacher(source, [copper()], ["Cu"], workplace / "w")


def test_a_teacher_that_fails_on_an_element_says_so(workplace):
    source = CalculatorSource("ase.calculators.emt:EMT")
    atoms = molecule("CH3CH2OH")
    check_teacher(source, [atoms], ["C", "H", "O"], workplace / "w")
    atoms.numbers[0] = 26
    with pytest.raises(TDNError, match=r"cannot label a structure of 9 atoms with C, Fe, H, O"):
        check_teacher(source, [atoms], ["C", "Fe", "H", "O"], workplace / "w")


def test_the_check_measures_and_finds_isolated_atoms(workplace):
    report = check_teacher(CalculatorSource("ase.calculators.emt:EMT"), [copper()], ["Cu"], Path())
    atom = ase.Atoms("Cu", cell=[20] * 3, pbc=True)
    atom.calc = EMT()
    assert report.isolated["Cu"].energy == pytest.approx(atom.get_potential_energy(), abs=1e-12)
    assert report.has_stress and report.seconds_per_atom > 0 and not report.notes


@pytest.mark.parametrize("workers", [1, 3])
def test_every_structure_gets_its_label(workplace, workers):
    frames = [copper(seed) for seed in range(7)]
    source = CalculatorSource("ase.calculators.emt:EMT")
    found = dict(label_structures(frames, source, workplace / "w", workers))
    assert sorted(found) == list(range(7))
    for index, atoms in enumerate(frames):
        atoms.calc = EMT()
        assert found[index].energy == atoms.get_potential_energy()
    assert len(list((workplace / "w").iterdir())) == workers


def test_the_label_of_a_dead_worker_is_redone(workplace):
    frames = [copper(seed) for seed in range(3)]
    del frames[1][0]
    source = teacher("Dying", folder=str(workplace))
    found = dict(label_structures(frames, source, workplace / "w", 1))
    assert (workplace / "died").exists()
    assert all(label.finite for label in found.values())


def test_a_structure_that_kills_every_worker_is_given_up(workplace):
    frames = [copper(seed) for seed in range(3)]
    del frames[1][0]
    source = teacher("Dying", folder=str(workplace), always=True)
    found = dict(label_structures(frames, source, workplace / "w", 2))
    assert "died (exit code -9)" in found[1] and "3 times" in found[1]
    assert found[0].finite and found[2].finite


def test_a_killed_worker_is_reported_and_started_again(workplace):
    source = CalculatorSource("ase.calculators.emt:EMT", python=forks.PYTHON)
    process = CalculatorProcess(source, workplace / "w")
    first = process.label(copper())
    os.kill(process._process.pid, signal.SIGKILL)
    with pytest.raises(WorkerDied):
        process.label(copper())
    assert process.label(copper()).energy == first.energy
    process.close()


def test_frames_without_numbers_are_told_apart(workplace):
    frames = [copper(0), copper(1)]
    del frames[1][0]
    found = dict(label_structures(frames, teacher("Nan", fewest=16), workplace / "w"))
    assert found[0].finite
    assert found[1] == "NaN or infinity in energy, forces or stress"


def test_leaving_early_ends_the_workers(workplace):
    frames = [copper(seed) for seed in range(50)]
    labels = label_structures(
        frames, teacher("Counting", folder=str(workplace)), workplace / "w", 2
    )
    next(labels)
    labels.close()
    assert len((workplace / "calls.txt").read_text().splitlines()) < 50


def test_another_environment(workplace):
    """A virtual environment without tdn, torch and yaml; it sees ase and numpy by a path file."""
    venv.create(workplace / "other", with_pip=False, symlinks=True)
    (packages,) = (workplace / "other" / "lib").glob("python*/site-packages")
    only = workplace / "only"
    only.mkdir()
    for name in ("ase", "numpy", "scipy"):
        for file in Path(ase.__file__).parents[1].glob(f"{name}*"):
            (only / file.name).symlink_to(file)
    (packages / "only.pth").write_text(str(only))
    python = workplace / "other" / "bin" / "python"
    calculator = calculator_named("cheap_teachers:Talking {}", workplace / "w", str(python))
    assert calculator.process.source.interpreter != sys.executable
    atoms = copper()
    atoms.calc = calculator
    energy, forces, stress = (
        atoms.get_potential_energy(),
        atoms.get_forces(),
        atoms.get_stress(),
    )
    calculator.close()
    atoms.calc = EMT()
    assert energy == atoms.get_potential_energy()
    assert np.array_equal(forces, atoms.get_forces())
    assert np.array_equal(stress, atoms.get_stress())


def test_dask(workplace):
    distributed = pytest.importorskip("distributed")
    frames = [copper(seed) for seed in range(5)]
    del frames[3][0]
    source = teacher("Nan", fewest=16)
    cluster = distributed.LocalCluster(
        n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None
    )
    with cluster:
        address = cluster.scheduler_address
        found = dict(label_structures(frames, source, workplace / "w", "dask", address))
        assert not labeling._processes  # the worker lives on without the teacher
        other = CalculatorSource("ase.calculators.emt:EMT")
        (again,) = label_structures(frames[3:4], other, workplace / "v", "dask", address)
        assert again[1].finite
    atoms = frames[0]
    atoms.calc = EMT()
    assert found[0].energy == atoms.get_potential_energy()
    assert isinstance(found[3], str)


def test_no_scheduler_is_one_line(workplace):
    pytest.importorskip("distributed")
    labels = label_structures([copper()], teacher("Nan"), workplace, "dask", "nonsense")
    with pytest.raises(TDNError, match=r"no scheduler of Dask at teacher.scheduler = nonsense"):
        next(labels)
