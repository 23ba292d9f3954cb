"""What stands beside the network in a compiled file: its description and its reference."""

from __future__ import annotations

import copy
import datetime
import hashlib
import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tdn.compiled import FORMAT, FORMAT_VERSION
from tdn.cp import load_factors
from tdn.graph import Graph, graph_from_atoms
from tdn.network import Network, model_dtype, set_dtype
from tdn.potential import Potential
from tdn.torchscript import plain_execution
from tdn.version import __version__

from .structures import random_cluster

# How many times the rounding error measured at export another build may be off. In float64 the
# error is scaled down from float32, and mathematical functions differ by some units in the last
# place between libraries and devices, hence the larger factor; TF32 arithmetic (2^-11) fails both.
ROUNDING_MARGIN = {torch.float32: 64.0, torch.float64: 4096.0}
ENERGY_ROUNDING = 64.0  # of the sum with E0, which can be thousands of eV


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


def build_metadata(model: Network, dtype: torch.dtype, training: dict[str, Any]) -> dict[str, Any]:
    """The contents of ``metadata.json``.

    Parameters
    ----------
    model : network as its checkpoint stores it; the weight hash is taken over these values
    dtype : precision of the compiled file
    training : metadata of the checkpoint
    """
    config = model.config
    attention = config.architecture == "attention"
    factors = load_factors(
        config.l_max,
        paths=config.paths,
        rank=config.rank,
        free_coefficients=not attention or config.path_coefficients == "free",
    )
    # attention starts from an embedding of neighbours
    hops = config.num_layers + int(attention)
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "tdn_version": __version__,
        "torch_version": str(torch.__version__),
        "r_max": float(config.r_max),
        "num_layers": config.num_layers,
        "receptive_field": float(config.r_max * hops),
        "species": list(config.species),
        "atomic_numbers": [int(z) for z in model.atomic_numbers],
        "dtype": str(dtype).removeprefix("torch."),
        "units": {"energy": "eV", "length": "angstrom"},
        "architecture": config.architecture,
        "l_max": config.l_max,
        "num_channels": config.num_channels,
        "correlation": config.correlation,
        "paths": config.paths,
        "num_parameters": sum(p.numel() for p in model.parameters()),
        "cp_rank": factors.rank,
        "cp_error": float(factors.relative_error),
        "equivariance_error": float(factors.equivariance_error),
        "training": plain(training),
        "weight_hash": weight_hash(model),
        "created": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    }


def reference_graph(atomic_numbers: list[int], r_max: float) -> Graph:
    """A small cluster with every species in which all atoms have several neighbours."""
    count = max(12, len(atomic_numbers))
    return graph_from_atoms(
        random_cluster(atomic_numbers, count, r_max, seed=0), atomic_numbers, r_max
    )


def build_reference(model: Network) -> dict[str, Any]:
    """The contents of ``reference.json``: a structure and what the network gives for it.

    The tolerance is the rounding error of this network, measured as the difference between its
    results in float32 and in float64, scaled to its precision and multiplied by a margin.

    Parameters
    ----------
    model : network in the precision of the compiled file
    """
    dtype = model_dtype(model)
    graph = reference_graph(model.atomic_numbers, model.r_max)
    with plain_execution():  # e3nn runs compiled code
        results = {
            d: Potential(set_dtype(copy.deepcopy(model), d))(graph)
            for d in (torch.float32, torch.float64)
        }
    result = results[dtype]
    eps = torch.finfo(dtype).eps
    eps32 = torch.finfo(torch.float32).eps
    # energies without those of isolated atoms: the part that is rounded
    offset = isolated_energies(model)[graph.species]
    scale = {
        "atom_energy": (result["atom_energy"] - offset).abs().max().item(),
        "forces": result["forces"].abs().max().item(),
        "virial": result["virial"].abs().max().item(),
    }
    tolerance = {}
    for name, size in scale.items():
        error = (results[torch.float32][name] - results[torch.float64][name]).abs().max().item()
        amplification = max(error / eps32, size)
        tolerance[name] = ROUNDING_MARGIN[dtype] * eps * amplification
    tolerance["atom_energy"] += (
        ENERGY_ROUNDING * torch.finfo(torch.float64).eps * offset.abs().max().item()
    )
    return {
        "species": graph.species.tolist(),
        "positions": graph.positions.tolist(),
        "edge_index": graph.edge_index.tolist(),
        "edge_vec": graph.edge_vec.tolist(),
        "num_local": graph.num_atoms,
        "atom_energy": result["atom_energy"].tolist(),
        "forces": result["forces"].tolist(),
        "virial": result["virial"][0].tolist(),
        "tolerance": {
            "energy": tolerance["atom_energy"],
            "forces": tolerance["forces"],
            "virial": tolerance["virial"],
        },
    }


def isolated_energies(model: Network) -> Tensor:
    """Energy of one atom of each species without neighbours, float64 [num_species], eV."""
    count = len(model.atomic_numbers)
    device = model.embedding.device
    graph = Graph(
        species=torch.arange(count),
        positions=torch.zeros(count, 3, dtype=torch.float64),
        edge_index=torch.zeros(2, 0, dtype=torch.int64),
        edge_shift=torch.zeros(0, 3, dtype=torch.float64),
        batch=torch.zeros(count, dtype=torch.int64),
        cell=torch.zeros(1, 3, 3, dtype=torch.float64),
        pbc=torch.zeros(1, 3, dtype=torch.bool),
    )
    return Potential(model)(graph.to(device))["atom_energy"].cpu()
