"""From positions to forces without autograd: a network for inference with its explicit adjoint.

The layers of `.network.InferenceNetwork` run forward, then their adjoints run backward, over a list
of pairs that holds both directions (`tdn/ops/csrc/pairs/pairs.h`). A center reads the features of
its neighbors, and in the adjoint the gradients of their messages; geometry is computed from the
positions wherever it is needed. Buffers follow a plan that is fixed by the numbers of nodes.

With T layers there are T - 1 exchanges of features between processes and T of gradients, all from
owners to ghosts; forces on local atoms are complete.
"""

import torch
from torch import Tensor, nn

from tdn.network.layers import SILU_SCALE, Gate

from .network import InferenceFirstLayer, InferenceLayer, InferenceNetwork
from .radial_table import TABLE_BLOCK


def _padded(weight: Tensor) -> Tensor:
    """Columns padded with zeros to whole vectors of any processor."""
    missing = -weight.size(-1) % TABLE_BLOCK
    return nn.functional.pad(weight, (0, missing)).contiguous()


def _both(weight: Tensor) -> list[Tensor]:
    """A matrix [L, C, C'] and its transpose."""
    return [_padded(weight), _padded(weight.transpose(1, 2))]


class Constants(nn.Module):
    """Tensors in an order."""

    def __init__(self, values: list[Tensor]) -> None:
        super().__init__()
        for k, value in enumerate(values):
            self.register_buffer(f"constant{k}", value.detach())

    def forward(self) -> list[Tensor]:
        tensors: list[Tensor] = []
        for _, value in self.named_buffers():  # TorchScript knows no buffers()
            tensors.append(value)
        return tensors


class PositionLayer(nn.Module):
    """Constants of a layer as the operators take them (`tdn/ops/csrc/pairs/node_tile.h`).

    Parameters
    ----------
    layer : the layer with its product, gate and, unless it is the first, factors and residual
    readout : of its scalars
    following : the next layer, None for the last
    """

    def __init__(
        self,
        layer: InferenceFirstLayer | InferenceLayer,
        readout: nn.Module,
        following: InferenceLayer | None,
    ) -> None:
        super().__init__()
        product = layer.product
        later = isinstance(layer, InferenceLayer)
        none = [layer.table.new_zeros(0)]
        gates = layer.table.new_zeros(product.mix_out.size(1), 0)  # where there is no gate
        if isinstance(layer.gate, Gate):
            gates = layer.gate.gates
        self.edge = Constants(
            [layer.table, *([layer.input1, layer.input2, layer.output] if later else [])]
        )
        self.weights = Constants(
            [
                *_both(product.mix_in),
                *(product.linear, product.left, product.right, product.weight),
                *(x.t().contiguous() for x in (product.input1, product.input2, product.output)),
                *_both(product.mix_out),
                *_both(gates.unsqueeze(0)),
                *([layer.residual_scale.contiguous()] if later else none),
                *(_both(layer.residual_mix) if later else 2 * none),
                readout.weight,
                *(_both(readout.mixing.unsqueeze(0)) if hasattr(readout, "mixing") else 2 * none),
                *(_both(following.mix) if following is not None else 2 * none),
            ]
        )


class PositionNetwork(nn.Module):
    """Energies, forces and virials from positions and a list of pairs.

    Parameters
    ----------
    network : in its final precision; tables are shared with it
    """

    atomic_energies: Tensor
    scale: Tensor
    number: Tensor
    pair_cutoff: Tensor

    def __init__(self, network: InferenceNetwork) -> None:
        super().__init__()
        layers = [network.first, *network.layers]
        readouts = [network.first_readout, *network.readouts]
        following = [*network.layers, None]
        self.layers = nn.ModuleList(map(PositionLayer, layers, readouts, following))
        last = layers[-1]
        self.channels = last.product.linear.size(2)
        self.components = last.product.mix_in.size(0) ** 2
        self.rank = last.input1.size(1) if isinstance(last, InferenceLayer) else 0
        gate_scale = SILU_SCALE if isinstance(last.gate, Gate) else 0.0
        self.numbers = [float(network.r_max), last.stretch, gate_scale, SILU_SCALE]
        self.has_zbl = network.zbl is not None
        none = network.scale.new_zeros(0)
        for name, value in (
            ("atomic_energies", network.atomic_energies),
            ("scale", network.scale),
            ("number", none if network.zbl is None else network.zbl.number),
            ("pair_cutoff", none if network.zbl is None else network.zbl.pair_cutoff),
        ):
            self.register_buffer(name, value.detach())

    def forward(
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
        """Energies, forces and virials of the centers.

        Parameters
        ----------
        positions : float64 [rows, 3], angstrom
        center : int32 [n], row of each center
        pair_ptr : int64 [n + 1], pairs of center i are pair_ptr[i]..pair_ptr[i + 1]
        pair_other : int32 [pairs], row of the other atom; both directions of every pair within the
            cutoff, and any further ones
        node : int32 [rows], center or ghost that a row is an image of, -1 for none
        species : int64 [n_all], of the centers, then of the ghosts
        per_atom : whether virials of atoms are wanted
        workspace : of the network's precision; enlarged if need be, its contents do not matter

        Returns
        -------
        atom_energy : float64 [n], eV
        forces : float64 [n, 3], eV/angstrom, of the sum over the atoms of all processes
        virial : float64 [3, 3], eV; the sum over processes is that of the system
        atom_virial, centroid_virial : float64 [n, 3, 3], or [0, 3, 3]; half of every edge to each
            of its ends, or all of it to the neighbor
        """
        n, n_all, count = center.size(0), species.size(0), len(self.layers)
        channels, components = self.channels, self.components
        edges: list[list[Tensor]] = []
        weights: list[list[Tensor]] = []
        for layer in self.layers:
            edges.append(layer.edge())
            weights.append(layer.weights())
        like, numbers = edges[0][0], self.numbers
        exchanging = n_all > n or torch.ops.tdn.exchanges(positions)

        # the plan: m and z of all layers but the last, features in rank space of all but the first,
        # gradients in rank space of two layers, residual gradients, rows that are exchanged
        rank_row = torch.ops.tdn.pair_row_size(like, self.rank, channels) if count > 1 else 0
        mail_rows = n_all if exchanging else 0
        row = components * channels
        sizes = [n * row, n * row, n_all * rank_row]
        total = (count - 1) * (2 * n * row + n_all * rank_row)
        total += min(count - 1, 2) * n_all * rank_row + n * channels + mail_rows * row
        total += n * row if count > 2 else 0
        if workspace.numel() < total:
            workspace.set_()  # frees the old memory first
            workspace.resize_([total + total // 64])
        parts = workspace[:total].split(
            sizes * (count - 1)
            + [n_all * rank_row] * min(count - 1, 2)
            + [n * channels, mail_rows * row, n * row if count > 2 else 0]
        )
        shape = [n, components, channels]
        first_ranked = 3 * (count - 1)
        last_kept = parts[-3].view(n, 1, channels)
        mail = parts[-2].view(mail_rows, components, channels)
        kept = parts[-1].view(shape) if count > 2 else last_kept
        none = workspace[:0]

        sums = torch.ops.tdn.pair_sums(
            positions, center, pair_ptr, pair_other, node, species, per_atom
        )
        energy = torch.zeros(n, dtype=torch.float64, device=positions.device)
        u, z_before, gate_before = none, none, none
        for t in range(count - 1):
            m, z = parts[3 * t].view(shape), parts[3 * t + 1].view(shape)
            u_next = parts[3 * t + 2].view(n_all, rank_row)
            torch.ops.tdn.pair_forward(
                positions, center, pair_ptr, pair_other, node, species,
                edges[t], weights[t], gate_before, numbers, u, z_before, edges[t + 1][1],
                m, z, energy, u_next, mail,
            )  # fmt: skip
            if exchanging:
                torch.ops.tdn.exchange_(mail, n)
                torch.ops.tdn.pair_project(mail, edges[t + 1][1], n, u_next)
            u, z_before, gate_before = u_next, z, weights[t][11]
        ranked = parts[first_ranked].view(n_all, rank_row) if count > 1 else none
        torch.ops.tdn.pair_last(
            positions, center, pair_ptr, pair_other, node, species,
            edges[count - 1], weights[count - 1], gate_before, numbers, self.scale, u, z_before,
            energy, last_kept, ranked, mail, sums,
        )  # fmt: skip
        for step in range(count - 1):
            t = count - 1 - step
            if exchanging:
                torch.ops.tdn.exchange_(mail, n)
                torch.ops.tdn.pair_project(mail, edges[t][3], n, ranked)
            below = none
            if t > 1:
                below = parts[first_ranked + (step + 1) % 2].view(n_all, rank_row)
            torch.ops.tdn.pair_backward(
                positions, center, pair_ptr, pair_other, node, species,
                edges[t], edges[t - 1], weights[t - 1], numbers, self.scale,
                parts[3 * t - 1].view(n_all, rank_row), ranked,
                parts[3 * t - 3].view(shape), parts[3 * t - 2].view(shape),
                last_kept if step == 0 else kept, kept, below, mail, sums,
            )  # fmt: skip
            ranked = below
        if exchanging:
            torch.ops.tdn.exchange_(mail, n)
            torch.ops.tdn.pair_density_ghosts(
                positions, center, pair_ptr, pair_other, node, species,
                like, numbers, mail, sums,
            )  # fmt: skip
        local_species = species[:n]
        energy = self.atomic_energies[local_species] + self.scale[local_species] * energy
        if self.has_zbl:
            torch.ops.tdn.pair_zbl(
                positions, center, pair_ptr, pair_other, node, species,
                self.number, self.pair_cutoff, energy, sums,
            )  # fmt: skip
        virial = sums[1].sum(0).view(3, 3)
        return (
            energy,
            sums[0].sum(0),
            0.5 * (virial + virial.t()),  # as `assemble`: approximate factors give another part
            sums[2].sum(0).view(-1, 3, 3),
            sums[3].sum(0).view(-1, 3, 3),
        )
