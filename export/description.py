"""What a compiled file says about its network: the contents of ``metadata.json``."""

from __future__ import annotations

import datetime
import hashlib
import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tdn.cp.algebra import CPProblem, reconstruct
from tdn.cp.couplings import coupling_paths
from tdn.cp.factors import CPFactors, measured_factors
from tdn.inference.compiled_file import FORMAT
from tdn.network.base import Network, exact_constants
from tdn.system.version import __version__

# what members of a committee may differ in
MEMBER_KEYS = (
    "num_layers",
    "l_max",
    "num_channels",
    "correlation",
    "num_parameters",
    "cp_rank",
    "training",
    "weight_hash",
)

TABLE_ERRORS = ("table_energy_error", "table_forces_error")


def weight_hash(model: Network) -> str:
    """SHA-256 over the names, types, shapes and values of everything a checkpoint stores."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        tensor = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


def plain(value: Any) -> Any:
    """A copy of ``value`` that JSON can hold: numbers that are not finite become null."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, np.generic) or (isinstance(value, Tensor) and value.numel() == 1):
        value = value.item()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, (bool, int, str)) else str(value)


def cp_factors(model: Network) -> list[CPFactors]:
    """The CP matrices of a network, each set once, with their measured errors.

    What they stand for is the coupling tensor nearest to their product: the path coefficients are
    those that the matrices themselves have. Products with scalars are exact by construction and
    left out, unless there are no others.
    """
    constants = exact_constants(model)
    sets: dict[tuple[bytes, ...], list[np.ndarray]] = {}
    for name in constants:
        owner, _, last = name.rpartition(".")
        if last == "output":
            names = (name, f"{owner}.input1", f"{owner}.input2")
            matrices = [constants[n].numpy() for n in names]
            sets[tuple(matrix.tobytes() for matrix in matrices)] = matrices
    found = [m for m in sets.values() if len(m[1]) > 1] or list(sets.values())
    return [_measured(matrices, model.config.paths) for matrices in found]


def _measured(matrices: list[np.ndarray], paths: str) -> CPFactors:
    """Errors of the matrices ``[output, input1, input2]`` as factors of a coupling tensor."""
    l_max3, l_max1, l_max2 = (math.isqrt(len(matrix)) - 1 for matrix in matrices)
    tensor = reconstruct(matrices)
    degrees = (l_max1, l_max2, l_max3)
    problem = CPProblem.from_degrees(coupling_paths(*degrees, paths), *degrees, normalized=True)
    coefficients = problem.project(tensor)
    return measured_factors(matrices, coefficients, l_max1, l_max2, l_max3, paths)


def build_metadata(
    model: Network,
    dtype: torch.dtype,
    training: dict[str, Any],
    fused: bool = True,
    radial_table_error: float | None = None,
    table_errors: dict[str, float] | None = None,
) -> dict[str, Any]:
    """The contents of ``metadata.json`` for one network.

    Parameters
    ----------
    model : network as its checkpoint stores it; the weight hash is taken over these values
    dtype : precision of the compiled file
    training : metadata of the checkpoint
    fused, radial_table_error : see `tdn_export.deployed.deployed_network`
    table_errors : see `tdn_export.table_error.table_errors`
    """
    config = model.config
    attention = config.architecture == "attention"
    factors = cp_factors(model)
    # attention starts from an embedding of neighbors
    hops = config.num_layers + int(attention)
    direct = model.direct_forces
    return {
        "format": FORMAT,
        # the oldest that describes the file: earlier releases read it if they can
        "format_version": 3 if radial_table_error is not None else 2 if direct else 1,
        "tdn_version": __version__,
        "torch_version": str(torch.__version__),
        "r_max": float(config.r_max),
        "num_layers": config.num_layers,
        "receptive_field": float(config.r_max * hops),
        "species": list(config.species),
        "atomic_numbers": [int(z) for z in model.atomic_numbers],
        "dtype": str(dtype).removeprefix("torch."),
        "units": {"energy": "eV", "length": "angstrom"},
        "forces": "direct" if direct else "gradient",
        "fused": fused,
        "radial_table_error": radial_table_error,
        **(table_errors or dict.fromkeys(TABLE_ERRORS)),
        "architecture": config.architecture,
        "l_max": config.l_max,
        "num_channels": config.num_channels,
        "correlation": None if attention else config.correlation,
        "paths": config.paths,
        "num_parameters": sum(p.numel() for p in model.parameters()),
        "cp_rank": max(f.rank for f in factors),
        "cp_error": max(f.relative_error for f in factors),
        "equivariance_error": max(f.equivariance_error for f in factors),
        "training": plain(training),
        "weight_hash": weight_hash(model),
        "created": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    }


def committee_metadata(members: list[dict[str, Any]]) -> dict[str, Any]:
    """The contents of ``metadata.json`` for several networks in one file.

    What the members share stands as for one network, counts are sums and errors the largest;
    ``committee`` is their number and ``members`` has what is different. A value that has no such
    meaning and differs is null.
    """
    together = dict(members[0])
    for name, value in together.items():
        if any(m[name] != value for m in members):
            together[name] = None
    for name in ("format_version", "num_layers", "receptive_field"):
        together[name] = max(m[name] for m in members)
    for name in ("cp_error", "equivariance_error"):
        together[name] = max(m[name] for m in members)
    for name in ("radial_table_error", *TABLE_ERRORS):
        together[name] = max((m[name] for m in members if m[name] is not None), default=None)
    together["created"] = members[-1]["created"]
    together["num_parameters"] = sum(m["num_parameters"] for m in members)
    together["paths"] = "parity" if all(m["paths"] == "parity" for m in members) else "all"
    hashes = "\n".join(m["weight_hash"] for m in members)
    together["weight_hash"] = hashlib.sha256(hashes.encode()).hexdigest()
    together["committee"] = len(members)
    del together["training"]
    together["members"] = [{name: m[name] for name in MEMBER_KEYS} for m in members]
    return together
