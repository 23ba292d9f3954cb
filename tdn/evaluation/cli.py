"""Command ``tdn-eval``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from tdn.system.atomic_files import check_writable
from tdn.system.command import run_main
from tdn.system.errors import TDNError, UsageError

if TYPE_CHECKING:
    import torch

    from .errors import Evaluation

EPILOG = """\
Errors are mean absolute (MAE) and root mean square (RMSE); forces and stresses count per component.
Frames that lack a label are evaluated for those they have. --md and --scan need no labels: they
start from one frame of the file (--frame).

examples:
  tdn-eval run/model.pt test.xyz
  tdn-eval run/model.pt water.xyz --split test
  tdn-eval water.tdn.pth test.xyz --output evaluation --energy-key REF_energy
  tdn-eval run/model.pt test.xyz --worst 20 -o worst.xyz
  tdn-eval run/model.pt test.xyz --md --temperature 500 --steps 20000 -o dynamics
  tdn-eval run/model.pt test.xyz --md --engine lammps
  tdn-eval run/model.pt test.xyz --scan 0 1
"""
# what the name of a file with frames ends with, where -o may also be a folder
FRAME_SUFFIXES = (".xyz", ".extxyz")
# options that make sense for --md alone, and those for comparison with labels alone
MD_OPTIONS = ("engine", "temperature", "timestep", "steps", "seed")
ERROR_OPTIONS = (
    "worst",
    "split",
    "split_key",
    "batch_size",
    "energy_key",
    "forces_key",
    "stress_key",
    "stress_unit",
    "config_type_key",
)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = argparse.ArgumentParser(
        prog="tdn-eval",
        description="Errors of a potential against reference frames, stability and smoothness.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    result.add_argument("model", help="model.pt or a compiled file *.tdn.pth")
    result.add_argument("frames", help="reference frames, any file that ASE reads")
    result.add_argument(
        "-o",
        "--output",
        metavar="DIR",
        help="folder for figures, JSON and worst.xyz (created if needed); with --worst also the "
        "name of an .xyz file",
    )
    result.add_argument("--json", metavar="FILE", help="write the numbers as JSON")
    result.add_argument(
        "--worst", type=int, metavar="N", help="write the N frames with the largest errors (-o)"
    )
    result.add_argument(
        "--split", choices=("train", "valid", "test"), help="only frames of this part (see next)"
    )
    result.add_argument(
        "--split-key", default="split", help="key that says a frame's part (default: split)"
    )
    result.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    result.add_argument(
        "--dtype",
        choices=("float32", "float64"),
        help="precision (default: that of model.pt; float64 for --scan)",
    )
    result.add_argument(
        "--head", metavar="NAME", help="level of theory, of a network trained on several"
    )
    result.add_argument("--batch-size", type=int, default=16, help="frames per batch (default 16)")
    result.add_argument("--energy-key", help="key of the energy (eV)")
    result.add_argument("--forces-key", help="key of the forces (eV/A)")
    result.add_argument("--stress-key", help="key of the stress")
    result.add_argument(
        "--stress-unit", default="eV/A^3", help="unit of the stress (-kbar: with the sign of VASP)"
    )
    result.add_argument(
        "--config-type-key", default="config_type", help="key of the name that groups frames"
    )
    runs = result.add_argument_group("runs from one frame instead of errors")
    runs.add_argument(
        "--md", action="store_true", help="stability: NVT, then NVE; lifetime and energy drift"
    )
    runs.add_argument(
        "--engine",
        choices=("ase", "lammps"),
        default="ase",
        help="what moves the atoms of --md (ase); lammps exports a checkpoint first",
    )
    runs.add_argument("--temperature", type=float, default=300.0, help="of --md in K (300)")
    runs.add_argument("--timestep", type=float, default=0.5, help="of --md in fs (0.5)")
    runs.add_argument("--steps", type=int, default=2000, help="of either part of --md (2000)")
    runs.add_argument("--seed", type=int, default=0, help="of --md (0)")
    runs.add_argument(
        "--scan",
        type=int,
        nargs=2,
        metavar=("I", "J"),
        help="smoothness while atom J moves along its bond to I, beyond the cutoff (atoms from 0)",
    )
    runs.add_argument("--points", type=int, default=401, help="of --scan (401)")
    runs.add_argument("--frame", type=int, default=1, help="which frame, counted from one (1)")
    return result


def main(argv: list[str] | None = None) -> int:
    """Entry point."""
    return run_main(lambda: _main(argv), "tdn-eval")


def _main(argv: list[str] | None) -> int:
    arguments = parser().parse_args(argv)
    _check(arguments, _typed(argv, vars(arguments)))
    output, worst_file = _places(arguments)

    from tdn.system.devices import (
        select_device,  # torch takes seconds to import: mistakes above come first
    )

    select_device(arguments.device, "--device")
    if arguments.md or arguments.scan is not None:
        return _run(arguments, output)
    return _compare(arguments, output, worst_file)


def _check(arguments: argparse.Namespace, typed: set[str]) -> None:
    """Limits of numbers, and options that do not go together."""
    for option, value, low in (
        ("--batch-size", arguments.batch_size, 1),
        ("--worst", arguments.worst, 1),
        ("--steps", arguments.steps, 1),
        ("--frame", arguments.frame, 1),
        ("--points", arguments.points, 11),
    ):
        if value is not None and value < low:
            raise UsageError(f"{option} {value}: expected at least {low}")
    for option, value in (
        ("--temperature", arguments.temperature),
        ("--timestep", arguments.timestep),
    ):
        if not value > 0:
            raise UsageError(f"{option} {value:g}: expected a positive number")
    if arguments.worst and arguments.output is None:
        raise UsageError("--worst needs a place for the frames: -o worst.xyz or -o DIR")
    runs = arguments.md or arguments.scan is not None
    for option in ERROR_OPTIONS:
        if option in typed and runs:
            raise UsageError(
                f"{_spelled(option)} does not go with --md and --scan, which compare no labels"
            )
    needs = {
        "--md": (arguments.md, MD_OPTIONS),
        "--scan": (arguments.scan is not None, ("points",)),
        "--md or --scan": (runs, ("frame",)),
        "--split": (arguments.split is not None, ("split_key",)),
    }
    for other, (given, options) in needs.items():
        for option in options:
            if option in typed and not given:
                raise UsageError(f"{_spelled(option)} is an option of {other}, which is missing")


def _typed(argv: list[str] | None, names: Iterable[str]) -> set[str]:
    """Which arguments are on the command line, also where they repeat a default."""
    untouched = object()
    # defaults do not replace what is there
    found = parser().parse_args(argv, argparse.Namespace(**dict.fromkeys(names, untouched)))
    return {name for name, value in vars(found).items() if value is not untouched}


def _spelled(name: str) -> str:
    return "--" + name.replace("_", "-")


def _places(arguments: argparse.Namespace) -> tuple[Path | None, Path | None]:
    """Folder for everything and file for the worst frames, made and checked; None if not asked."""
    if arguments.json:
        check_writable(arguments.json)
    if arguments.output is None:
        return None, None
    output = Path(arguments.output)
    if output.suffix in FRAME_SUFFIXES:
        if not arguments.worst:
            raise UsageError(f"--output {output}: a file with frames needs --worst N")
        check_writable(output)
        return None, output
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TDNError(f"--output {output} cannot be used: {error.strerror}") from None
    check_writable(output / "errors.json")
    return output, output / "worst.xyz" if arguments.worst else None


def _compare(arguments: argparse.Namespace, output: Path | None, worst_file: Path | None) -> int:
    """Errors against the labels of all frames."""
    import numpy as np
    from ase.data import chemical_symbols

    from tdn.data import LabelKeys, build_graphs, read_frames
    from tdn.data.frames import drop_bad_labels
    from tdn.system.devices import select_device
    from tdn.training.run.final_report import write_json

    from .errors import error_tables, evaluate, format_rows, tables_to_json, worst_frames

    device = select_device(arguments.device, "--device")
    potential, atomic_numbers, r_max = _load(arguments, device)
    keys = LabelKeys(
        energy=arguments.energy_key,
        forces=arguments.forces_key,
        stress=arguments.stress_key,
        config_type=arguments.config_type_key,
        split=None if arguments.split is None else arguments.split_key,
        stress_unit=arguments.stress_unit,
    )
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
    if arguments.json:
        write_json(Path(arguments.json), values)
    if worst_file is not None:
        chosen = worst_frames(evaluation, arguments.worst)
        _write_worst(worst_file, frames, evaluation, chosen)
        print(f"\nworst {len(chosen)} frames, the worst first: {worst_file}")
    if output is not None:
        from tdn.training.run.learning_curve import parity

        from .figures import cumulative_errors

        write_json(output / "errors.json", values)
        parity(output / "parity.png", {Path(arguments.frames).stem: evaluation})
        cumulative_errors(output / "cumulative.png", evaluation, symbols)
    return 0


def _write_worst(path: Path, frames: list, evaluation: Evaluation, chosen: list[int]) -> None:
    """Frames with their labels as ASE reads them, predictions beside as ``tdn_*``."""
    import ase.io
    import numpy as np
    from ase.calculators.singlepoint import SinglePointCalculator

    from tdn.system.atomic_files import atomic_write

    from .errors import frame_errors

    energy, forces = frame_errors(evaluation)
    starts = np.concatenate([[0], np.cumsum(evaluation.num_atoms)])
    written = []
    for index in chosen:
        frame = frames[index]
        atoms = frame.atoms.copy()
        labels = {"energy": frame.energy, "forces": frame.forces}
        atoms.calc = SinglePointCalculator(
            atoms, **{name: value for name, value in labels.items() if value is not None}
        )
        part = slice(starts[index], starts[index + 1])
        atoms.arrays["tdn_forces"] = evaluation.predicted.forces[part]
        atoms.info |= {
            "tdn_energy": float(evaluation.predicted.energy[index]),
            "source": frame.source,
            "frame": frame.number,
        }
        if frame.energy is not None:
            atoms.info["energy_error_meV_per_atom"] = float(energy[index])
        if frame.forces is not None:
            atoms.info["force_rmse_meV_per_A"] = float(forces[index])
        if frame.config_type is not None:
            atoms.info["config_type"] = frame.config_type
        written.append(atoms)
    with atomic_write(path) as temporary:
        ase.io.write(temporary, written, format="extxyz")


def _run(arguments: argparse.Namespace, output: Path | None) -> int:
    """Molecular dynamics and bond scan from one frame; exit code 1 if the dynamics break."""
    from tdn.data import read_frames
    from tdn.inference.calculator import TDNCalculator
    from tdn.inference.compiled_model import is_compiled_file
    from tdn.training.run.final_report import write_json

    if is_compiled_file(arguments.model):
        _refuse_choices_of_export(arguments)
    frames = read_frames(arguments.frames)
    if arguments.frame > len(frames):
        raise UsageError(f"--frame {arguments.frame}: {arguments.frames} has {len(frames)} frames")
    atoms = frames[arguments.frame - 1].atoms
    values: dict[str, dict] = {}
    code = 0

    def calculator(dtype: str | None) -> TDNCalculator:
        if is_compiled_file(arguments.model):
            dtype = None
        return TDNCalculator(arguments.model, arguments.device, dtype, arguments.head)

    if arguments.scan is not None:
        from .bond_scan import scan_bond

        # second differences of float32 energies are noise
        used = calculator(arguments.dtype or "float64")
        scan = scan_bond(atoms, used, *arguments.scan, used.r_max, arguments.points)
        print(
            f"scan of atoms {arguments.scan[0]} and {arguments.scan[1]} from "
            f"{scan.distance[0]:.2f} to {scan.distance[-1]:.2f} A (cutoff {used.r_max:g} A), "
            f"{len(scan.distance)} points\n"
            f"  force against -dE/dr             at most {scan.force_error:.2e} eV/A\n"
            f"  jump of the second difference    at most {scan.largest_jump:.2e} eV/A^2, times "
            f"{scan.roughness:.2f} when the step is halved (0.5: smooth, 1: a kink in the force, "
            "2: a jump of it)"
        )
        values["scan"] = {
            "force_error_eV_per_A": scan.force_error,
            "second_difference_jump_eV_per_A2": scan.largest_jump,
            "jump_ratio_at_half_step": scan.roughness,
        }
        if output is not None:
            from .figures import bond_scan

            bond_scan(output / "scan.png", scan, used.r_max)
    if arguments.md:
        from .stability import format_stages, run_stability, stages_to_json

        conditions = (
            arguments.temperature,
            arguments.timestep,
            arguments.steps,
            arguments.seed,
        )
        if arguments.engine == "lammps":
            from tdn_lammps.stability import run_stability_in_lammps

            stages = run_stability_in_lammps(
                atoms,
                arguments.model,
                *conditions,
                device=arguments.device,
                dtype=arguments.dtype,
                head=arguments.head,
            )
        else:
            stages = run_stability(atoms, calculator(arguments.dtype), *conditions)
        print(format_stages(stages))
        values["md"] = stages_to_json(stages)
        code = int(any(stage.broken for stage in stages))
        if output is not None:
            from .figures import stability

            stability(output / "stability.png", stages)
    if arguments.json:
        write_json(Path(arguments.json), values)
    if output is not None:
        write_json(output / "runs.json", values)
    return code


def _load(arguments: argparse.Namespace, device: torch.device):
    """A function from graphs to predictions, atomic numbers and cutoff of either kind of file."""
    from tdn.inference.compiled_model import is_compiled_file, load_compiled

    path = arguments.model
    if is_compiled_file(path):
        _refuse_choices_of_export(arguments)
        model = load_compiled(path, device)
        return model, model.atomic_numbers, model.r_max
    from tdn.network.checkpoint import load_model
    from tdn.network.potential import Potential

    model, _ = load_model(path, device, arguments.dtype, arguments.head)
    return Potential(model), model.atomic_numbers, model.r_max


def _refuse_choices_of_export(arguments: argparse.Namespace) -> None:
    """A compiled file has one precision and one head: options that ask for others are mistakes."""
    for option, value in (("--dtype", arguments.dtype), ("--head", arguments.head)):
        if value is not None:
            raise UsageError(f"{option} does not apply to a compiled file: it was fixed at export")
