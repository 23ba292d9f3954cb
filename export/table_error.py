"""What tables of the radial functions change in energies and forces, apart from any rounding."""

from __future__ import annotations

import copy

import torch

from tdn.errors import TDNError
from tdn.fused import tabulated
from tdn.graph import Graph, graph_from_atoms
from tdn.model import ConvolutionModel
from tdn.network import Network, set_dtype
from tdn.ops import sort_edges

from .metadata import TABLE_ERRORS
from .structures import standard_structures
from .verify import BOUND


def table_errors(model: ConvolutionModel, dtype: torch.dtype) -> dict[str, float]:
    """Largest errors on the standard structures, of tables as fine as those of ``dtype``.

    Both networks compute in float64: what differs are the tables.

    Parameters
    ----------
    model : a trained network; it is not changed
    dtype : precision of the compiled file

    Returns
    -------
    dict
        ``table_energy_error``, relative to the largest energy of interaction of an atom, and
        ``table_forces_error``, relative to the largest gradient by an edge vector.

    Raises
    ------
    TDNError
        If one is above what `tdn_export.verify.BOUND` allows a compiled file as a whole. Those of
        trained networks are below a tenth of it; random ones may come closer.
    """
    exact = set_dtype(copy.deepcopy(model), torch.float64).requires_grad_(False).eval()
    tables = tabulated(exact, dtype)
    largest = dict.fromkeys(TABLE_ERRORS, 0.0)
    for atoms in standard_structures(exact.atomic_numbers, exact.r_max).values():
        graph = graph_from_atoms(atoms, exact.atomic_numbers, exact.r_max)
        if graph.edge_index.size(1) == 0:
            continue
        for name, found, expected in zip(
            largest, _evaluate(tables, graph), _evaluate(exact, graph), strict=True
        ):
            error = (found - expected).abs().max() / expected.abs().max()
            largest[name] = max(largest[name], float(error))
    bound = BOUND[str(dtype).removeprefix("torch.")]
    for name, error in largest.items():
        if not error <= bound:
            raise TDNError(
                f"tables of the radial functions change {name.split('_')[1]} by {error:.1e} "
                f"(relative), allowed {bound:.0e}; no file was written. Export with --no-fused"
            )
    return largest


def _evaluate(model: Network, graph: Graph) -> tuple[torch.Tensor, torch.Tensor]:
    """Energies of interaction [N] in eV and their gradients by the edge vectors [E, 3]."""
    edges = sort_edges(graph.edge_index, graph.num_atoms, graph.num_atoms)
    edge_vec = graph.edge_vec.requires_grad_(True)
    energy = model(graph.species, edges, edge_vec, graph.num_atoms)
    (gradient,) = torch.autograd.grad(energy.sum(), edge_vec)
    return energy.detach() - model.atomic_energies[graph.species], gradient
