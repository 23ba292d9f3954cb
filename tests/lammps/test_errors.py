"""Each mistake in an input script or model file ends in one line that says what to do."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import forks
import pytest
import torch

from .conftest import TIME_LIMIT, LammpsRunner, only_error
from .toy import write_toy

ATOMS = """\
units {units}
region box block 0 10 0 10 0 10
create_box 2 box
create_atoms 1 single 1 1 1
create_atoms 2 single 2 1 1
mass * 1.0
"""


@pytest.fixture
def error_line(lmp: LammpsRunner) -> Callable[..., str]:
    """The error that the commands end with; checks that it is one line."""

    def run(commands: str, *, units: str = "metal", ranks: int = 1, **environment: str) -> str:
        script = ATOMS.format(units=units) + commands + "\nrun 0\n"
        output = lmp(script, ranks=ranks, fails=True, **environment)
        assert "Traceback" not in output and "terminate called" not in output
        return only_error(output)

    return run


COEFF = "pair_style tdn\npair_coeff * * toy1.tdn.pth "


MISTAKES = [
    (
        "pair_style tdn devise cpu",
        ["devise", "device, comm, check, direct, e0, neighbors or graphs"],
    ),
    ("pair_style tdn device gpu", ["gpu", "auto, cpu, cuda or cuda:N"]),
    ("pair_style tdn comm fast", ["fast", "auto, fold or exchange"]),
    ("pair_style tdn neighbors mine", ["mine", "auto, lammps or own"]),
    ("pair_style tdn check maybe", ["maybe"]),
    ("pair_style tdn device", ["device"]),
    ("pair_style tdn", ["pair coeffs are not set"]),
    (
        COEFF.replace("tdn\n", "tdn graphs yes\n") + "H O",
        ["graphs are for models that take positions on a GPU", "edges on cpu", "use graphs no"],
    ),
    (COEFF + "H", ["1 element(s)", "expected 2", "for each atom type"]),
    (COEFF + "H O H", ["3 element(s)", "expected 2"]),
    (COEFF + "H Xe", ["element Xe of atom type 2", "knows: H O"]),
    (COEFF.replace("* *", "1 1") + "H O", ["must start with * *"]),
    (COEFF.replace("toy1", "absent") + "H O", ["absent.tdn.pth was not found"]),
    (COEFF + "H NULL", ["pair coeffs are not set"]),
    (
        COEFF.replace("tdn\n", "tdn device cpu\n") + "H O\nrun 0\npair_style tdn device cuda:0",
        ["device cuda:0 was asked for", "which is on cpu", "give pair_coeff again"],
    ),
]


# argv: a file with scripts by name; prints what each ends with. One LAMMPS for all of them, which
# goes on after an error when it is used from Python
RUNNER = """
import json, sys
import tdn_lammps

lmp = tdn_lammps.lammps(cmdargs=["-screen", "none", "-log", "none", "-nocite"])
found = {}
for name, script in json.loads(open(sys.argv[1]).read()).items():
    lmp.command("clear")
    try:
        for command in script.splitlines():
            lmp.command(command)
    except Exception as error:
        found[name] = str(error)
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def error_lines(
    plugin: Path, models: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    """The errors of the commands of `MISTAKES`, and with each of `bad_files` by its name."""
    folder = tmp_path_factory.mktemp("errors")
    scripts = {commands: commands for commands, _ in MISTAKES}
    for number, (name, (make, _)) in enumerate(bad_files().items()):
        path = folder / f"bad_{number}.tdn.pth"
        make(path, models / "toy1.tdn.pth")
        scripts[name] = f"pair_style tdn\npair_coeff * * {path} H O"
    atoms = ATOMS.format(units="metal")
    whole = {name: f"{atoms}{commands}\nrun 0" for name, commands in scripts.items()}
    (folder / "scripts.json").write_text(json.dumps(whole))
    environment = {**os.environ, "LAMMPS_POTENTIALS": str(models), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [forks.python(), "-c", RUNNER, str(folder / "scripts.json")],
        env=environment,
        capture_output=True,
        text=True,
        timeout=TIME_LIMIT,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found.keys() == scripts.keys()
    return {name: only_error(text) for name, text in found.items()}


@pytest.mark.parametrize(("commands", "expected"), MISTAKES)
def test_input_mistakes(error_lines: dict[str, str], commands: str, expected: list[str]) -> None:
    for text in expected:
        assert text.lower() in error_lines[commands].lower()


def test_units(error_line: Callable) -> None:
    line = error_line(COEFF + "H O", units="lj")
    assert "lj" in line and "metal or real" in line


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_missing_gpu(error_line: Callable) -> None:
    line = error_line("pair_style tdn device cuda\npair_coeff * * toy1.tdn.pth H O")
    assert "no GPU" in line and "device cpu" in line


def test_fold_needs_one_rank(error_line: Callable) -> None:
    line = error_line("pair_style tdn comm fold\npair_coeff * * toy1.tdn.pth H O", ranks=2)
    assert "found 2" in line and "comm auto" in line


def test_error_on_several_ranks_is_one_line(error_line: Callable) -> None:
    assert "not found" in error_line(COEFF.replace("toy1", "absent") + "H O", ranks=2)


def bad_files() -> dict[str, tuple[Callable[[Path, Path], None], list[str]]]:
    """How to make each unusable file (target, good file), and what its error says."""

    def truncated(path: Path, good: Path) -> None:
        path.write_bytes(good.read_bytes()[:5000])

    def empty(path: Path, good: Path) -> None:
        path.write_bytes(b"")

    def text(path: Path, good: Path) -> None:
        path.write_text("not a model\n")

    def checkpoint(path: Path, good: Path) -> None:
        torch.save({"format": "tdn-checkpoint", "state": {}}, path)

    def foreign(path: Path, good: Path) -> None:
        torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), str(path))

    def newer(path: Path, good: Path) -> None:
        write_toy(path, change_metadata={"format_version": 4, "tdn_version": "9.1"})

    def other_format(path: Path, good: Path) -> None:
        write_toy(path, change_metadata={"format": "something"})

    def other_units(path: Path, good: Path) -> None:
        write_toy(path, change_metadata={"units": {"energy": "Ha", "length": "bohr"}})

    def bad_cutoff(path: Path, good: Path) -> None:
        write_toy(path, change_metadata={"r_max": -1.0})

    def wrong_result(path: Path, good: Path) -> None:
        write_toy(path, change_reference={"forces": [[0.0, 0.0, 0.1]] * 4})

    return {
        "truncated": (truncated, ["damaged"]),
        "empty": (empty, ["damaged"]),
        "text": (text, ["damaged"]),
        "checkpoint": (checkpoint, ["checkpoint", "tdn-export"]),
        "foreign": (foreign, ["without TDN's metadata", "tdn-export"]),
        "newer": (newer, ["version 4", "up to version 3", "at least 9.1"]),
        "other_format": (other_format, ["something", "tdn-compiled"]),
        "other_units": (other_units, ["Ha and bohr", "eV and angstrom"]),
        "bad_cutoff": (bad_cutoff, ["r_max"]),
        "wrong_result": (wrong_result, ["other results", "eV/A", "tdn-lammps build"]),
    }


@pytest.mark.parametrize("name", bad_files())
def test_unusable_files(error_lines: dict[str, str], name: str) -> None:
    _, expected = bad_files()[name]
    for text in [f"bad_{list(bad_files()).index(name)}.tdn.pth", *expected]:
        assert text in error_lines[name]


def test_an_unusable_file_ends_the_program(
    error_line: Callable, models: Path, tmp_path: Path
) -> None:
    make, expected = bad_files()["truncated"]
    make(tmp_path / "bad.tdn.pth", models / "toy1.tdn.pth")
    line = error_line("pair_style tdn\npair_coeff * * bad.tdn.pth H O")
    for text in ["bad.tdn.pth", *expected]:
        assert text in line


def test_reference_check_can_be_left_out(lmp: LammpsRunner, tmp_path: Path) -> None:
    write_toy(tmp_path / "bad.tdn.pth", change_reference={"forces": [[0.0, 0.0, 0.1]] * 4})
    script = ATOMS.format(units="metal")
    script += "pair_style tdn check no\npair_coeff * * bad.tdn.pth H O\nrun 0\n"
    assert "not checked" in lmp(script)
