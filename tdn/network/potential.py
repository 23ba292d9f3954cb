"""Energies and their gradients by edges to forces and virials: the one assembly of all networks.

What a network gives, eager or compiled, is energies per atom and the gradient by the edge vectors,
or forces by themselves. `assemble` makes of it what users want; stress is what calculators and
labels call -W / V (`stress_of_virial`) and is used nowhere else.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tdn.graph import Graph


def assemble(
    atom_energy: Tensor,
    gradient_or_forces: Tensor,
    edge_index: Tensor,
    edge_vec: Tensor,
    batch: Tensor,
    num_graphs: int,
    *,
    direct_forces: bool = False,
    virial: bool = True,
) -> dict[str, Tensor]:
    """Sums over atoms and edges, for one structure or a batch.

    With g = dE / d(edge_vec): f_i += g on centers, f_j -= g on neighbors, and the virial is
    W = -dE / d(strain) = -sum over edges of r (x) g, symmetrized because of rounding. Direct forces
    are taken as they are and have no virial.

    Parameters
    ----------
    atom_energy : [N], eV
    gradient_or_forces : gradient by the edge vectors [E, 3] or direct forces [N, 3], eV/angstrom
    edge_index : int64 [2, E], center and neighbor
    edge_vec : [E, 3], angstrom
    batch : int64 [N], which structure an atom belongs to
    num_graphs : number B of structures
    direct_forces : whether forces are given
    virial : without it ``virial`` is left out, which saves a little time

    Returns
    -------
    dict
        ``energy`` [B] eV, ``atom_energy`` [N] eV, ``forces`` [N, 3] eV/angstrom and ``virial``
        [B, 3, 3] eV, which is NaN with direct forces.
    """
    energy = atom_energy.new_zeros(num_graphs).index_add(0, batch, atom_energy)
    result = {"energy": energy, "atom_energy": atom_energy}
    no_virial = atom_energy.new_zeros(num_graphs, 3, 3)
    if direct_forces:
        result["forces"] = gradient_or_forces
        if virial:
            result["virial"] = no_virial.fill_(torch.nan)
        return result
    center, neighbor = edge_index
    no_forces = atom_energy.new_zeros(len(batch), 3)
    result["forces"] = no_forces.index_add(0, center, gradient_or_forces).index_add(
        0, neighbor, -gradient_or_forces
    )
    if virial:
        outer = edge_vec.unsqueeze(2) * gradient_or_forces.unsqueeze(1)  # [E, 3, 3]
        tensor = no_virial.index_add(0, batch[center], -outer)
        result["virial"] = 0.5 * (tensor + tensor.transpose(1, 2))
    return result


def stress_of_virial(virial: Tensor, volume: Tensor) -> Tensor:
    """Stress -W / V in the sign of ASE, eV/angstrom^3; NaN where a structure has no volume.

    Parameters
    ----------
    virial : [B, 3, 3], eV
    volume : [B], angstrom^3
    """
    return -virial / torch.where(volume > 0, volume, torch.nan).view(-1, 1, 1)


def virial_of_stress(stress: Tensor, volume: Tensor) -> Tensor:
    """The inverse of `stress_of_virial`, [B, 3, 3] in eV."""
    return -stress * volume.view(-1, 1, 1)


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
        training : keep the graph of the derivatives, so that a loss on forces can be minimized
        virial : without it ``virial`` is left out, which saves a little time

        Returns
        -------
        dict
            ``energy``, ``atom_energy``, ``forces`` and ``virial`` as from `assemble`, all float64.
        """
        direct = self.model.direct_forces
        evaluate = self._energies_and_forces if direct else self._energies_and_gradient
        edge_vec = graph.edge_vec
        return assemble(
            *evaluate(graph, edge_vec, training),
            graph.edge_index,
            edge_vec.detach(),
            graph.batch,
            graph.num_graphs,
            direct_forces=direct,
            virial=virial,
        )

    def _energies_and_gradient(
        self, graph: Graph, edge_vec: Tensor, training: bool
    ) -> tuple[Tensor, Tensor]:
        edge_vec.requires_grad_(True)
        with torch.enable_grad():
            atom_energy = self.model(graph.species, graph.edges, edge_vec, graph.num_atoms)
            (gradient,) = torch.autograd.grad(
                atom_energy.sum(), edge_vec, create_graph=training, allow_unused=True
            )
        if gradient is None:  # no edge at all
            gradient = torch.zeros_like(edge_vec)
        return atom_energy if training else atom_energy.detach(), gradient

    def _energies_and_forces(
        self, graph: Graph, edge_vec: Tensor, training: bool
    ) -> tuple[Tensor, Tensor]:
        """Of a network that gives forces itself; nothing is differentiated."""
        with torch.set_grad_enabled(training):
            return self.model.energies_and_forces(
                graph.species, graph.edges, edge_vec, graph.num_atoms
            )
