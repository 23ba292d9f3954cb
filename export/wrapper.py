"""The module that is compiled: edges in, energies per atom and edge gradients out."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from tdn.ops import sort_edges


class EnableGrad:
    """`torch.enable_grad` for TorchScript, which knows no such context.

    A caller that switched gradients off gets that state back, also when an error passes through.
    """

    def __init__(self) -> None:
        self.previous = False

    def __enter__(self) -> None:
        self.previous = torch.is_grad_enabled()
        torch.ops.aten.set_grad_enabled(True)

    def __exit__(self, type: Any, value: Any, traceback: Any) -> None:
        torch.ops.aten.set_grad_enabled(self.previous)


class DeployedModel(nn.Module):
    """A network with its own differentiation, free of cells, positions and periodic images.

    Every call runs the same operations whatever the number of atoms and edges, none included:
    ``exchange`` inside the network is collective, so a process without atoms must take part in it,
    forward and backward. No branch may depend on the input before the gradient is taken.

    Parameters
    ----------
    model : maps (species, edges, edge_vec, num_local) to energies per atom in eV
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, species: Tensor, edge_index: Tensor, edge_vec: Tensor, num_local: int
    ) -> tuple[Tensor, Tensor]:
        """Energies of the local atoms and the gradient of their sum.

        Parameters
        ----------
        species : int64 [n_all], index into the model's species; local atoms first, then ghosts
        edge_index : int64 [2, E], centre (non-decreasing, below ``num_local``) and neighbour
        edge_vec : float64 [E, 3], from centre to neighbour, angstrom
        num_local : number of atoms whose energies are wanted

        Returns
        -------
        atom_energy : float64 [num_local], eV
        edge_gradient : float64 [E, 3], dE / d(edge_vec) in eV/angstrom; with ghosts, E is the sum
            over the atoms of all processes
        """
        edges = sort_edges(edge_index, num_local, species.size(0))
        with EnableGrad():
            leaf = edge_vec.detach().requires_grad_(True)
            atom_energy = self.model(species, edges, leaf, num_local)
            gradient = torch.autograd.grad([atom_energy.sum()], [leaf], allow_unused=True)[0]
        if gradient is None:  # a network in which edges do not matter
            gradient = torch.zeros_like(edge_vec)
        return atom_energy.detach(), gradient
