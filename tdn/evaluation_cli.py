"""Command ``tdn-eval``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from .cli import run_main
from .errors import TDNError, UsageError
from .files import check_writable

EPILOG = """\
Errors are mean absolute (MAE) and root mean square (RMSE); forces and stresses count per component.
Frames that lack a label are evaluated for those they have.

examples:
  tdn-eval run/model.pt test.xyz
  tdn-eval run/model.pt water.xyz --split test
  tdn-eval water.tdn.pth test.xyz --output evaluation --energy-key REF_energy
"""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = argparse.ArgumentParser(
        prog="tdn-eval",
        description="Errors of a potential against reference frames.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    result.add_argument("model", help="model.pt or a compiled file *.tdn.pth")
    result.add_argument("frames", help="reference frames, any file that ASE reads")
    result.add_argument(
        "--output", metavar="DIR", help="folder for parity.png and errors.json (created if needed)"
    )
    result.add_argument("--json", metavar="FILE", help="write the errors as JSON")
    result.add_argument(
        "--split", choices=("train", "valid", "test"), help="only frames of this part (see next)"
    )
    result.add_argument(
        "--split-key", default="split", help="key that says a frame's part (default: split)"
    )
    result.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    result.add_argument(
        "--dtype", choices=("float32", "float64"), help="precision (default: that of model.pt)"
    )
    result.add_argument(
        "--head", metavar="NAME", help="level of theory, of a network trained on several"
    )
    result.add_argument("--batch-size", type=int, default=16, help="frames per batch (default 16)")
    result.add_argument("--energy-key", default="energy", help="key of the energy (eV)")
    result.add_argument("--forces-key", default="forces", help="key of the forces (eV/A)")
    result.add_argument("--stress-key", default="stress", help="key of the stress (eV/A^3)")
    result.add_argument(
        "--config-type-key", default="config_type", help="key of the name that groups frames"
    )
    return result


def main(argv: list[str] | None = None) -> int:
    """Entry point."""
    return run_main(lambda: _main(argv), "tdn-eval")


def _main(argv: list[str] | None) -> int:
    arguments = parser().parse_args(argv)
    if arguments.batch_size < 1:
        raise UsageError(f"--batch-size {arguments.batch_size}: expected at least 1")
    if arguments.json:
        check_writable(arguments.json)
    output = None if arguments.output is None else Path(arguments.output)
    if output is not None:
        try:
            output.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise TDNError(f"--output {output} cannot be used: {error.strerror}") from None
        check_writable(output / "errors.json")

    import numpy as np  # torch takes seconds to import: mistakes above come at once
    from ase.data import chemical_symbols

    from .data import LabelKeys, build_graphs, read_frames
    from .data.frames import drop_bad_labels
    from .devices import select_device
    from .evaluation import error_tables, evaluate, format_rows, tables_to_json
    from .training.report import write_json

    device = select_device(arguments.device, "--device")
    potential, atomic_numbers, r_max = _load(arguments.model, device, arguments.dtype)
    keys = LabelKeys(
        energy=arguments.energy_key,
        forces=arguments.forces_key,
        stress=arguments.stress_key,
        config_type=arguments.config_type_key,
        split=None if arguments.split is None else arguments.split_key,
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
            f"no frame of {arguments.frames} has energy, forces or stress under the keys "
            f"'{keys.energy}', '{keys.forces}', '{keys.stress}'; name them with --energy-key, "
            "--forces-key and --stress-key"
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
    if output is not None:
        from .training.plots import parity

        write_json(output / "errors.json", values)
        parity(output / "parity.png", {Path(arguments.frames).stem: evaluation})
    return 0


def _load(path: str, device, dtype: str | None):
    """A function from graphs to predictions, atomic numbers and cutoff of either kind of file."""
    from .compiled import is_compiled_file, load_compiled

    if is_compiled_file(path):
        if dtype is not None:
            raise UsageError("--dtype does not apply to a compiled file: it was fixed at export")
        model = load_compiled(path, device)
        return model, model.atomic_numbers, model.r_max
    from .checkpoint import load_model
    from .potential import Potential

    model, _ = load_model(path, device, dtype)
    return Potential(model), model.atomic_numbers, model.r_max
