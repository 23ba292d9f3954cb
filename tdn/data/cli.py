"""Command ``tdn-data``: check frames, describe them, put them into a database."""

from __future__ import annotations

import argparse
from pathlib import Path

from tdn.system.atomic_files import check_writable, write_json
from tdn.system.command import add_version, run_main
from tdn.system.errors import TDNError, UsageError
from tdn.system.printable import printable, printable_lines

EPILOG = """\
FILE is anything that ASE reads (extended XYZ, .traj, .db, vasprun.xml ...), a database written by
tdn-data, PubChemQCR (LMDB), OC20 or OC22 (LMDB), fairchem's ASE-LMDB, a folder of such databases,
systems of DeePMD-kit (folders with type.raw and set.*/*.npy), or MD17 (.npz). What a file is, is
told from its content; pickled records are read without executing anything, and refused if they hold
more than plain data.

examples:
  tdn-data stats train.xyz -o train.png
  tdn-data check train.xyz
  tdn-data convert a.xyz b.traj -o all.lmdb --select elements=H,C,O --select max_force=30
  tdn-data convert PubChemQCR/ -o qcr.lmdb --stage 1st --split trajectory
  tdn-data convert orca.xyz -o train.lmdb --energy-unit hartree --force-unit hartree/bohr
"""
# frames left out for one reason that `check` names one by one
LISTED = 20
STAGES = ("pm3", "hf", "1st", "1st_smash", "2nd", "mixing")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = argparse.ArgumentParser(
        prog="tdn-data",
        description="Convert, describe and check reference data.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_version(result)
    commands = result.add_subparsers(dest="command", metavar="COMMAND", required=True)

    convert = commands.add_parser("convert", help="write frames into a fast database")
    convert.add_argument("inputs", nargs="+", metavar="IN", help="files or folders of databases")
    convert.add_argument("-o", "--output", required=True, metavar="OUT.lmdb", help="file to write")
    convert.add_argument(
        "--select",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="take only such frames (may be repeated): elements=H,O atoms=10..100 "
        "frames=START:STOP:STEP config_type=A,B split=train pbc=abc max_force=50",
    )
    convert.add_argument(
        "--require",
        default="",
        metavar="LABELS",
        help="leave frames out that lack one of these: energy,forces,stress",
    )
    convert.add_argument(
        "--split",
        metavar="trajectory[:0.8,0.1]",
        help="mark whole trajectories as train, valid and test, as PubChemQCR's authors do",
    )
    convert.add_argument(
        "--cutoff", type=float, metavar="R", help="store neighbor lists within R angstrom"
    )
    convert.add_argument("--energy-unit", default="eV", help="unit of the energies (default eV)")
    convert.add_argument("--force-unit", default="eV/A", help="unit of the forces (default eV/A)")
    convert.add_argument(
        "--strict", action="store_true", help="stop at the first bad frame, write nothing"
    )

    stats = commands.add_parser("stats", help="composition, distributions, outliers")
    stats.add_argument("file", metavar="FILE")
    stats.add_argument("-o", "--output", metavar="FIGURE.png", help="draw the distributions")

    check = commands.add_parser(
        "check", help="look for mistakes; exit code 1 if something was found"
    )
    check.add_argument("file", metavar="FILE")

    for command in (convert, stats, check):
        command.add_argument("--json", metavar="FILE", help="write the result as JSON")
        command.add_argument(
            "--stage", default="1st", choices=STAGES, help="PubChemQCR: stage (default 1st)"
        )
        for label in ("energy", "forces", "stress"):
            command.add_argument(
                f"--{label}-key", help=f"key of the {label} (default: common names are found)"
            )
        command.add_argument(
            "--stress-unit",
            default="eV/A^3",
            metavar="UNIT",
            help="unit of the stresses (default eV/A^3), e.g. GPa; --stress-unit=-kbar for VASP's, "
            "which are positive under compression",
        )
        command.add_argument("--config-type-key", default="config_type", help="key of the group")
        command.add_argument("--split-key", help="key that says train, valid or test")
    for command in (stats, check):
        command.add_argument(
            "--cutoff", type=float, default=5.0, help="for neighbors, angstrom (default 5)"
        )
    return result


def main(argv: list[str] | None = None) -> int:
    """Entry point."""
    return run_main(lambda: _main(argv), "tdn-data")


def _main(argv: list[str] | None) -> int:
    arguments = parser().parse_args(argv)
    if arguments.cutoff is not None and not 0 < arguments.cutoff < 100:
        raise UsageError(f"--cutoff {arguments.cutoff}: expected angstrom, e.g. 5.0")
    for path in (arguments.json, getattr(arguments, "output", None)):
        if path is not None:
            check_writable(path)
    run = {"convert": _convert, "stats": _stats, "check": _check}[arguments.command]
    return run(arguments)


def _write_json(path: str | None, values: dict) -> None:
    if path is not None:
        write_json(path, values)


def _convert(arguments: argparse.Namespace) -> int:
    from .database.convert import Conversion, convert
    from .frames import label_keys

    required = tuple(part.strip() for part in arguments.require.split(",") if part.strip())
    unknown = [name for name in required if name not in ("energy", "forces", "stress")]
    if unknown:
        raise UsageError(f"--require {unknown[0]}: expected energy, forces or stress")
    options = Conversion(
        keys=label_keys(arguments),
        stage=arguments.stage,
        select=tuple(arguments.select),
        require=required,
        energy_unit=arguments.energy_unit,
        force_unit=arguments.force_unit,
        split=arguments.split,
        cutoff=arguments.cutoff,
        strict=arguments.strict,
    )
    result = convert(arguments.inputs, arguments.output, options)
    from .database.store import FrameStore

    metadata = FrameStore(arguments.output).metadata
    size = Path(arguments.output).stat().st_size / 2**20
    print(
        f"{arguments.output}: {result['frames']} frames, {metadata['atoms']} atoms, {size:.1f} MiB"
    )
    if metadata["splits"]:
        print("splits: " + ", ".join(f"{printable(n)} {c}" for n, c in metadata["splits"].items()))
    lacking = {n: result["frames"] - c for n, c in metadata["labels"].items() if n != "stress"}
    for name, count in lacking.items():
        if count:
            print(f"{count} frames have no {name} (--require {name} leaves them out)")
    if result["not_selected"]:
        print(f"{result['not_selected']} frames were not selected")
    for line in result["lines"]:
        print(printable(line, None))
    _write_json(arguments.json, {k: v for k, v in result.items() if k != "lines"})
    return 0


def _stats(arguments: argparse.Namespace) -> int:
    from .frames import label_keys
    from .survey.summary import summarize, summary_lines, summary_to_json, survey

    found = survey(arguments.file, label_keys(arguments), arguments.stage, complete=False)
    _require_frames(arguments.file, found)
    summary = summarize(found, arguments.cutoff)
    print(printable_lines("\n".join(summary_lines(summary))))
    for line in found.problems.lines():
        print(printable(line, None))
    _write_json(arguments.json, summary_to_json(summary))
    if arguments.output is not None:
        from .survey.figures import summary_figure

        summary_figure(arguments.output, summary)
        print(f"figure: {arguments.output}")
    return 0


def _check(arguments: argparse.Namespace) -> int:
    from .frames import label_keys
    from .survey.checks import suspicious
    from .survey.summary import label_lines, summarize, survey
    from .survey.unit_checks import force_consistency

    found = survey(arguments.file, label_keys(arguments), arguments.stage)
    problems = found.problems
    if not problems.total:
        _require_frames(arguments.file, found)
    summary = summarize(found, arguments.cutoff)
    sample = found.sample
    lines = [*problems.reasons(), *label_lines(found), *found.e0_warnings(arguments.cutoff)]
    warnings = suspicious(summary.order, summary.graphs)
    consistency = force_consistency(found.run)
    if consistency is not None and consistency not in warnings:
        warnings.append(consistency)
    lines += warnings
    of = f" (of which {len(sample)} in detail)" if len(sample) < found.frames else ""
    print(f"{found.frames} frames{of}: " + (f"{len(lines)} findings" if lines else "nothing found"))
    for line in lines:
        print(f"- {printable(line, None)}")
    for reason, messages in problems.messages.items():
        if len(messages) == 1:
            continue
        print("\n".join([f"{reason}:", *(f"  {message}" for message in messages[:LISTED])]))
        if problems.counts[reason] > LISTED:
            print(f"  and {problems.counts[reason] - LISTED} more (--json FILE lists them)")
    for line in problems.remarks():
        print(f"note: {printable(line, None)}")
    outliers = summary.outliers()
    _write_json(
        arguments.json,
        {
            "frames": found.frames,
            "left_out": problems.counts,
            "left_out_frames": problems.messages,
            "notes": problems.remarks(),
            "findings": lines,
            "outliers": [{"frame": f.where, "why": text} for f, text in outliers[:100]],
        },
    )
    return 1 if lines else 0


def _require_frames(path: str, found) -> None:
    if not found.frames:
        reasons = "; ".join(found.problems.lines()) or "it is empty"
        raise TDNError(f"{path} holds no usable frame: {reasons}")
