"""The structure inside a compiled file, with the results that its network must give."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tdn.graph import Graph, graph_from_atoms
from tdn.inference.torchscript import plain_execution
from tdn.network.base import Network
from tdn.network.potential import Potential

from .structures import reference_cluster
from .tolerances import ENERGY_ROUNDING, ROUNDING_MARGIN


def reference_graph(atomic_numbers: list[int], r_max: float) -> Graph:
    """A small cluster in which every pair of species has neighbors within the cutoff."""
    return graph_from_atoms(reference_cluster(atomic_numbers, r_max), atomic_numbers, r_max)


def build_reference(
    networks: dict[torch.dtype, list[Network]], dtype: torch.dtype
) -> dict[str, Any]:
    """The contents of ``reference.json``: a structure and what the network gives for it.

    The tolerance is the rounding error of this network, measured as the difference between its
    results in float32 and in float64, scaled to its precision and multiplied by a margin.

    Parameters
    ----------
    networks : the members of the compiled file (one, but for committees) in either precision
    dtype : the precision of the compiled file
    """
    members = networks[dtype]
    graph = reference_graph(members[0].atomic_numbers, members[0].r_max)
    with plain_execution():  # e3nn runs compiled code
        results = {d: _mean_results(n, graph) for d, n in networks.items()}
    result = results[dtype]
    eps = torch.finfo(dtype).eps
    eps32 = torch.finfo(torch.float32).eps
    # energies without those of isolated atoms: the part that is rounded
    offset = mean_isolated_energies(members)[graph.species]
    scale = {name: values.abs().max().item() for name, values in result.items()}
    scale["atom_energy"] = (result["atom_energy"] - offset).abs().max().item()
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
        "virial": result["virial"][0].tolist() if "virial" in result else None,
        "tolerance": {name.removeprefix("atom_"): value for name, value in tolerance.items()},
    }


def compared_quantities(model: Network) -> tuple[str, ...]:
    """What a network gives: direct forces have no virial."""
    names = ("atom_energy", "forces")
    return names if model.direct_forces else (*names, "virial")


def _mean_results(networks: list[Network], graph: Graph) -> dict[str, Tensor]:
    results = [Potential(n)(graph) for n in networks]
    return {
        name: torch.stack([r[name] for r in results]).mean(dim=0)
        for name in compared_quantities(networks[0])
    }


def mean_isolated_energies(networks: list[Network]) -> Tensor:
    """Energy of one atom of each species without neighbors, float64 [num_species], eV."""
    return torch.stack([isolated_energies(n) for n in networks]).mean(dim=0)


def isolated_energies(model: Network) -> Tensor:
    """Energy of one atom of each species without neighbors, float64 [num_species], eV."""
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
