"""Command ``tdn-ops``: build the compiled operators, or say what is in use."""

import argparse
import sys
from collections.abc import Sequence

import torch

from tdn.system.command import add_version, run_main
from tdn.system.paths import library_dir

from .build import build_ops, library_problem, library_remedy, ops_library, read_stamp
from .cuda_toolkit import REQUESTS
from .loading import is_compiled


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    return run_main(lambda: _main(argv), "tdn-ops")


def parser() -> argparse.ArgumentParser:
    """The options of ``tdn-ops``."""
    result = argparse.ArgumentParser(
        prog="tdn-ops", description="Build the compiled operators, or say what is in use."
    )
    add_version(result)
    commands = result.add_subparsers(dest="command", required=True)
    build = commands.add_parser("build", help="compile the operators for this PyTorch")
    build.add_argument("--force", action="store_true", help="compile even if up to date")
    build.add_argument("--verbose", action="store_true", help="show the compiler's output")
    build.add_argument(
        "--cuda",
        choices=REQUESTS,
        help="kernels for NVIDIA GPUs: auto (if PyTorch has CUDA and nvcc is found), yes, no; "
        "default: as before, else auto",
    )
    build.add_argument(
        "--sanitize",
        action="store_true",
        default=None,
        help="address and undefined-behavior sanitizers, for tests; needs TDN_LIB_DIR",
    )
    commands.add_parser("info", help="show the library, its PyTorch and its vector instructions")
    return result


def _main(argv: Sequence[str] | None) -> None:
    arguments = parser().parse_args(argv)
    if arguments.command == "build":
        library = build_ops(
            arguments.force, arguments.verbose, cuda=arguments.cuda, sanitize=arguments.sanitize
        )
        print(f"kernels for GPUs: {read_stamp()['cuda']}", file=sys.stderr)
        print(library)
    else:
        print("\n".join(info()))


def info() -> list[str]:
    """Lines on the operators that are in use, and on GPUs."""
    devices = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    lines = [f"folder:   {library_dir()}", f"torch:    {torch.__version__}"]
    lines.append(f"devices:  {', '.join(devices) or 'no GPU found'}")
    path = ops_library()
    if path is None:
        return [*lines, f"library:  none in use: {library_problem()}; {library_remedy()}"]
    stamp = read_stamp()
    lines += [f"library:  {path}", f"compiler: {stamp.get('compiler', 'unknown')}"]
    kernels = torch.ops.tdn.cpu_capability() if is_compiled() else "reference (TDN_OPS=reference)"
    return [*lines, f"kernels:  {kernels}", f"GPU:      {stamp.get('cuda', 'unknown')}"]
