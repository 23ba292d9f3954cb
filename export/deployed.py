"""The modules that are compiled: edges in, energies per atom and edge gradients out."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from tdn.inference.network import InferenceNetwork, inference_network
from tdn.inference.positions import PositionNetwork
from tdn.network.base import Network, model_dtype
from tdn.network.convolution_model import ConvolutionModel
from tdn.ops import sort_edges


def deployed_network(
    model: Network, fused: bool, tables: torch.dtype | None = None, fineness: float = 1.0
) -> tuple[Network, float | None]:
    """A copy of a network in the form in which it is compiled.

    Parameters
    ----------
    model : in the precision of the result
    fused : whether functions of the distance may become tables
    tables : the precision whose tables it gets, if that is another
    fineness : of the tables, see `tdn.inference.radial_table.tabulate`

    Returns
    -------
    network : same calls and results as ``model``, but for the error of tables
    radial_table_error : that error, relative; None where nothing is tabulated
    """
    if fused and isinstance(model, ConvolutionModel):
        network = inference_network(model, model_dtype(model), tables, fineness)
        return network, network.table_error
    return copy.deepcopy(model), None


def deployed_module(networks: list[Network], positions: bool = False) -> nn.Module:
    """The module that is compiled for one network, or for a committee of several.

    With ``positions`` those that were rewritten for inference also start from positions.
    """
    if positions and all(isinstance(network, InferenceNetwork) for network in networks):
        together = [PositionModel(network) for network in networks]
        return together[0] if len(together) == 1 else PositionCommittee(together)
    members = [DirectModel(n) if n.direct_forces else DeployedModel(n) for n in networks]
    return members[0] if len(members) == 1 else CommitteeModel(members)


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
        edge_index : int64 [2, E], center (non-decreasing, below ``num_local``) and neighbor
        edge_vec : float64 [E, 3], from center to neighbor, angstrom
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


class PositionModel(DeployedModel):
    """A network with two functions: from edges, as `DeployedModel`, and from positions."""

    def __init__(self, model: InferenceNetwork) -> None:
        super().__init__(model)
        self.positions = PositionNetwork(model)

    @torch.jit.export
    def from_positions(
        self,
        positions: Tensor,
        center: Tensor,
        pair_ptr: Tensor,
        pair_other: Tensor,
        node: Tensor,
        species: Tensor,
        per_atom: bool,
        workspace: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """See `tdn.inference.positions.PositionNetwork`."""
        with torch.no_grad():
            return self.positions(
                positions, center, pair_ptr, pair_other, node, species, per_atom, workspace
            )


class DirectModel(nn.Module):
    """A network that gives forces itself: nothing is differentiated.

    Parameters
    ----------
    model : has ``energies_and_forces(species, edges, edge_vec, num_local)``
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, species: Tensor, edge_index: Tensor, edge_vec: Tensor, num_local: int
    ) -> tuple[Tensor, Tensor]:
        """Energies and forces of the local atoms; parameters as for `DeployedModel`.

        Returns
        -------
        atom_energy : float64 [num_local], eV
        forces : float64 [num_local, 3], eV/angstrom
        """
        edges = sort_edges(edge_index, num_local, species.size(0))
        with torch.no_grad():
            return self.model.energies_and_forces(species, edges, edge_vec, num_local)


class CommitteeModel(nn.Module):
    """Several networks for the same species and cutoff, evaluated one after another.

    Exchanges happen in the order of the members, the same on every process.

    Parameters
    ----------
    members : `DeployedModel` or `DirectModel`, all of one kind
    """

    def __init__(self, members: list[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(
        self, species: Tensor, edge_index: Tensor, edge_vec: Tensor, num_local: int
    ) -> tuple[Tensor, Tensor]:
        """Means over the members; parameters and results as for one member."""
        results = self.forward_members(species, edge_index, edge_vec, num_local)
        return results[0].mean(0), results[1].mean(0)

    @torch.jit.export
    def forward_members(
        self, species: Tensor, edge_index: Tensor, edge_vec: Tensor, num_local: int
    ) -> tuple[Tensor, Tensor]:
        """The results of every member: float64 [n, num_local] and [n, E, 3], or with direct
        forces [n, num_local, 3]."""
        energies: list[Tensor] = []
        gradients_or_forces: list[Tensor] = []
        for member in self.members:
            atom_energy, gradient_or_forces = member(species, edge_index, edge_vec, num_local)
            energies.append(atom_energy)
            gradients_or_forces.append(gradient_or_forces)
        return torch.stack(energies), torch.stack(gradients_or_forces)


class PositionCommittee(CommitteeModel):
    """A committee of `PositionModel`."""

    @torch.jit.export
    def from_positions(
        self,
        positions: Tensor,
        center: Tensor,
        pair_ptr: Tensor,
        pair_other: Tensor,
        node: Tensor,
        species: Tensor,
        per_atom: bool,
        workspace: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Means over the members; parameters and results as for one."""
        results = self.members_from_positions(
            positions, center, pair_ptr, pair_other, node, species, per_atom, workspace
        )
        return (
            results[0].mean(0),
            results[1].mean(0),
            results[2].mean(0),
            results[3].mean(0),
            results[4].mean(0),
        )

    @torch.jit.export
    def members_from_positions(
        self,
        positions: Tensor,
        center: Tensor,
        pair_ptr: Tensor,
        pair_other: Tensor,
        node: Tensor,
        species: Tensor,
        per_atom: bool,
        workspace: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """The results of every member, with a first dimension n."""
        results: list[list[Tensor]] = [[], [], [], [], []]
        for member in self.members:
            found = member.from_positions(
                positions, center, pair_ptr, pair_other, node, species, per_atom, workspace
            )
            for k, value in enumerate(found):
                results[k].append(value)
        return (
            torch.stack(results[0]),
            torch.stack(results[1]),
            torch.stack(results[2]),
            torch.stack(results[3]),
            torch.stack(results[4]),
        )
