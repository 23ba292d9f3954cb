"""Write the compiled files of the scripts for a GPU, several at a time, on the processor.

    python examples/benchmarks/gpu_models.py --files FOLDER

The other scripts write what is missing when they need it, one after the other, while a GPU waits.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch
from gpu_kernels import PROFILED
from gpu_lammps import DTYPES, trained_file
from gpu_scaling import ORDER, UNIT
from models import compiled_file

from tdn.system.command import run_main


def write(network: str, variant: str, folder: Path) -> str:
    """One file: of a material, or of the trained network in a precision."""
    torch.set_num_threads(1)
    if network == "trained":
        return trained_file(variant, folder).name
    return compiled_file(network, variant, folder).name


def _main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--quick", action="store_true", help="for quick runs of the others")
    cores = len(os.sched_getaffinity(0))
    parser.add_argument("--jobs", type=int, default=cores, help="at a time (default: cores)")
    arguments = parser.parse_args()
    wanted = [("trained", dtype) for dtype in DTYPES]
    if arguments.quick:
        wanted += [("nano", "water")]
    else:
        wanted += [(name, material) for material in UNIT for name in ORDER]
        wanted += [(name, "water") for name in PROFILED if (name, "water") not in wanted]
    arguments.files.mkdir(parents=True, exist_ok=True)
    # processes that start anew: one that has used threads must not be copied
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(arguments.jobs, len(wanted)), mp_context=context) as pool:
        tasks = [pool.submit(write, *pair, arguments.files.resolve()) for pair in wanted]
        for task in tasks:
            print(task.result(), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(run_main(_main, "gpu_models.py"))
