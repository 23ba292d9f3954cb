"""The network: species and edges to energies per atom.

`ConvolutionModel` embeds species, applies a `FirstLayer` and `InteractionLayer`s, and adds up
readouts.
"""

import torch
from torch import Tensor, nn

from tdn.config import ModelConfig
from tdn.ops import Edges, edge_geometry, exchange

from .base import Network
from .convolution import CPConvolution
from .cp_matrices import CPMatrices
from .layers import (
    DegreeLinear,
    DegreeScale,
    Gate,
    LinearReadout,
    MLPReadout,
    NoGate,
    num_components,
)
from .node_product import NodeProduct
from .radial import RadialNetwork


class Residual(nn.Module):
    """A linear map of a layer's input whose weights depend on the species."""

    def __init__(self, num_species: int, num_channels: int, l_max: int) -> None:
        super().__init__()
        self.scale = DegreeScale(num_species, num_channels, l_max, 1.0, 0.2)
        self.mix = DegreeLinear(num_channels, num_channels, l_max)

    def forward(self, x: Tensor, species: Tensor) -> Tensor:  # [N, D, C], [N] -> [N, D, C]
        return self.mix(self.scale(x, species))


class _Layer(nn.Module):
    """What all layers have: CP convolution, node products and channel mixing.

    Parameters
    ----------
    config : the network's configuration
    factors : the CP matrices of the couplings
    l_max_in, l_max_out : highest degrees of the features before and after the layer
    """

    def __init__(
        self, config: ModelConfig, factors: CPMatrices, l_max_in: int, l_max_out: int
    ) -> None:
        super().__init__()
        channels, l_max = config.num_channels, config.l_max
        num_species = len(config.species)
        shared = config.radial == "shared"
        self.radial = RadialNetwork(
            config.r_max,
            config.envelope,
            config.num_radial,
            config.radial_hidden,
            1 if shared else l_max + 1,
            channels,
            num_species,
            config.radial_decay,
            config.radial_smoothness,
        )
        self.convolution = CPConvolution(
            CPMatrices.of_scalars(l_max) if l_max_in == 0 else factors.up_to(l_max),
            l_max,
            shared,
            config.avg_num_neighbors,
        )
        self.mix_in = DegreeLinear(channels, channels, l_max_in)
        self.mix_message = DegreeLinear(channels, channels, l_max)
        self.product = NodeProduct(
            num_species, channels, l_max, l_max_out, config.correlation, factors
        )
        self.mix_out = DegreeLinear(channels, channels, l_max_out)

    def interact(
        self, h: Tensor, species: Tensor, sh: Tensor, r: Tensor, pair: Tensor, edges: Edges
    ) -> Tensor:
        """Mixed features of all atoms [n_all, D_in, C] -> [n_local, D_out, C], before the gate."""
        w = self.radial.weights_at(r, pair)
        m = self.mix_message(self.convolution(h, sh, w, edges))
        return self.mix_out(self.product(m, species[: m.size(0)]))


class FirstLayer(_Layer):
    """The layer whose input is the embedding of the species, known for ghost atoms as well.

    It has no residual: the embedding is no message and would give isolated atoms an energy.
    """

    def __init__(self, config: ModelConfig, factors: CPMatrices, l_max_out: int) -> None:
        super().__init__(config, factors, 0, l_max_out)
        self.gate = Gate(config.num_channels, l_max_out) if config.gate else NoGate()

    def forward(
        self,
        x: Tensor,
        scalars: Tensor,
        species: Tensor,
        sh: Tensor,
        r: Tensor,
        pair: Tensor,
        edges: Edges,
    ) -> tuple[Tensor, Tensor]:
        """Embedding [S, 1, C] -> features [n_local, D_out, C] and their scalars [n_local, C].

        It does not need ``scalars``; all layers are called alike.
        """
        h = self.mix_in(x).index_select(0, species)
        return self.gate(self.interact(h, species, sh, r, pair, edges))


class InteractionLayer(_Layer):
    """A later layer: the features of the neighbors, and a residual of the atom's own."""

    def __init__(self, config: ModelConfig, factors: CPMatrices, l_max_out: int) -> None:
        super().__init__(config, factors, config.l_max, l_max_out)
        channels = config.num_channels
        self.residual = Residual(len(config.species), channels, l_max_out)
        self.gate = Gate(channels, l_max_out) if config.gate else NoGate()
        self.components_out = num_components(l_max_out)

    def forward(
        self,
        x: Tensor,
        scalars: Tensor,
        species: Tensor,
        sh: Tensor,
        r: Tensor,
        pair: Tensor,
        edges: Edges,
    ) -> tuple[Tensor, Tensor]:
        """Features [n_local, D_in, C] and their scalars [n_local, C] to the next ones."""
        h = exchange(self.mix_in(x), species.size(0))
        y = self.interact(h, species, sh, r, pair, edges)
        kept = scalars.unsqueeze(1) if self.components_out == 1 else x
        return self.gate(y + self.residual(kept, species[: y.size(0)]))


class ConvolutionModel(Network):
    """Energies per atom, E_i = E0 + scale * (sum of the layers' readouts) [+ ZBL].

    Strictly extensive and smooth: nothing but the atoms within ``r_max`` per layer matters, every
    contribution of an edge vanishes at the cutoff with two derivatives, and an isolated atom keeps
    E0 exactly.

    Parameters
    ----------
    config : with ``species`` and ``avg_num_neighbors`` given
    factors : the CP matrices of the couplings; every layer has its own copy
    """

    def __init__(self, config: ModelConfig, factors: CPMatrices) -> None:
        super().__init__(config)
        self.embedding = nn.Parameter(torch.randn(self.num_species, config.num_channels))
        self.l_max = config.l_max
        first, *later = [config.l_max] * (config.num_layers - 1) + [0]  # the last gives scalars
        self.layers = nn.ModuleList([FirstLayer(config, factors, first)])
        self.layers.extend(InteractionLayer(config, factors, l_max_out) for l_max_out in later)
        readouts = [LinearReadout(config.num_channels) for _ in range(config.num_layers - 1)]
        readouts.append(MLPReadout(config.num_channels, config.readout_hidden))
        self.readouts = nn.ModuleList(readouts)

    def forward(self, species: Tensor, edges: Edges, edge_vec: Tensor, num_local: int) -> Tensor:
        """Energies of the first ``num_local`` atoms.

        Parameters
        ----------
        species : int64 [n_all], local atoms first, then ghosts
        edges : sorted edges; centers are local atoms
        edge_vec : float64 [E, 3], angstrom
        num_local : number of atoms whose energies are wanted

        Returns
        -------
        float64 [num_local], eV
        """
        r, sh = edge_geometry(edge_vec, self.l_max, self.embedding.dtype)  # [E], [E, D]
        pair = species[edges.center] * self.num_species + species[edges.neighbor]
        x, scalars = self.embedding.unsqueeze(1), self.embedding  # [S, 1, C], [S, C]
        energy = torch.zeros(num_local, dtype=torch.float64, device=edge_vec.device)
        for layer, readout in zip(self.layers, self.readouts):
            x, scalars = layer(x, scalars, species, sh, r, pair, edges)
            energy = energy + readout(scalars).to(torch.float64)
        return self.total_energy(energy, species, edges, edge_vec, num_local)
