"""Command ``tdn-distill``: a potential from a structure and a slow calculator, without data."""

from __future__ import annotations

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory

import yaml

from tdn.config.distillation import (
    SECTIONS,
    DistillConfig,
    distill_config_from_dict,
    distill_defaults_yaml,
    load_distill_config,
    seconds_of,
)
from tdn.config.yaml_file import apply_override
from tdn.system.atomic_files import atomic_write, check_writable
from tdn.system.command import add_version, run_main
from tdn.system.errors import TDNError, UsageError
from tdn.system.printable import printable

EPILOG = """\
INPUT is a configuration (*.yaml), or structures in any format that ASE reads together with
--teacher. Everything is written to run.folder: report.html, model.pt, model.tdn.pth, an input for
LAMMPS, labels.lmdb with all that the teacher said, and a README.txt that explains them.

Run the same command again to continue an interrupted run. Nothing is labeled twice.

examples:
  tdn-distill nacl.cif --teacher sevenn.calculator:SevenNetCalculator -o nacl
  tdn-distill nacl.cif --teacher "tblite.ase:TBLite {method: GFN2-xTB}" --budget 30min
  tdn-distill --init nacl.cif -o distill.yaml
  tdn-distill distill.yaml rounds.max_rounds=3 teacher.workers=4
  tdn-distill distill.yaml --dry-run
  tdn-distill --defaults
"""
YAML = (".yaml", ".yml")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = argparse.ArgumentParser(
        prog="tdn-distill",
        description="Train a fast potential on what a slow calculator says, from structures alone.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_version(result)
    result.add_argument(
        "inputs",
        nargs="*",
        metavar="INPUT",
        help="a configuration, or structures; then section.key=value to replace values",
    )
    result.add_argument("--teacher", metavar="MODULE:NAME", help="calculator, with {arguments}")
    result.add_argument(
        "--teacher-python", metavar="PYTHON", help="interpreter of the teacher's environment"
    )
    result.add_argument(
        "-o", "--output", metavar="PATH", help="folder of the run; with --init: the file to write"
    )
    result.add_argument("--budget", metavar="TIME", help="time for all of it, such as 30min or 2h")
    result.add_argument(
        "--init", action="store_true", help="write a configuration for structures and exit"
    )
    result.add_argument(
        "--dry-run", action="store_true", help="check configuration, structures and teacher only"
    )
    result.add_argument(
        "--defaults", action="store_true", help="print all keys with their defaults and exit"
    )
    return result


def main(argv: list[str] | None = None) -> int:
    """Entry point."""
    return run_main(lambda: _main(argv), "tdn-distill")


def _main(argv: list[str] | None) -> int:
    arguments = parser().parse_intermixed_args(argv)
    if arguments.defaults:
        print(distill_defaults_yaml())
        return 0
    files = [text for text in arguments.inputs if not _is_override(text)]
    overrides = [text for text in arguments.inputs if _is_override(text)]
    if not files:
        raise UsageError(
            "nothing to start from: tdn-distill STRUCTURE --teacher MODULE:NAME, or tdn-distill "
            "distill.yaml"
        )
    for name in files:
        if not Path(name).exists() and _looks_like_a_key(name):
            raise UsageError(
                f"'{printable(name)}' is no file; to replace a value write section.key=value, such "
                "as rounds.max_rounds=3"
            )
    seconds_of(arguments.budget)
    if arguments.init:
        return _init(files, arguments)
    config = _configuration(files, overrides, arguments)

    from tdn.system.threads import let_threads_yield

    from .run import dry_run, run

    let_threads_yield()
    if arguments.dry_run:
        with TemporaryDirectory() as folder:
            dry_run(config, Path(folder))
        return 0
    run(config)
    return 0


def _is_override(text: str) -> bool:
    return "=" in text and "." in text.partition("=")[0] and not Path(text).exists()


def _looks_like_a_key(text: str) -> bool:
    """Whether it was meant to be an override and lacks its section or its value."""
    return "=" in text or text.partition(".")[0] in SECTIONS


def _configuration(
    files: list[str], overrides: list[str], arguments: argparse.Namespace
) -> DistillConfig:
    """From a YAML file, or from structures with what ``--init`` would have written."""
    if arguments.budget is not None:
        overrides = [*overrides, f"run.budget={arguments.budget}"]
    if Path(files[0]).suffix in YAML:
        if len(files) > 1:
            raise UsageError(f"a configuration and '{files[1]}': expected the configuration alone")
        if arguments.teacher or arguments.teacher_python:
            raise UsageError(
                "--teacher is for structures; in a configuration set teacher.calculator (and "
                "teacher.python)"
            )
        if arguments.output:
            overrides = [*overrides, f"run.folder={arguments.output}"]
        return load_distill_config(files[0], overrides)
    if not arguments.teacher:
        raise UsageError(
            f"{files[0]} is taken for a structure and needs a teacher: --teacher MODULE:NAME, such "
            "as sevenn.calculator:SevenNetCalculator"
        )
    folder = Path(arguments.output or Path(files[0]).name.partition(".")[0])
    if folder.is_file():
        raise UsageError(f"{folder} is a file; name another folder with -o")
    values = yaml.safe_load(_text(files, arguments, str(folder), Path()))
    for override in overrides:
        apply_override(values, override)
    return distill_config_from_dict(values)


def _text(files: list[str], arguments: argparse.Namespace, folder: str, beside: Path) -> str:
    from .initial_config import initial_config

    return initial_config(files, arguments.teacher, arguments.teacher_python, folder, beside)


def _init(files: list[str], arguments: argparse.Namespace) -> int:
    """Print or write a configuration."""
    output = arguments.output
    if output is not None:
        check_writable(output)
        if Path(output).exists():
            raise TDNError(f"{output} exists already; choose another name or remove it")
    beside = Path(output).parent if output else Path(".")
    text = _text(files, arguments, "distilled", beside)
    if output is None:
        print(text, end="")
        return 0
    with atomic_write(output) as temporary:
        temporary.write_text(text)
    fill = "" if arguments.teacher else "fill in teacher.calculator, then "
    print(f"{output} written; {fill}next: tdn-distill {output}")
    return 0
