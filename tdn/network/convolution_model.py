"""The network: species and edges to energies per atom.

`ConvolutionModel` embeds species, applies `InteractionLayer`s and adds up readouts.
"""

import torch
from torch import Tensor, nn

from tdn.config import ModelConfig
from tdn.cp import load_factors
from tdn.ops import Edges, edge_geometry, exchange

from .base import Network
from .convolution import CPConvolution
from .cp_matrices import CPMatrices, scalar_convolution_factors
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


class InteractionLayer(nn.Module):
    """One message-passing layer: channel mixing, CP convolution, node products, residual, gate.

    Parameters
    ----------
    config : the network's configuration
    l_max_in, l_max_out : highest degrees of the features before and after the layer; the first
        layer sees scalars only, the last gives scalars only
    first : the input is the embedding of the species, known for ghost atoms as well
    """

    def __init__(self, config: ModelConfig, l_max_in: int, l_max_out: int, first: bool) -> None:
        super().__init__()
        channels, l_max = config.num_channels, config.l_max
        num_species = len(config.species)
        factors = load_factors(l_max, paths=config.paths, rank=config.rank)
        shared = config.radial == "shared"
        self.first = first
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
            scalar_convolution_factors(l_max)
            if l_max_in == 0
            else CPMatrices.from_factors(factors),
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
        # the embedding is no message: a residual of it would give isolated atoms an energy
        self.residual = None if first else Residual(num_species, channels, l_max_out)
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
        """Features [n_local, D_in, C] and their scalars [n_local, C] to the next ones.

        The first layer takes the embedding of the species instead, [S, 1, C].
        """
        num_local = edges.centre_ptr.size(0) - 1
        h = self.mix_in(x)
        if self.first:
            h = h.index_select(0, species)
        else:
            h = exchange(h, species.size(0))
        w = self.radial.weights_at(r, pair)
        m = self.mix_message(self.convolution(h, sh, w, edges))
        local_species = species[:num_local]
        y = self.mix_out(self.product(m, local_species))
        if self.residual is not None:
            kept = scalars.unsqueeze(1) if self.components_out == 1 else x
            y = y + self.residual(kept, local_species)
        return self.gate(y)


class ConvolutionModel(Network):
    """Energies per atom, E_i = E0 + scale * (sum of the layers' readouts) [+ ZBL].

    Strictly extensive and smooth: nothing but the atoms within ``r_max`` per layer matters, every
    contribution of an edge vanishes at the cutoff with two derivatives, and an isolated atom keeps
    E0 exactly.

    Parameters
    ----------
    config : with ``species`` and ``avg_num_neighbors`` given
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.embedding = nn.Parameter(torch.randn(self.num_species, config.num_channels))
        self.l_max = config.l_max
        degrees = [0] + [config.l_max] * (config.num_layers - 1) + [0]
        self.layers = nn.ModuleList(
            InteractionLayer(config, degrees[i], degrees[i + 1], first=i == 0)
            for i in range(config.num_layers)
        )
        readouts = [LinearReadout(config.num_channels) for _ in range(config.num_layers - 1)]
        readouts.append(MLPReadout(config.num_channels, config.readout_hidden))
        self.readouts = nn.ModuleList(readouts)

    def forward(self, species: Tensor, edges: Edges, edge_vec: Tensor, num_local: int) -> Tensor:
        """Energies of the first ``num_local`` atoms.

        Parameters
        ----------
        species : int64 [n_all], local atoms first, then ghosts
        edges : sorted edges; centres are local atoms
        edge_vec : float64 [E, 3], angstrom
        num_local : number of atoms whose energies are wanted

        Returns
        -------
        float64 [num_local], eV
        """
        r, sh = edge_geometry(edge_vec, self.l_max, self.embedding.dtype)  # [E], [E, D]
        pair = species[edges.centre] * self.num_species + species[edges.neighbour]
        x = self.embedding.unsqueeze(1)  # [S, 1, C]
        energy = torch.zeros(num_local, dtype=torch.float64, device=edge_vec.device)
        scalars = self.embedding
        for layer, readout in zip(self.layers, self.readouts):
            x, scalars = layer(x, scalars, species, sh, r, pair, edges)
            energy = energy + readout(scalars).to(torch.float64)
        return self.total_energy(energy, species, edges, edge_vec, num_local)
