"""From a checkpoint to a compiled file, in one function."""

from __future__ import annotations

import copy
import json
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import ase
import torch

from tdn.inference.aotinductor import target
from tdn.inference.compiled_file import (
    AOTINDUCTOR,
    AOTINDUCTOR_VERSION,
    SUFFIXES,
    TORCHSCRIPT,
)
from tdn.inference.compiled_model import (
    CompiledModel,
    check_reference,
    load_compiled,
    read_extra_files,
)
from tdn.inference.network import InferenceNetwork
from tdn.network.base import Network, model_dtype, set_dtype
from tdn.network.checkpoint import DTYPES, load_model
from tdn.network.potential import Potential
from tdn.system.atomic_files import atomic_write, check_writable
from tdn.system.devices import select_device
from tdn.system.errors import TDNError, UsageError

from . import script
from .deployed import deployed_module, deployed_network
from .description import build_metadata, committee_metadata
from .reference import build_reference, reference_graph
from .table_error import TablesTooCoarse, table_errors
from .verify import Deviation, verify

# fineness of tables (`tdn.inference.radial_table.tabulate`) where the usual ones change energies
# or forces by more than they may
FINER = 30.0

METATOMIC = "metatomic"
OUTPUT_SUFFIXES = {**SUFFIXES, METATOMIC: ".metatomic.pt"}


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


def default_output(checkpoint: str | Path, backend: str = TORCHSCRIPT) -> Path:
    """``model.pt`` -> ``model.tdn.pth`` (``.tdn.pt2``, ``.metatomic.pt``) beside it."""
    path = Path(checkpoint)
    stem = path.stem if path.suffix in (".pt", ".pth", ".ckpt") else path.name
    return path.with_name(stem + OUTPUT_SUFFIXES[backend])


def export_model(
    checkpoint: str | Path | Sequence[str | Path],
    output: str | Path | None = None,
    dtype: str | None = None,
    device: str = "cpu",
    frames: list[ase.Atoms] | None = None,
    progress: Callable[[str], None] | None = None,
    *,
    backend: str = TORCHSCRIPT,
    fused: bool = True,
    direct_forces: bool = False,
    head: str | None = None,
    species: Sequence[str] | None = None,
    calibrate: str | Path | None = None,
) -> ExportReport:
    """Compile the network of a checkpoint, check it, and write it.

    A TorchScript file belongs to no device: it loads on CPUs and GPUs alike. One of AOTInductor
    runs on the kind of device and processor for which it was compiled.

    Parameters
    ----------
    checkpoint : file that tdn-train wrote; several make a committee, whose results are means
    output : compiled file; default: the checkpoint's name with ``.tdn.pth``, ``.tdn.pt2`` or
        ``.metatomic.pt``
    dtype : float32 or float64; default: the precision of the checkpoint
    device : where the compiled network is checked
    frames : further structures on which it is compared with the checkpoint
    progress : called with a line before each step
    backend : torchscript, aotinductor, or metatomic: a file for programs that run its models
    fused : whether functions of the distance may become tables, for speed
    direct_forces : take a network with ``forces: direct``, whose forces are no gradient
    head : which head of a network that was trained on several levels of theory
    species : chemical symbols of the elements to keep; None keeps all. Tables grow with the square
        of their number
    calibrate : file of frames with labels, from which the factors between the deviations of a
        committee and its errors are found and stored

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
    if backend not in OUTPUT_SUFFIXES:
        raise UsageError(f"backend is {backend!r}, expected {' or '.join(OUTPUT_SUFFIXES)}")
    place = select_device(device)
    checkpoints = [checkpoint] if isinstance(checkpoint, (str, Path)) else list(checkpoint)
    output = _output_path(checkpoints, output, backend)
    if calibrate is not None and len(checkpoints) == 1:
        raise UsageError("--calibrate is for committees; give several checkpoints")
    check_writable(output)
    if backend == AOTINDUCTOR:
        from . import machine_code  # takes a second to import

        if len(checkpoints) > 1:
            raise UsageError("a committee needs the backend torchscript")
        machine_code.check_tools()
    if backend == METATOMIC:
        metatomic = _metatomic()
        if len(checkpoints) > 1 or direct_forces:
            what = "a committee" if len(checkpoints) > 1 else "a network with direct forces"
            raise UsageError(f"{what} needs the backend torchscript")

    stored, trainings = [], []
    for path in checkpoints:
        say(f"reading {path}")
        model, training = load_model(path, head=head, species=species)
        _check_finite(model, path)
        _check_forces(model, path, direct_forces)
        stored.append(model)
        trainings.append(training)
    _check_committee(stored, checkpoints)
    for frame in frames or []:
        unknown = sorted(set(frame.symbols) - set(stored[0].config.species))
        if unknown:
            which = f"{checkpoints[0]} knows" if species is None else "--species keeps only"
            raise TDNError(
                f"a frame to verify contains {unknown[0]}, but {which} "
                f"{', '.join(stored[0].config.species)}; choose other frames"
            )
    precision = DTYPES[dtype] if dtype else _common_dtype(stored, checkpoints)
    networks, errors = _deploy(stored, fused, precision)
    try:
        effects = _table_effects(stored, networks[torch.float64], precision)
    except TablesTooCoarse:
        if precision != torch.float32:  # rounding is what limits those of float64
            raise
        say("tables are too coarse for this network: making finer ones")
        networks, errors = _deploy(stored, fused, precision, FINER)
        effects = _table_effects(stored, networks[torch.float64], precision)

    say("computing the reference")
    described = []
    for model, training, error, effect in zip(stored, trainings, errors, effects, strict=True):
        described.append(build_metadata(model, precision, training, fused, error, effect))
    metadata = described[0] if len(described) == 1 else committee_metadata(described)
    if calibrate is not None:
        say("comparing deviations with errors")
        metadata["deviation_factors"] = _deviation_factors(stored, calibrate)
    originals = None
    if metadata["radial_table_error"] is not None:
        originals = [_in_precision(model, precision).to(place) for model in stored]
    if backend == METATOMIC:
        say("compiling and verifying")
        (network,) = networks[precision]
        with atomic_write(output) as temporary:
            metatomic.save(network, metadata, temporary)
            loaded = metatomic.LoadedModel(temporary, metadata, place)
            deviations = verify([network.to(place)], loaded, frames, originals)
            size = temporary.stat().st_size
        return ExportReport(output, size, time.perf_counter() - start, metadata, deviations)
    reference = build_reference(networks, precision)
    say("compiling" if backend == TORCHSCRIPT else "compiling (this takes minutes)")
    module = deployed_module(networks[precision], positions=backend == TORCHSCRIPT)
    if backend == TORCHSCRIPT:
        archive = script.save_bytes(script.script(module), _as_text(metadata, reference))
    else:
        metadata |= target(place) | {"format_version": AOTINDUCTOR_VERSION}
        module = module.to(place)
        graph = reference_graph(stored[0].atomic_numbers, stored[0].r_max).to(place)
        archive = machine_code.save_bytes(module, graph, _as_text(metadata, reference))
    with atomic_write(output) as temporary:
        temporary.write_bytes(archive)
        say("verifying the compiled network")
        compiled = _load_new(temporary, place)
        deployed = [network.to(place) for network in networks[precision]]
        deviations = verify(deployed, compiled, frames, originals)
    if direct_forces:
        warnings.warn(
            "direct forces are no gradient of the energy: molecular dynamics does not conserve "
            "energy, and there is no virial and no stress",
            stacklevel=2,
        )
    return ExportReport(
        output, len(archive), time.perf_counter() - start, compiled.metadata, deviations
    )


def _metatomic() -> ModuleType:
    try:
        from . import metatomic
    except ImportError as error:
        raise UsageError(
            f'the backend metatomic needs its package ({error}); run: pip install "metatomic-torch"'
        ) from error
    return metatomic


def _deviation_factors(models: list[Network], path: str | Path) -> dict[str, float]:
    """Factors from the deviations of a committee to its errors on the frames of a file."""
    from tdn.data import build_graphs, read_frames
    from tdn.evaluation.calibration import deviation_factors

    graphs = build_graphs(read_frames(path), models[0].atomic_numbers, models[0].r_max)
    factors = deviation_factors([Potential(model).eval() for model in models], graphs)
    if not factors:
        raise TDNError(
            f"--calibrate {path}: no frame has an energy or forces to compare with; give labeled "
            "frames that the networks were not trained on"
        )
    return factors


def _in_precision(model: Network, dtype: torch.dtype) -> Network:
    return set_dtype(copy.deepcopy(model), dtype)


def _deploy(
    stored: list[Network], fused: bool, precision: torch.dtype, fineness: float = 1.0
) -> tuple[dict[torch.dtype, list[Network]], list[float | None]]:
    """Networks as they are compiled, in either precision, and the errors of their tables.

    Both have the tables of the precision of the file: what separates them is rounding.
    """
    networks: dict[torch.dtype, list[Network]] = {dtype: [] for dtype in DTYPES.values()}
    errors: list[float | None] = []
    for model in stored:
        double, error = deployed_network(
            _in_precision(model, torch.float64), fused, precision, fineness
        )
        if model_dtype(model) == torch.float32:  # the same weights, hence the same tables
            single = _in_precision(double, torch.float32)
        else:
            rounded = _in_precision(model, torch.float32)
            single, _ = deployed_network(rounded, fused, precision, fineness)
        networks[torch.float64].append(double)
        networks[torch.float32].append(single)
        errors.append(error)
    return networks, errors


def _table_effects(
    models: list[Network], networks: list[Network], precision: torch.dtype
) -> list[dict[str, float] | None]:
    """`table_errors` of those that have tables; ``networks`` are the deployed ones in float64."""
    return [
        table_errors(model, network, precision) if isinstance(network, InferenceNetwork) else None
        for model, network in zip(models, networks, strict=True)
    ]


def _as_text(metadata: dict[str, Any], reference: dict[str, Any]) -> dict[str, str]:
    return {
        "metadata.json": json.dumps(metadata, indent=1),
        "reference.json": json.dumps(reference, allow_nan=False),
    }


def _output_path(checkpoints: list[str | Path], output: str | Path | None, backend: str) -> Path:
    if not checkpoints:
        raise UsageError("no checkpoint given; expected one, or several for a committee")
    suffix = OUTPUT_SUFFIXES[backend]
    if output is None:
        if len(checkpoints) > 1:
            raise UsageError(f"name the file of the committee: -o committee{suffix}")
        return default_output(checkpoints[0], backend)
    output = Path(output).expanduser()
    if not output.name.endswith(suffix):
        raise UsageError(f"output {output}: expected a name that ends with {suffix}")
    return output


def _check_forces(model: Network, path: str | Path, direct_forces: bool) -> None:
    if model.direct_forces and not direct_forces:
        raise TDNError(
            f"{path} predicts forces directly: they are no gradient of its energy, so dynamics "
            "does not conserve energy; train with model.forces = gradient, or accept that with "
            "--direct-forces"
        )
    if direct_forces and not model.direct_forces:
        raise TDNError(
            f"{path} has forces that are the gradient of its energy; leave out --direct-forces"
        )


def _check_committee(models: list[Network], paths: list[str | Path]) -> None:
    """What the members of a committee must have in common."""
    first = models[0].config
    for model, path in zip(models[1:], paths[1:]):
        for key in ("species", "r_max", "architecture"):
            found, wanted = getattr(model.config, key), getattr(first, key)
            if found != wanted:
                raise TDNError(
                    f"the members of a committee need the same {key}: {path} has "
                    f"{_shown(found)}, {paths[0]} has {_shown(wanted)}"
                )


def _shown(value: Any) -> str:
    return " ".join(value) if isinstance(value, (list, tuple)) else str(value)


def _common_dtype(models: list[Network], paths: list[str | Path]) -> torch.dtype:
    dtypes = [model_dtype(model) for model in models]
    if len(set(dtypes)) > 1:
        raise TDNError(
            f"{paths[0]} and others differ in precision; choose one with --dtype float32 or float64"
        )
    return dtypes[0]


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
    deviations = check_reference(model, path)
    return deviations, {name: model.reference["tolerance"][name] for name in deviations}
