"""Command ``tdn-export``: compile a checkpoint for LAMMPS and ASE, or look into a compiled file."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tdn.system.command import add_version, run_main
from tdn.system.errors import UsageError
from tdn.system.printable import printable

if TYPE_CHECKING:
    import ase

    from .exporter import ExportReport

EPILOG = """\
examples:
  tdn-export model.pt
  tdn-export a.pt b.pt c.pt -o committee.tdn.pth
  tdn-export --inspect model.tdn.pth
  tdn-export --check model.tdn.pth
"""
# options by the names of their values
EXPORT_ONLY = {
    "output": "-o",
    "dtype": "--dtype",
    "verify": "--verify",
    "calibrate": "--calibrate",
    "backend": "--backend",
    "fused": "--no-fused",
    "direct_forces": "--direct-forces",
    "head": "--head",
    "species": "--species",
}


def parser() -> argparse.ArgumentParser:
    """The options of ``tdn-export``."""
    result = argparse.ArgumentParser(
        prog="tdn-export",
        description="Compile a checkpoint for LAMMPS and ASE, or look into a compiled file.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_version(result)
    result.add_argument(
        "checkpoint",
        nargs="*",
        help="model.pt as tdn-train wrote it; several make a committee in one file",
    )
    result.add_argument("-o", "--output", metavar="FILE", help="default: model.tdn.pth")
    result.add_argument(
        "--backend",
        default="torchscript",
        metavar="BACKEND",
        help="torchscript (default); aotinductor, which writes machine code to model.tdn.pt2; or "
        "metatomic, which writes model.metatomic.pt for programs that run models of metatomic",
    )
    result.add_argument(
        "--dtype", choices=("float32", "float64"), help="precision; default: the checkpoint's"
    )
    result.add_argument(
        "--device", default="cpu", help="where the compiled network is checked (default: cpu)"
    )
    result.add_argument(
        "--verify", metavar="FRAMES", help="also compare on these frames (any file ASE reads)"
    )
    result.add_argument(
        "--calibrate",
        metavar="FRAMES",
        help="of a committee: store the factor from deviations to errors on these labeled frames",
    )
    result.add_argument(
        "--no-fused",
        dest="fused",
        action="store_false",
        help="keep functions of the distance as networks instead of tables",
    )
    result.add_argument(
        "--direct-forces",
        action="store_true",
        help="take a network with model.forces=direct; its forces are no gradient",
    )
    result.add_argument(
        "--head", metavar="NAME", help="level of theory, of a network trained on several"
    )
    result.add_argument(
        "--species",
        metavar="SYMBOLS",
        help="keep these elements only, as in --species Cu,Zn,O (default: all); smaller and faster",
    )
    result.add_argument("--inspect", metavar="FILE", help="print what a compiled file contains")
    result.add_argument("--json", action="store_true", help="with --inspect: print JSON")
    result.add_argument(
        "--check", metavar="FILE", help="compute the reference of a compiled file; 1 if it differs"
    )
    return result


def _main(argv: Sequence[str] | None) -> int:
    options = parser()
    args = options.parse_args(argv)
    modes = [name for name in ("checkpoint", "inspect", "check") if getattr(args, name)]
    if len(modes) != 1:
        raise UsageError("give exactly one of: a checkpoint, --inspect FILE, --check FILE")
    for name, option in EXPORT_ONLY.items():
        if modes != ["checkpoint"] and getattr(args, name) != options.get_default(name):
            raise UsageError(f"{option} does not go with --{modes[0]}")
    if args.json and modes != ["inspect"]:
        raise UsageError("--json goes with --inspect")
    # torch takes seconds to import: not for --help and usage errors
    from . import exporter

    if args.inspect:
        metadata = exporter.inspect(args.inspect)
        print(json.dumps(metadata, indent=2) if args.json else describe(metadata))
    elif args.check:
        deviations, tolerance = exporter.check(args.check, args.device)
        units = {"energy": "eV/atom", "forces": "eV/A", "virial": "eV"}
        for name, deviation in deviations.items():
            print(
                f"{name:<7} deviates by {deviation:.1e} {units[name]} "
                f"(tolerance {tolerance[name]:.1e})"
            )
        print(f"{args.check} agrees with its reference")
    else:
        frames = _read_frames(args.verify) if args.verify else None
        report = exporter.export_model(
            args.checkpoint,
            args.output,
            args.dtype,
            args.device,
            frames,
            lambda line: print(f"{line} ...", file=sys.stderr, flush=True),
            backend=args.backend,
            fused=args.fused,
            direct_forces=args.direct_forces,
            head=args.head,
            species=None if args.species is None else _symbols(args.species),
            calibrate=args.calibrate,
        )
        print(summarize(report))
    return 0


def _symbols(text: str) -> list[str]:
    """Chemical symbols separated by commas or blanks."""
    symbols = text.replace(",", " ").split()
    if not symbols:
        raise UsageError("--species: expected chemical symbols, as in --species Cu,Zn,O")
    return symbols


def _read_frames(path: str) -> list[ase.Atoms]:
    """All frames of a file; those on which no network can be compared are refused by number."""
    from tdn.data import read_frames

    return [frame.atoms for frame in read_frames(path)]


def describe(metadata: dict[str, Any]) -> str:
    """What a compiled file contains, for people; what it does not say is left out."""
    layers = metadata["num_layers"]
    reach = _listed(metadata, receptive_field="{:g} A")
    direct = metadata.get("forces") == "direct"
    rows = {
        "species": " ".join(map(printable, metadata["species"])),
        "cutoff": f"{metadata['r_max']:g} A",
        "receptive field": f"{reach} ({layers} layer{'s' if layers > 1 else ''})",
        "architecture": _listed(
            metadata,
            architecture="{}",
            l_max="l_max {}",
            num_channels="{} channels",
            correlation="correlation {}",
        ),
        "parameters": _listed(metadata, num_parameters="{}"),
        "precision": metadata["dtype"],
        "CP factors": _listed(
            metadata,
            cp_rank="rank {}",
            cp_error="relative error {:.1e}",
            equivariance_error="equivariance error {:.1e}",
        ),
        "radial tables": _listed(
            metadata,
            radial_table_error="relative error {:.1e}",
            table_energy_error="in energies {:.1e}",
            table_forces_error="in forces {:.1e}",
        ),
        "committee": _listed(metadata, committee="{} networks; results are means over them"),
        "deviations": _listed(
            metadata.get("deviation_factors") or {},
            energy="times {:.3g} give errors of energies",
            forces="times {:.3g} those of forces",
        ),
        "forces": "direct: no gradient of the energy, no virial, energy is not conserved" * direct,
        "compiled for": _listed(
            metadata.get("target", {}), device="{}", processor="{}", torch="PyTorch {}"
        ),
        "weights": f"sha256 {printable(metadata.get('weight_hash', 'unknown'))[:16]}",
        "written by": _listed(
            metadata, tdn_version="tdn {}", torch_version="PyTorch {}", created="{}"
        )
        + f" (format {metadata['format_version']})",
    }
    return "\n".join(f"{name:<16} {value}" for name, value in rows.items() if value)


def _listed(metadata: dict[str, Any], **formats: str) -> str:
    """Values by key, each in its format; null and missing ones are left out."""
    shown = []
    for key, text in formats.items():
        value = metadata.get(key)
        if isinstance(value, str):
            shown.append(re.sub("{.*}", "{}", text).format(printable(value)))
        elif isinstance(value, (int, float)):
            shown.append(text.format(value))
    return ", ".join(shown)


def summarize(report: ExportReport) -> str:
    """The closing lines of an export."""
    compared = [d for d in report.deviations if d.bound is not None]
    lines = [describe(report.metadata)]
    for label in ("energy", "forces", "virial"):
        if label == "virial" and report.metadata["forces"] == "direct":
            continue
        value = max(getattr(d, label) for d in compared)
        lines.append(f"{'deviation':<16} {label}: at most {value:.1e} (relative)")
    for d in report.deviations:
        if d.bound is None:
            lines.append(f"{'not exact':<16} {d.name}: {d.largest:.1e} (relative, by choice)")
    lines.append(
        f"wrote {report.path} ({report.size / 1e6:.2f} MB) in {report.seconds:.1f} s, "
        f"{len(report.deviations)} checks passed"
    )
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; see `tdn.system.command.run_main` for the exit codes."""
    return run_main(lambda: _main(argv), "tdn-export")
