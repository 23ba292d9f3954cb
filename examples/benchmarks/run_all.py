"""Run all benchmarks; tables and figures go to examples/benchmarks/results (``make bench``).

    python examples/benchmarks/run_all.py
    python examples/benchmarks/run_all.py --quick --results /somewhere/else

Each table is what the script of that name prints. On a machine with nothing else to do this takes
up to 20 minutes; other programs that run at the same time spoil the figures.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from tdn.files import atomic_write

HERE = Path(__file__).parent
RESULTS = HERE / "results"
# name of the result: script, options, options of a quick run
BENCHMARKS: dict[str, tuple[str, list[str], list[str]]] = {
    "operators": ("operators.py", [], ["--quick"]),
    "inference": ("inference.py", ["--aotinductor"], ["--quick"]),
    "lammps_md": ("lammps_md.py", [], ["--quick"]),
    "weak_scaling": ("weak_scaling.py", [], ["--quick"]),
    "training": ("training.py", [], ["--quick"]),
    "memory": ("memory.py", [], ["--quick"]),
    "memory_lammps": ("memory.py", ["--lammps", "--steps", "2"], ["--lammps", "--quick"]),
    "profile_step": ("profile_step.py", [], ["--quick"]),
    "tensor_product": ("tensor_product.py", [], ["--l-max", "1", "--edges", "500"]),
}
# scripts that use the common models
WITH_MODELS = ("inference.py", "lammps_md.py", "memory.py", "profile_step.py")


def run(name: str, quick: bool, results: Path, models: str) -> int:
    """Run one benchmark, show what it prints, and keep it if it succeeds."""
    script, full, short = BENCHMARKS[name]
    options = [*(short if quick else full), "-o", str(results / f"{name}.png")]
    if script in WITH_MODELS:
        options += ["--files", models]
    command = [sys.executable, str(HERE / script), *options]
    lines = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            print(line, end="", flush=True)
            lines.append(line.replace(str(results) + "/", ""))
    if process.returncode == 0:
        with atomic_write(results / f"{name}.txt") as temporary:
            temporary.write_text("".join(lines))
    else:
        print(f"{name} failed with exit code {process.returncode}", file=sys.stderr)
    return process.returncode


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHMARKS)}")
    parser.add_argument("--quick", action="store_true", help="smallest sizes: does it work at all?")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the results")
    arguments = parser.parse_args()
    unknown = [name for name in arguments.names if name not in BENCHMARKS]
    if unknown:
        parser.error(f"no benchmark {unknown[0]}; there are {', '.join(BENCHMARKS)}")
    if arguments.quick and arguments.results == RESULTS:
        parser.error("--quick measures nothing worth keeping: name another folder with --results")
    arguments.results.mkdir(parents=True, exist_ok=True)
    failed = []
    with TemporaryDirectory() as models:
        for name in arguments.names or BENCHMARKS:
            print(f"== {name}", flush=True)
            start = time.monotonic()
            if run(name, arguments.quick, arguments.results.resolve(), models) != 0:
                failed.append(name)
            print(f"({time.monotonic() - start:.0f} s)\n", flush=True)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
