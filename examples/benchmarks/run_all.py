"""Run all benchmarks; tables and figures go to examples/benchmarks/results (``make bench``).

    python examples/benchmarks/run_all.py
    python examples/benchmarks/run_all.py --quick --results /somewhere/else
    python examples/benchmarks/run_all.py --device cuda --results /somewhere/else

Each table is what the script of that name prints. On a machine with nothing else to do this takes
some 25 minutes; other programs that run at the same time spoil the figures.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from tdn.system.atomic_files import atomic_write

HERE = Path(__file__).parent
RESULTS = HERE / "results"
# name of the result: script, options, options of a quick run
BENCHMARKS: dict[str, tuple[str, list[str], list[str]]] = {
    "operators": ("operators.py", [], ["--quick"]),
    "inference": ("inference.py", ["--aotinductor"], ["--quick"]),
    "lammps_md": ("lammps_md.py", [], ["--quick"]),
    "busy_core": ("busy_core.py", [], ["--quick"]),
    "weak_scaling": ("weak_scaling.py", [], ["--quick"]),
    "training": ("training.py", [], ["--quick"]),
    "memory": ("memory.py", [], ["--quick"]),
    "memory_lammps": ("memory.py", ["--lammps", "--steps", "2"], ["--lammps", "--quick"]),
    "profile_step": ("profile_step.py", [], ["--quick"]),
    "tensor_product": ("tensor_product.py", [], ["--l-max", "1", "--edges", "500"]),
}
# scripts that use the common models
WITH_MODELS = ("busy_core.py", "inference.py", "lammps_md.py", "memory.py", "profile_step.py")
# scripts that can use a GPU
WITH_DEVICE = ("operators.py", "inference.py", "training.py")


def run(name: str, quick: bool, device: str, results: Path, models: str) -> int:
    """Run one benchmark, show what it prints, and keep it if it succeeds."""
    script, full, short = BENCHMARKS[name]
    options = [*(short if quick else full), "-o", str(results / f"{name}.png")]
    if script in WITH_MODELS:
        options += ["--files", models]
    if device != "cpu":
        # machine code of AOTInductor is made for the processor
        options = [option for option in options if option != "--aotinductor"]
        options += ["--device", device]
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
    parser.add_argument(
        "--device", default="cpu", help="cpu (default), cuda, cuda:N or auto, of those that can"
    )
    arguments = parser.parse_args()
    unknown = [name for name in arguments.names if name not in BENCHMARKS]
    if unknown:
        parser.error(f"no benchmark {unknown[0]}; there are {', '.join(BENCHMARKS)}")
    if arguments.quick and arguments.results == RESULTS:
        parser.error("--quick measures nothing worth keeping: name another folder with --results")
    names = arguments.names or list(BENCHMARKS)
    if arguments.device != "cpu":
        if arguments.results == RESULTS:
            parser.error("--device: the results that are kept are those of processors: --results")
        able = [name for name in names if BENCHMARKS[name][0] in WITH_DEVICE]
        if arguments.names and able != names:
            parser.error(f"--device: only {', '.join(WITH_DEVICE)} can use a GPU")
        names = able
    arguments.results.mkdir(parents=True, exist_ok=True)
    failed = []
    with TemporaryDirectory() as models:
        for name in names:
            print(f"== {name}", flush=True)
            start = time.monotonic()
            results = arguments.results.resolve()
            if run(name, arguments.quick, arguments.device, results, models) != 0:
                failed.append(name)
            print(f"({time.monotonic() - start:.0f} s)\n", flush=True)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
