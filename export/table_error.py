"""What tables of the radial functions change in energies and forces, apart from any rounding."""

from __future__ import annotations

import copy

import torch

from tdn.graph import graph_from_atoms
from tdn.inference.compiled_model import largest
from tdn.inference.network import InferenceNetwork
from tdn.network.base import set_dtype
from tdn.network.convolution_model import ConvolutionModel
from tdn.system.errors import TDNError

from .deployed import deployed_module
from .description import TABLE_ERRORS
from .structures import standard_structures
from .tolerances import BOUND, TABLE_SHARE, ratio


class TablesTooCoarse(TDNError):
    """Tables change energies or forces by more than they may."""


def table_errors(
    model: ConvolutionModel, rewritten: InferenceNetwork, dtype: torch.dtype
) -> dict[str, float]:
    """Largest errors on the standard structures.

    Both networks compute in float64: what differs are the tables.

    Parameters
    ----------
    model : a trained network; it is not changed
    rewritten : the same with tables as fine as those of ``dtype``, in float64; it is not changed
    dtype : precision of the compiled file

    Returns
    -------
    dict
        ``table_energy_error``, relative to the largest energy of interaction of an atom, and
        ``table_forces_error``, relative to the largest gradient by an edge vector.

    Raises
    ------
    TablesTooCoarse
        If one is above `TABLE_SHARE` of the `BOUND` of a compiled file as a whole.
    """
    exact = set_dtype(copy.deepcopy(model), torch.float64).requires_grad_(False).eval()
    networks = [exact, copy.deepcopy(rewritten)]
    for network in networks:  # energies of interaction, without the rounding that E0 adds
        network.atomic_energies.zero_()
    original, tables = (deployed_module([network]) for network in networks)
    errors = dict.fromkeys(TABLE_ERRORS, 0.0)
    for atoms in standard_structures(exact.atomic_numbers, exact.r_max).values():
        graph = graph_from_atoms(atoms, exact.atomic_numbers, exact.r_max)
        edges = graph.species, graph.edge_index, graph.edge_vec, graph.num_atoms
        for name, found, expected in zip(errors, tables(*edges), original(*edges), strict=True):
            errors[name] = max(errors[name], ratio(largest(found - expected), largest(expected)))
    bound = TABLE_SHARE * BOUND[str(dtype).removeprefix("torch.")]
    for name, error in errors.items():
        if error > bound:
            raise TablesTooCoarse(
                f"tables of the radial functions change {name.split('_')[1]} by {error:.1e} "
                f"(relative), allowed {bound:.0e}; no file was written. Export with --no-fused"
            )
    return errors
