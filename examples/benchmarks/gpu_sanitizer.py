"""The operators under compute-sanitizer: memory errors, races in shared memory, barriers.

    python examples/benchmarks/gpu_sanitizer.py
    python examples/benchmarks/gpu_sanitizer.py --tools racecheck --select gate

Runs the small tests of the operators (tests/ops/test_cuda.py) under each tool, all at once, and
counts what it reports of the kernels of TDN. PyTorch hands out parts of large blocks of memory, in
which the tool could not see where an array ends, so that is switched off.
"""

from __future__ import annotations

import argparse
import glob
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from gpu_report import Budget, Report

from tdn.system.command import run_main
from tdn.system.errors import TDNError

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ("memcheck", "racecheck", "synccheck")
SELECT = "test_derivatives_agree_with_reference"
ERRORS_FOUND = 86  # exit code of the tool where it reports something


def find_sanitizer() -> str | None:
    """The program, on the path or where CUDA and its profilers are installed."""
    folders = [os.environ.get(name) for name in ("CUDA_HOME", "CUDA_PATH")]
    candidates = ["compute-sanitizer", *(f"{f}/bin/compute-sanitizer" for f in folders if f)]
    candidates += ["/usr/local/cuda/bin/compute-sanitizer"]
    candidates += sorted(glob.glob("/usr/local/cuda*/compute-sanitizer/compute-sanitizer"))
    return next(filter(None, map(shutil.which, candidates)), None)


def start(program: str, tool: str, select: str, log: Path, output) -> subprocess.Popen:
    """One tool over the tests; its reports go to ``log``, what pytest prints to ``output``."""
    command = [program, "--tool", tool, "--kernel-regex", "kns=tdn", "--log-file", str(log)]
    command += ["--error-exitcode", str(ERRORS_FOUND)]
    command += [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-k", select]
    command += ["-p", "no:cacheprovider", "-p", "no:xdist", "tests/ops/test_cuda.py"]
    environment = os.environ | {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT
    )


def count_errors(log: str) -> int | None:
    """Errors and hazards that a tool reports; None if it came to no end."""
    totals = re.findall(r"ERROR SUMMARY: (\d+) error|RACECHECK SUMMARY: (\d+) hazard", log)
    return sum(int(a or b) for a, b in totals) if totals else None


def _main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tools", nargs="+", choices=TOOLS, default=TOOLS, metavar="NAME")
    parser.add_argument("--select", default=SELECT, help=f"tests, as pytest -k (default {SELECT})")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the rows there")
    parser.add_argument("--seconds", type=float, default=600.0, help="end the tools after (600)")
    arguments = parser.parse_args()
    import torch

    if not torch.cuda.is_available():
        print("not run: no GPU")
        return 0
    program = find_sanitizer()
    if program is None:
        raise TDNError("compute-sanitizer was not found; install it or set CUDA_HOME")
    report, budget, failed = Report(arguments.json), Budget(arguments.seconds), False
    with TemporaryDirectory() as folder:
        outputs = {tool: Path(folder, f"{tool}.out") for tool in arguments.tools}
        logs = {tool: Path(folder, f"{tool}.log") for tool in arguments.tools}
        running = {}
        for tool, path in outputs.items():
            with open(path, "w") as output:
                running[tool] = start(program, tool, arguments.select, logs[tool], output)
        for tool, process in running.items():
            try:
                code = process.wait(max(0.1, budget.left))
            except subprocess.TimeoutExpired:
                process.kill()
                code = process.wait()
            log = logs[tool].read_text(errors="replace") if logs[tool].exists() else ""
            errors = count_errors(log)
            last = (outputs[tool].read_text(errors="replace").strip().splitlines() or [""])[-1]
            report.add(f"{tool}", errors, "reports", at_most=0, note=last)
            if code != 0 or errors is None:
                failed = True
                print(f"{tool}: exit code {code}; begins:\n" + "\n".join(log.splitlines()[:40]))
    return int(failed or report.exit_code())


if __name__ == "__main__":
    sys.exit(run_main(_main, "gpu_sanitizer.py"))
