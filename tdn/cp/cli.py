"""Command ``tdn-cp``: find, check and save CP factors of coupling tensors."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from tdn.system.atomic_files import check_writable
from tdn.system.command import add_version, run_main
from tdn.system.errors import UsageError

from .factors import without_normalization
from .library import CPFactors, decompose, load_factors, save_factors, shipped_ranks, smallest_exact
from .options import SolverOptions

DESCRIPTION = """\
Find the CP decomposition of a coupling tensor and report its errors. Without --rank or --scan the
factors that ship with the package are reported."""


def parser() -> argparse.ArgumentParser:
    """The options of ``tdn-cp``."""
    result = argparse.ArgumentParser(prog="tdn-cp", description=DESCRIPTION)
    add_version(result)
    add = result.add_argument
    add("--l-max", type=int, help="largest degree of the first input")
    add("--l-max-input2", type=int, help="... of the second input (default: --l-max)")
    add("--l-max-output", type=int, help="... of the output (default: --l-max)")
    add(
        "--paths",
        choices=("parity", "all"),
        default="parity",
        help="coupling paths (default: parity)",
    )
    add("--rank", type=int, help="solve for factors of this CP rank")
    add("--scan", action="store_true", help="find the smallest rank of an exact decomposition")
    add("--fixed", action="store_true", help="keep every path coefficient at 1")
    add("--bare", action="store_true", help="the sum of Wigner blocks without normalization")
    add("--band", type=float, nargs=2, default=(0.8, 1.25), metavar=("LOW", "HIGH"),
        help="allowed range of the path coefficients (default: 0.8 1.25)")  # fmt: skip
    add("--starts", type=int, default=10, help="random starts per rank (default: 10)")
    add("--seed", type=int, default=0, help="seed of the first start (default: 0)")
    add("--max-seconds", type=float, default=90.0,
        help="no new start of a rank after so many seconds (default: 90)")  # fmt: skip
    add("-o", "--output", type=Path, help="save the factors to this .npz file")
    add("--list", action="store_true", help="list the exact factors of the package and stop")
    return result


def report(factors: CPFactors) -> str:
    """Properties and errors of a factor set, one per line."""
    c = factors.path_coefficients
    degrees = f"{factors.l_max_input1} x {factors.l_max_input2} -> {factors.l_max_output}"
    lines = [
        ("degrees", degrees),
        ("paths", f"{factors.paths} ({len(c)})"),
        ("rank", f"{factors.rank}" + (" (exact)" if factors.exact else " (approximate)")),
        ("relative error", f"{factors.relative_error:.3e}"),
        ("equivariance error", f"{factors.equivariance_error:.3e}"),
        ("float32 error", f"{factors.float32_error:.3e}"),
        ("condition", f"{factors.condition:.2f}"),
        ("path coefficients", f"{c.min():.4f} to {c.max():.4f}"),
    ]
    lines += [
        (f"  c({p.l1},{p.l2},{p.l3})", f"{value:.6f}")
        for p, value in zip(factors.coupling_paths, c, strict=True)
    ]
    return "\n".join(f"{name:<20}{value}" for name, value in lines)


def _list_shipped() -> None:
    for (paths, l_max), rank in sorted(shipped_ranks().items()):
        factors = load_factors(l_max, paths, rank)
        print(
            f"paths {paths:<7} l_max {l_max}  rank {rank:<4} relative error "
            f"{factors.relative_error:.1e}  equivariance error {factors.equivariance_error:.1e}"
        )


def _main(argv: list[str] | None) -> int:
    arguments = parser().parse_args(argv)
    if arguments.list:
        _list_shipped()
        return 0
    if arguments.l_max is None:
        raise UsageError("--l-max is missing, e.g. tdn-cp --l-max 3 --rank 32 --paths parity")
    if arguments.scan and arguments.rank is not None:
        raise UsageError("--rank and --scan exclude each other; give one of them")
    if arguments.starts < 1:
        raise UsageError(f"--starts is {arguments.starts}, expected at least 1")
    if arguments.output is not None:
        check_writable(arguments.output)
    began = time.perf_counter()
    shape = {"l_max_input2": arguments.l_max_input2, "l_max_output": arguments.l_max_output}
    if arguments.scan or arguments.rank is not None:
        solving = {
            "options": SolverOptions(
                band=tuple(arguments.band),
                free_coefficients=not arguments.fixed,
                num_starts=arguments.starts,
                seed=arguments.seed,
                max_seconds=arguments.max_seconds,
            ),
            "progress": lambda line: print(line, file=sys.stderr, flush=True),
            **shape,
        }
        if arguments.scan:
            factors = smallest_exact(arguments.l_max, arguments.paths, **solving)
            factors = without_normalization(factors) if arguments.bare else factors
        else:
            factors = decompose(
                arguments.l_max,
                arguments.rank,
                arguments.paths,
                normalized=not arguments.bare,
                **solving,
            )
    else:
        factors = load_factors(
            arguments.l_max,
            arguments.paths,
            free_coefficients=not arguments.fixed,
            normalized=not arguments.bare,
            **shape,
        )
    print(report(factors))
    print(f"{'seconds':<20}{time.perf_counter() - began:.1f}")
    if arguments.output is not None:
        save_factors(arguments.output, factors)
        print(f"{'saved':<20}{arguments.output}")
    return 0


def main(argv: list[str] | None = None) -> int:
    """Entry point of ``tdn-cp``."""
    return run_main(lambda: _main(argv), "tdn-cp")


if __name__ == "__main__":
    sys.exit(main())
