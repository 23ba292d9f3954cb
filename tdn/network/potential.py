"""Energies to forces, virial and stress: the only place that differentiates."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tdn.graph import Graph
from tdn.ops import sort_edges


def assemble_forces(edge_gradient: Tensor, edge_index: Tensor, num_atoms: int) -> Tensor:
    """Forces from g = dE / d(edge_vec): f_i += g on centres, f_j -= g on neighbours.

    Parameters
    ----------
    edge_gradient : [E, 3], eV/angstrom
    edge_index : int64 [2, E]

    Returns
    -------
    [num_atoms, 3], eV/angstrom
    """
    forces = edge_gradient.new_zeros(num_atoms, 3)
    return forces.index_add(0, edge_index[0], edge_gradient).index_add(
        0, edge_index[1], -edge_gradient
    )


def assemble_virial(
    edge_gradient: Tensor, edge_vec: Tensor, edge_graph: Tensor, num_graphs: int
) -> Tensor:
    """Virial W = -dE / d(strain) = -sum over edges of r (x) g, symmetrised.

    Parameters
    ----------
    edge_gradient, edge_vec : [E, 3]
    edge_graph : int64 [E], which structure an edge belongs to

    Returns
    -------
    [num_graphs, 3, 3], eV
    """
    outer = edge_vec.unsqueeze(2) * edge_gradient.unsqueeze(1)  # [E, 3, 3]
    virial = outer.new_zeros(num_graphs, 3, 3).index_add(0, edge_graph, -outer)
    # exactly symmetric for a rotation-invariant energy; rounding breaks it
    return 0.5 * (virial + virial.transpose(1, 2))


class Potential(nn.Module):
    """A network with everything that derives from its energies.

    A network with ``direct_forces`` gives forces itself (see `.attention_model`): they are
    returned as they are, and there is no virial then.

    Parameters
    ----------
    model : maps (species, edges, edge_vec, num_local) to energies per atom in eV
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, graph: Graph, training: bool = False, virial: bool = True
    ) -> dict[str, Tensor]:
        """Evaluate a graph (one structure or a batch).

        Parameters
        ----------
        graph : structures within the model's cutoff
        training : keep the graph of the derivatives, so that a loss on forces can be minimised
        virial : without it ``virial`` and ``stress`` are left out, which saves a little time

        Returns
        -------
        dict
            ``energy`` [B] eV, ``atom_energy`` [N] eV, ``forces`` [N, 3] eV/angstrom, ``virial``
            [B, 3, 3] eV, ``stress`` [B, 3, 3] eV/angstrom^3 (-W / V, the sign of ASE; NaN where a
            structure has no volume); all float64. With direct forces ``virial`` and ``stress`` are
            NaN.
        """
        if getattr(self.model, "direct_forces", False):
            return self._direct(graph, training)
        edges = sort_edges(graph.edge_index, graph.num_atoms, graph.num_atoms)
        edge_vec = graph.edge_vec.requires_grad_(True)
        with torch.enable_grad():
            atom_energy = self.model(graph.species, edges, edge_vec, graph.num_atoms)
            (gradient,) = torch.autograd.grad(
                atom_energy.sum(), edge_vec, create_graph=training, allow_unused=True
            )
        if gradient is None:  # no edge at all
            gradient = torch.zeros_like(edge_vec)
        if not training:
            atom_energy = atom_energy.detach()
        energy = atom_energy.new_zeros(graph.num_graphs).index_add(0, graph.batch, atom_energy)
        result = {
            "energy": energy,
            "atom_energy": atom_energy,
            "forces": assemble_forces(gradient, graph.edge_index, graph.num_atoms),
        }
        if virial:
            edge_graph = graph.batch[graph.edge_index[0]]
            tensor = assemble_virial(gradient, edge_vec.detach(), edge_graph, graph.num_graphs)
            volume = torch.where(graph.volume > 0, graph.volume, torch.nan)
            result["virial"] = tensor
            result["stress"] = -tensor / volume.view(-1, 1, 1)
        return result

    def _direct(self, graph: Graph, training: bool) -> dict[str, Tensor]:
        """The same for a network that gives forces itself; nothing is differentiated."""
        edges = sort_edges(graph.edge_index, graph.num_atoms, graph.num_atoms)
        with torch.set_grad_enabled(training):
            atom_energy, forces = self.model.energies_and_forces(
                graph.species, edges, graph.edge_vec, graph.num_atoms
            )
        missing = atom_energy.new_full((graph.num_graphs, 3, 3), torch.nan)
        return {
            "energy": atom_energy.new_zeros(graph.num_graphs).index_add(
                0, graph.batch, atom_energy
            ),
            "atom_energy": atom_energy,
            "forces": forces,
            "virial": missing,
            "stress": missing.clone(),
        }
