"""The command `tdn-export`: a thin shell over `export_model`, `inspect` and `check`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tdn.cli import run_main
from tdn.errors import UsageError

if TYPE_CHECKING:
    import ase

    from .exporter import ExportReport


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tdn-export",
        description="Compile a checkpoint for LAMMPS and ASE, or look into a compiled file.",
        epilog="examples: tdn-export model.pt | tdn-export --inspect model.tdn.pth | "
        "tdn-export --check model.tdn.pth",
    )
    parser.add_argument("checkpoint", nargs="?", help="model.pt as tdn-train wrote it")
    parser.add_argument("-o", "--output", metavar="FILE", help="default: model.tdn.pth")
    parser.add_argument(
        "--dtype", choices=("float32", "float64"), help="precision; default: the checkpoint's"
    )
    parser.add_argument(
        "--device", default="cpu", help="where the compiled network is checked (default: cpu)"
    )
    parser.add_argument(
        "--verify", metavar="FRAMES", help="also compare on these frames (any file ASE reads)"
    )
    parser.add_argument("--inspect", metavar="FILE", help="print what a compiled file contains")
    parser.add_argument("--json", action="store_true", help="with --inspect: print JSON")
    parser.add_argument(
        "--check", metavar="FILE", help="compute the reference of a compiled file; 1 if it differs"
    )
    return parser


def _main(argv: Sequence[str] | None) -> int:
    args = _parser().parse_args(argv)
    modes = [name for name in ("checkpoint", "inspect", "check") if getattr(args, name) is not None]
    if len(modes) != 1:
        raise UsageError("give exactly one of: a checkpoint, --inspect FILE, --check FILE")
    if modes != ["checkpoint"] and (args.output or args.dtype or args.verify):
        raise UsageError(f"-o, --dtype and --verify do not go with --{modes[0]}")
    if args.json and modes != ["inspect"]:
        raise UsageError("--json goes with --inspect")
    # torch takes seconds to import: not for --help and usage errors
    from . import exporter

    if args.inspect:
        metadata = exporter.inspect(args.inspect)
        print(json.dumps(metadata, indent=2) if args.json else describe(metadata))
    elif args.check:
        deviations, tolerance = exporter.check(args.check, args.device)
        for name, unit in (("energy", "eV/atom"), ("forces", "eV/A"), ("virial", "eV")):
            print(
                f"{name:<7} deviates by {deviations[name]:.1e} {unit} "
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
        )
        print(summarise(report))
    return 0


def _read_frames(path: str) -> list[ase.Atoms]:
    """All frames of a file; those on which no network can be compared are refused by number."""
    from tdn.data import graph_from_frame, read_frames
    from tdn.data.graphs import COINCIDENT

    frames = read_frames(path)
    for frame in frames:  # raises for atoms at the same place and impossible cells
        graph_from_frame(frame, sorted(set(frame.atoms.numbers.tolist())), 2 * COINCIDENT)
    return [frame.atoms for frame in frames]


def describe(metadata: dict[str, Any]) -> str:
    """What a compiled file contains, for people."""
    layers = metadata["num_layers"]
    reach = metadata.get("receptive_field", layers * metadata["r_max"])
    rows = {
        "species": " ".join(metadata["species"]),
        "cutoff": f"{metadata['r_max']:g} A",
        "receptive field": f"{reach:g} A ({layers} layer{'s' if layers > 1 else ''})",
        "architecture": (
            f"{metadata.get('architecture')}, l_max {metadata.get('l_max')}, "
            f"{metadata.get('num_channels')} channels, correlation {metadata.get('correlation')}"
        ),
        "parameters": metadata.get("num_parameters"),
        "precision": metadata["dtype"],
        "CP rank": f"{metadata.get('cp_rank')} (relative error {metadata.get('cp_error'):.1e})",
        "equivariance": f"error of the CP factors {metadata.get('equivariance_error'):.1e}",
        "weights": f"sha256 {str(metadata.get('weight_hash'))[:16]}",
        "written by": (
            f"tdn {metadata.get('tdn_version')}, PyTorch {metadata.get('torch_version')}, "
            f"{metadata.get('created')}"
        ),
    }
    return "\n".join(f"{name:<16} {value}" for name, value in rows.items())


def summarise(report: ExportReport) -> str:
    """The closing lines of an export."""
    compared = [d for d in report.deviations if d.bound is not None]
    lines = [describe(report.metadata)]
    for label, value in (
        ("energy", max(d.energy for d in compared)),
        ("forces", max(d.forces for d in compared)),
        ("virial", max(d.virial for d in compared)),
    ):
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
    """Entry point; see `tdn.cli.run_main` for the exit codes."""
    return run_main(lambda: _main(argv), "tdn-export")
