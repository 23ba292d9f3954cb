"""From a checkpoint to a compiled file, in one function."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ase
import torch

from tdn import torchscript
from tdn.checkpoint import DTYPES, load_model
from tdn.compiled import SUFFIX, CompiledModel, check_reference, load_compiled, read_extra_files
from tdn.devices import select_device
from tdn.errors import TDNError, UsageError
from tdn.files import atomic_write, check_writable
from tdn.network import Network, model_dtype

from .metadata import build_metadata, build_reference
from .verify import Deviation, verify
from .wrapper import DeployedModel


@dataclass(frozen=True)
class ExportReport:
    """What an export wrote and how well it agrees with its checkpoint.

    Attributes
    ----------
    path : the compiled file
    size : bytes
    seconds : time of the whole export
    metadata : contents of ``metadata.json``
    deviations : every check that was made
    """

    path: Path
    size: int
    seconds: float
    metadata: dict[str, Any]
    deviations: list[Deviation]


def default_output(checkpoint: str | Path) -> Path:
    """``model.pt`` -> ``model.tdn.pth`` beside it."""
    path = Path(checkpoint)
    stem = path.stem if path.suffix in (".pt", ".pth", ".ckpt") else path.name
    return path.with_name(stem + SUFFIX)


def export_model(
    checkpoint: str | Path,
    output: str | Path | None = None,
    dtype: str | None = None,
    device: str = "cpu",
    frames: list[ase.Atoms] | None = None,
    progress: Callable[[str], None] | None = None,
) -> ExportReport:
    """Compile the network of a checkpoint, check it, and write it.

    The file itself belongs to no device: it loads on CPUs and GPUs alike.

    Parameters
    ----------
    checkpoint : file that tdn-train wrote
    output : compiled file; default: the checkpoint's name with ``.tdn.pth``
    dtype : float32 or float64; default: the precision of the checkpoint
    device : where the compiled network is checked
    frames : further structures on which it is compared with the checkpoint
    progress : called with a line before each step

    Returns
    -------
    ExportReport

    Raises
    ------
    TDNError
        If the checkpoint cannot be used, the output cannot be written, or the compiled network
        does not agree with the checkpoint; no file is left then, and an older one stays.
    """
    say = progress or (lambda line: None)
    start = time.perf_counter()
    if dtype is not None and dtype not in DTYPES:
        raise UsageError(f"dtype is {dtype!r}, expected float32 or float64")
    place = select_device(device)
    output = Path(output).expanduser() if output is not None else default_output(checkpoint)
    if not output.name.endswith(SUFFIX):
        raise UsageError(f"output {output}: expected a name that ends with {SUFFIX}")
    check_writable(output)

    say(f"reading {checkpoint}")
    stored, training = load_model(checkpoint)
    _check_finite(stored, checkpoint)
    if getattr(stored, "direct_forces", False):
        raise TDNError(
            f"{checkpoint} predicts forces directly: they are no gradient of its energy, so "
            "dynamics would not conserve energy; train with model.forces = gradient"
        )
    precision = DTYPES[dtype] if dtype else model_dtype(stored)
    model = load_model(checkpoint, dtype=precision)[0]
    for frame in frames or []:
        unknown = sorted(set(frame.symbols) - set(model.config.species))
        if unknown:
            raise TDNError(
                f"a frame to verify contains {unknown[0]}, but {checkpoint} knows "
                f"{', '.join(model.config.species)}; choose other frames"
            )

    say("computing the reference")
    extra_files = {
        "metadata.json": json.dumps(build_metadata(stored, precision, training), indent=1),
        "reference.json": json.dumps(build_reference(model), allow_nan=False),
    }
    say("compiling")
    # a copy: compiling switches off the gradients of parameters
    archive = torchscript.save_bytes(
        torchscript.script(DeployedModel(copy.deepcopy(model))), extra_files
    )
    with atomic_write(output) as temporary:
        temporary.write_bytes(archive)
        say("verifying the compiled network")
        compiled = _load_new(temporary, place)
        deviations = verify(model.to(place), compiled, frames)
    return ExportReport(
        output, len(archive), time.perf_counter() - start, compiled.metadata, deviations
    )


def _load_new(path: Path, device: torch.device) -> CompiledModel:
    """Load a file just written, under the name of a step rather than a temporary file."""
    try:
        return load_compiled(path, device)
    except TDNError as error:
        message = str(error).replace(str(path), "the compiled network")
        raise TDNError(f"{message}; no file was written") from None


def _check_finite(model: Network, path: str | Path) -> None:
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise TDNError(
                f"{path}: weight '{name}' contains NaN or infinity (training diverged); "
                "export an earlier checkpoint or train with a smaller learning rate"
            )


def inspect(path: str | Path) -> dict[str, Any]:
    """Metadata of a compiled file, read without running anything in it.

    Raises
    ------
    TDNError
        If it is not a compiled file.
    """
    return read_extra_files(path)[0]


def check(path: str | Path, device: str = "cpu") -> tuple[dict[str, float], dict[str, float]]:
    """Compute the reference of a compiled file; return deviations and tolerances.

    Raises
    ------
    TDNError
        If the file cannot be used or a deviation exceeds its tolerance.
    """
    model = load_compiled(path, select_device(device), check=False)
    return check_reference(model, path), dict(model.reference["tolerance"])
