"""Run all benchmarks; tables and figures go to examples/benchmarks/results (``make bench``)."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

import torch

HERE = Path(__file__).parent
RESULTS = HERE / "results"
BENCHMARKS = {
    "operators": [],
    "inference": [],
    "tensor_product": ["-o", "results/tensor_product.png"],
}


def machine() -> str:
    """What the figures were measured on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if sys.platform == "linux" else []
    names = {line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")}
    capability = torch.backends.cpu.get_cpu_capability()
    return (
        f"{', '.join(names) or platform.processor()}, {torch.get_num_threads()} threads, "
        f"{capability}; Python {platform.python_version()}, torch {torch.__version__}"
    )


def main() -> int:
    RESULTS.mkdir(exist_ok=True)
    failed = 0
    for name, options in BENCHMARKS.items():
        print(f"== {name}", flush=True)
        command = [sys.executable, f"{name}.py", *options]
        done = subprocess.run(command, cwd=HERE, stdout=subprocess.PIPE, text=True, check=False)
        print(done.stdout, flush=True)
        if done.returncode == 0:
            (RESULTS / f"{name}.txt").write_text(f"{machine()}\n\n{done.stdout}")
        else:
            print(f"{name} failed with exit code {done.returncode}", file=sys.stderr)
            failed = 1
    return failed


if __name__ == "__main__":
    sys.exit(main())
