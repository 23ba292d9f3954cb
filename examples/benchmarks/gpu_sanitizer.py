"""The operators under compute-sanitizer: memory errors, races in shared memory, barriers.

    python examples/benchmarks/gpu_sanitizer.py
    python examples/benchmarks/gpu_sanitizer.py --tools racecheck --operators gate

Runs the small problems of the tests of the operators (tests/ops/cases.py) and small networks from
positions to forces (tests/cuda_problems.py) under each tool, all tools at once, and counts what
they report of the kernels of TDN. Operators take turns, and after a time no further problem starts.
PyTorch hands out parts of large blocks of memory, in which a tool could not see where an array
ends, so that is switched off.
"""

from __future__ import annotations

import argparse
import glob
import os
import re
import shutil
import subprocess
import sys
from itertools import zip_longest
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from gpu_report import Budget, Report

from tdn.system.command import run_main
from tdn.system.errors import TDNError

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ("memcheck", "racecheck", "synccheck")
# those with kernels of their own
OPERATORS = ("cp_message", "convolution", "density", "node_product", "gate", "positions")
ERRORS_FOUND = 86  # exit code of a tool that reports something
ENDING = 15.0  # seconds kept for the last problem and the end of the tools
FACTOR = 20.0  # tolerance, in those of the CPU, as tests/ops/test_cuda.py


def find_sanitizer() -> str | None:
    """The program, on the path or where CUDA is installed."""
    folders = [os.environ.get(name) for name in ("CUDA_HOME", "CUDA_PATH")]
    candidates = ["compute-sanitizer", *(f"{f}/bin/compute-sanitizer" for f in folders if f)]
    candidates += ["/usr/local/cuda/bin/compute-sanitizer"]
    candidates += sorted(glob.glob("/usr/local/cuda*/compute-sanitizer/compute-sanitizer"))
    return next(filter(None, map(shutil.which, candidates)), None)


def run_problems(operators: list[str], device: str, budget: Budget) -> int:
    """What runs under the tools: each problem against the reference."""
    sys.path.insert(0, str(ROOT / "tests"))
    from cuda_problems import NETWORKS, check_positions
    from ops import cases

    shapes = [
        [
            (name, shape)
            for shape in (cases.OPERATORS[name][1] if name in cases.OPERATORS else NETWORKS)
        ]
        for name in operators
    ]
    turns = [case for turn in zip_longest(*shapes) for case in turn if case is not None]
    for done, (name, shape) in enumerate(turns):
        if budget.left < 0:
            print(f"{done} of {len(turns)} problems")
            break
        if name == "positions":
            check_positions(shape, torch.float64, device)
        else:
            cases.check(cases.make(name, **shape), device, FACTOR)
    else:
        print(f"all {len(turns)} problems")
    return 0


def start(
    program: str, tool: str, operators: list[str], seconds: float, log: Path, output
) -> subprocess.Popen:
    """One tool; its reports go to ``log``, what the problems print to ``output``."""
    command = [program, "--tool", tool, "--kernel-regex", "kns=tdn", "--log-file", str(log)]
    command += ["--error-exitcode", str(ERRORS_FOUND), sys.executable, __file__, "--problems"]
    command += ["--seconds", f"{seconds:.0f}", "--operators", *operators]
    environment = os.environ | {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT
    )


def count_errors(log: str) -> int | None:
    """Errors and hazards that a tool reports; None if it came to no end."""
    totals = re.findall(r"ERROR SUMMARY: (\d+) error|RACECHECK SUMMARY: (\d+) hazard", log)
    return sum(int(a or b) for a, b in totals) if totals else None


def run_tools(report: Report, program: str, arguments: argparse.Namespace) -> bool:
    """A row for each tool; whether all of them passed."""
    budget, passed = Budget(arguments.seconds), True
    with TemporaryDirectory() as folder:
        paths = {t: (Path(folder, f"{t}.log"), Path(folder, f"{t}.out")) for t in arguments.tools}
        running = {}
        for tool, (log, output) in paths.items():
            with open(output, "w") as stream:
                seconds = arguments.seconds - ENDING
                running[tool] = start(program, tool, arguments.operators, seconds, log, stream)
        for tool, process in running.items():
            try:
                code = process.wait(max(0.1, budget.left))
            except subprocess.TimeoutExpired:
                process.kill()
                code = process.wait()
            log, output = (
                path.read_text(errors="replace") if path.exists() else "" for path in paths[tool]
            )
            errors, lines = count_errors(log), output.strip().splitlines() or [""]
            report.add(tool, errors, "reports", at_most=0, note=lines[-1][:60])
            if code != 0 or errors is None:
                passed = False
                print(f"{tool}: exit code {code}", *log.splitlines()[:40], *lines[-20:], sep="\n")
    return passed


def _main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tools", nargs="+", choices=TOOLS, default=TOOLS, metavar="NAME")
    parser.add_argument(
        "--operators", nargs="+", choices=OPERATORS, default=OPERATORS, metavar="NAME"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the rows there")
    parser.add_argument("--seconds", type=float, default=600.0, help="time limit (default 600)")
    parser.add_argument("--problems", action="store_true", help="for use by this script")
    arguments = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if arguments.problems:
        return run_problems(arguments.operators, device, Budget(arguments.seconds))
    if device == "cpu":
        print("not run: no GPU")
        return 0
    program = find_sanitizer()
    if program is None:
        raise TDNError("compute-sanitizer was not found; install it or set CUDA_HOME")
    report = Report(arguments.json)
    return int(not run_tools(report, program, arguments) or report.exit_code())


if __name__ == "__main__":
    sys.exit(run_main(_main, "gpu_sanitizer.py"))
