"""Command ``tdn-eval``: errors on frames, stability of dynamics, scans of bonds."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from tdn.system.atomic_files import check_writable, write_json
from tdn.system.command import add_version, run_main
from tdn.system.errors import TDNError, UsageError

from .comparison import cli as comparison

if TYPE_CHECKING:
    import ase
    import torch

    from tdn.inference.calculator import TDNCalculator

EPILOG = """\
MODEL is a checkpoint (model.pt) or a compiled file; FRAMES is any file that ASE reads. Errors are
mean absolute (MAE) and root mean square (RMSE); forces and stresses count per component, and frames
that lack a label are evaluated for those they have. For a committee it also says how well the
deviation of its members predicts the error. Runs (md, scan) start from one frame and need no
labels. tdn-eval COMMAND --help lists the options.

examples:
  tdn-eval errors run/model.pt test.xyz
  tdn-eval errors run/model.pt water.xyz --split test
  tdn-eval errors water.tdn.pth test.xyz --output evaluation --energy-key REF_energy
  tdn-eval errors run/model.pt test.xyz --worst 20 -o worst.xyz
  tdn-eval errors committee.tdn.pth test.xyz -o evaluation
  tdn-eval md run/model.pt test.xyz --temperature 500 --steps 20000 -o dynamics
  tdn-eval md run/model.pt test.xyz --engine lammps
  tdn-eval scan run/model.pt test.xyz 0 1
  tdn-eval compare sevenn.calculator:SevenNetCalculator run/model.pt nacl.cif
"""
# what the name of a file with frames ends with, where -o may also be a folder
FRAME_SUFFIXES = (".xyz", ".extxyz")
COMMANDS = ("errors", "md", "scan", "compare")
# smallest values of options
MINIMA = {"batch_size": 1, "worst": 1, "steps": 1, "frame": 1, "points": 11}
POSITIVE = ("temperature", "timestep")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = argparse.ArgumentParser(
        prog="tdn-eval",
        description="Errors, stability and smoothness of a potential; comparison with another one.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_version(result)
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("model", metavar="MODEL", help="model.pt or a compiled file")
    shared.add_argument("frames", metavar="FRAMES", help="any file of frames that ASE reads")
    shared.add_argument(
        "-o", "--output", metavar="DIR", help="folder for figures and numbers (created if needed)"
    )
    shared.add_argument("--json", metavar="FILE", help="write the numbers as JSON")
    shared.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    shared.add_argument(
        "--dtype",
        choices=("float32", "float64"),
        help="precision (default: that of model.pt; float64 for scan)",
    )
    shared.add_argument(
        "--head", metavar="NAME", help="level of theory, of a network trained on several"
    )
    run = argparse.ArgumentParser(add_help=False)
    run.add_argument(
        "--frame", type=int, default=1, help="which frame of the file, counted from one (1)"
    )
    commands = result.add_subparsers(dest="command", metavar="COMMAND", required=True)

    errors = commands.add_parser(
        "errors",
        parents=[shared],
        help="MAE and RMSE against the labels of frames",
        epilog="With --worst, -o may also name an .xyz file for these frames alone.",
    )
    errors.add_argument(
        "--worst", type=int, metavar="N", help="write the N frames with the largest errors (-o)"
    )
    errors.add_argument(
        "--split", choices=("train", "valid", "test"), help="only frames of this part (see next)"
    )
    errors.add_argument("--split-key", help="key that says a frame's part (default: split)")
    errors.add_argument("--batch-size", type=int, default=16, help="frames per batch (16)")
    errors.add_argument("--energy-key", help="key of the energy (eV)")
    errors.add_argument("--forces-key", help="key of the forces (eV/A)")
    errors.add_argument("--stress-key", help="key of the stress")
    errors.add_argument(
        "--stress-unit", default="eV/A^3", help="unit of the stress (-kbar: with the sign of VASP)"
    )
    errors.add_argument(
        "--config-type-key", default="config_type", help="key of the name that groups frames"
    )

    dynamics = commands.add_parser(
        "md",
        parents=[shared, run],
        help="stability: NVT, then NVE; lifetime and energy drift",
    )
    dynamics.add_argument(
        "--engine",
        choices=("ase", "lammps"),
        default="ase",
        help="what moves the atoms (ase); lammps exports a checkpoint first",
    )
    dynamics.add_argument("--temperature", type=float, default=300.0, help="in K (300)")
    dynamics.add_argument("--timestep", type=float, default=0.5, help="in fs (0.5)")
    dynamics.add_argument("--steps", type=int, default=2000, help="of either part (2000)")
    dynamics.add_argument("--seed", type=int, default=0, help="of velocities and thermostat (0)")

    scan = commands.add_parser(
        "scan",
        parents=[shared, run],
        help="smoothness while atom J moves along its bond to I, beyond the cutoff",
    )
    scan.add_argument("i", type=int, metavar="I", help="atom that stays, counted from zero")
    scan.add_argument("j", type=int, metavar="J", help="atom that moves")
    scan.add_argument("--points", type=int, default=401, help="of the scan (401)")
    comparison.add_parser(commands)
    return result


def main(argv: list[str] | None = None) -> int:
    """Entry point."""
    return run_main(lambda: _main(sys.argv[1:] if argv is None else argv), "tdn-eval")


def _main(argv: list[str]) -> int:
    if argv and not argv[0].startswith("-") and argv[0] not in COMMANDS:
        raise UsageError(
            f"'{argv[0]}' is no command; expected {', '.join(COMMANDS)}, as in: "
            f"tdn-eval errors {' '.join(argv)}"
        )
    arguments = parser().parse_args(argv)
    if arguments.command == "compare":
        return comparison.run(arguments)
    _check_numbers(arguments)
    if arguments.json:
        check_writable(arguments.json)
    worst_file = _worst_file(arguments) if arguments.command == "errors" else None
    if arguments.output is not None:
        _make_folder(Path(arguments.output))

    from tdn.system.devices import (
        select_device,  # torch takes seconds to import: mistakes above come first
    )

    device = select_device(arguments.device, "--device")
    from tdn.inference.compiled_model import is_compiled_file

    if is_compiled_file(arguments.model):
        for option, value in (("--dtype", arguments.dtype), ("--head", arguments.head)):
            if value is not None:
                raise UsageError(
                    f"{option} does not apply to a compiled file, where it was fixed at export; "
                    f"write another one: tdn-export model.pt {option} {value}"
                )
    if arguments.command == "errors":
        return _errors(arguments, device, worst_file)
    return _dynamics(arguments) if arguments.command == "md" else _scan(arguments)


def _check_numbers(arguments: argparse.Namespace) -> None:
    for name, value in vars(arguments).items():
        option = "--" + name.replace("_", "-")
        if name in MINIMA and value is not None and value < MINIMA[name]:
            raise UsageError(f"{option} {value}: expected at least {MINIMA[name]}")
        if name in POSITIVE and not value > 0:
            raise UsageError(f"{option} {value:g}: expected a positive number")


def _worst_file(arguments: argparse.Namespace) -> Path | None:
    """Where the worst frames go, None without ``--worst``; -o is a folder afterwards, or None."""
    if arguments.split_key is not None and arguments.split is None:
        raise UsageError("--split-key needs --split: train, valid or test")
    if arguments.worst and arguments.output is None:
        raise UsageError("--worst needs a place for the frames: -o worst.xyz or -o DIR")
    if arguments.output is None:
        return None
    output = Path(arguments.output)
    if output.suffix not in FRAME_SUFFIXES:
        return output / "worst.xyz" if arguments.worst else None
    if not arguments.worst:
        raise UsageError(f"--output {output}: a file with frames needs --worst N")
    check_writable(output)
    arguments.output = None
    return output


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TDNError(f"--output {path} cannot be used: {error.strerror}") from None
    check_writable(path / "errors.json")


def _write_numbers(arguments: argparse.Namespace, values: dict) -> None:
    """What was found, for ``--json`` and ``-o``."""
    if arguments.json:
        write_json(Path(arguments.json), values)
    if arguments.output is not None:
        write_json(Path(arguments.output) / f"{arguments.command}.json", values)


def _errors(arguments: argparse.Namespace, device: torch.device, worst_file: Path | None) -> int:
    """Errors against the labels of all frames."""
    import numpy as np
    from ase.data import chemical_symbols

    from tdn.data import build_graphs, label_keys, read_frames
    from tdn.data.frames import drop_bad_labels

    from .calibration import (
        calibrations,
        calibrations_to_json,
        evaluate_committee,
        format_calibrations,
    )
    from .errors import error_tables, evaluate, format_rows, tables_to_json
    from .worst_frames import worst_frames, write_frames

    potential, atomic_numbers, r_max = _load(arguments, device)
    split = None if arguments.split is None else arguments.split_key or "split"
    keys = replace(label_keys(arguments), split=split)
    frames, bad = drop_bad_labels(read_frames(arguments.frames, keys))
    if bad:
        print(
            f"warning: {bad} of {len(frames)} frames have labels that are NaN or infinite, which "
            "are left out",
            file=sys.stderr,
        )
    if arguments.split is not None:
        frames = [frame for frame in frames if frame.split == arguments.split]
        if not frames:
            raise TDNError(f"no frame of {arguments.frames} is for {arguments.split}")
    graphs = build_graphs(frames, atomic_numbers, r_max)
    labels = [(f.energy, f.forces, f.stress) for f in frames]
    if not any(label is not None for row in labels for label in row):
        raise TDNError(
            f"no frame of {arguments.frames} has energy, forces or stress under a common name; "
            "name them with --energy-key, --forces-key and --stress-key"
        )
    deviations = None
    if getattr(potential, "num_members", 1) > 1:
        evaluation, deviations = evaluate_committee(
            potential, graphs, arguments.batch_size, device, progress=True
        )
    else:
        evaluation = evaluate(potential, graphs, arguments.batch_size, device, progress=True)
    symbols = [chemical_symbols[n] for n in atomic_numbers]
    tables = error_tables(evaluation, [frame.config_type for frame in frames], symbols)
    counts = np.array([[label is not None for label in row] for row in labels]).sum(axis=0)
    print(
        f"{len(frames)} frames, {int(evaluation.num_atoms.sum())} atoms; with energy {counts[0]}, "
        f"forces {counts[1]}, stress {counts[2]}"
    )
    print(format_rows({"all": tables["all"], **tables["config_types"]}))
    if tables["all"]["forces"] is not None and len(tables["elements"]) > 1:
        print()
        print(format_rows(tables["elements"]))
    values = tables_to_json(tables)
    found = {}
    if deviations is not None:
        found = calibrations(evaluation, deviations, potential.metadata.get("deviation_factors"))
        print(f"\n{format_calibrations(found)}")
        values["calibration"] = calibrations_to_json(found)
    _write_numbers(arguments, values)
    if worst_file is not None:
        chosen = worst_frames(evaluation, arguments.worst)
        write_frames(worst_file, frames, evaluation, chosen)
        print(f"\nworst {len(chosen)} frames, the worst first: {worst_file}")
    if arguments.output is not None:
        from .figures import calibration_curves, cumulative_errors, parity

        folder = Path(arguments.output)
        parity(folder / "parity.png", {Path(arguments.frames).stem: evaluation})
        cumulative_errors(folder / "cumulative.png", evaluation, symbols)
        if found:
            calibration_curves(folder / "calibration.png", found)
    return 0


def _start(arguments: argparse.Namespace) -> ase.Atoms:
    """The frame that a run starts from."""
    from tdn.data import read_frames

    frames = read_frames(arguments.frames)
    if arguments.frame > len(frames):
        raise UsageError(f"--frame {arguments.frame}: {arguments.frames} has {len(frames)} frames")
    return frames[arguments.frame - 1].atoms


def _calculator(arguments: argparse.Namespace, dtype: str | None) -> TDNCalculator:
    from tdn.inference.calculator import TDNCalculator

    return TDNCalculator(arguments.model, arguments.device, dtype, arguments.head)


def _dynamics(arguments: argparse.Namespace) -> int:
    """Molecular dynamics; exit code 1 if they break."""
    from .stability import engine_named, format_stages, run_stability, stages_to_json

    atoms = _start(arguments)
    conditions = (arguments.temperature, arguments.timestep, arguments.steps, arguments.seed)
    if arguments.engine == "ase":
        stages = run_stability(atoms, _calculator(arguments, arguments.dtype), *conditions)
    else:
        stages = engine_named(arguments.engine)(
            atoms,
            arguments.model,
            *conditions,
            device=arguments.device,
            dtype=arguments.dtype,
            head=arguments.head,
        )
    print(format_stages(stages))
    _write_numbers(arguments, stages_to_json(stages))
    if arguments.output is not None:
        from .figures import stability

        stability(Path(arguments.output) / "stability.png", stages)
    return int(any(stage.broken for stage in stages))


def _scan(arguments: argparse.Namespace) -> int:
    """Energy and force along a bond."""
    from tdn.inference.compiled_model import is_compiled_file

    from .bond_scan import scan_bond

    atoms = _start(arguments)
    # second differences of float32 energies are noise
    fixed = is_compiled_file(arguments.model)
    used = _calculator(arguments, None if fixed else arguments.dtype or "float64")
    scan = scan_bond(atoms, used, arguments.i, arguments.j, used.r_max, arguments.points)
    print(
        f"scan of atoms {arguments.i} and {arguments.j} from {scan.distance[0]:.2f} to "
        f"{scan.distance[-1]:.2f} A (cutoff {used.r_max:g} A), {len(scan.distance)} points\n"
        f"  force against -dE/dr             at most {scan.force_error:.2e} eV/A\n"
        f"  jump of the second difference    at most {scan.largest_jump:.2e} eV/A^2, times "
        f"{scan.roughness:.2f} when the step is halved (0.5: smooth, 1: a kink in the force, "
        "2: a jump of it)"
    )
    values = {
        "force_error_eV_per_A": scan.force_error,
        "second_difference_jump_eV_per_A2": scan.largest_jump,
        "jump_ratio_at_half_step": scan.roughness,
    }
    _write_numbers(arguments, values)
    if arguments.output is not None:
        from .figures import bond_scan

        bond_scan(Path(arguments.output) / "scan.png", scan, used.r_max)
    return 0


def _load(arguments: argparse.Namespace, device: torch.device):
    """A function from graphs to predictions, atomic numbers and cutoff of either kind of file."""
    from tdn.inference.compiled_model import is_compiled_file, load_compiled

    path = arguments.model
    if is_compiled_file(path):
        model = load_compiled(path, device)
        return model, model.atomic_numbers, model.r_max
    from tdn.network.checkpoint import load_model
    from tdn.network.potential import Potential

    model, _ = load_model(path, device, arguments.dtype, arguments.head)
    return Potential(model), model.atomic_numbers, model.r_max
