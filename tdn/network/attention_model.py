r"""The published network: an equivariant graph transformer with CP products.

Lin, Fu et al., arXiv 2507.01131, built on Equiformer (Liao and Smidt, arXiv 2206.11990). A message
from j to i is, with w = w(r_ij), Y = Y(r_ij) and x a CP product channel by channel,

    z_ij = ((S x_j + T x_i) x Y) w           merge, first product
    s_ij = a . leaky_relu(A z_ij)            logits per head, from the scalars
    v_ij = (gate(V z_ij) x Y) w              value, second product with the same weights
    x_i <- x_i + P sum_j softmax_j(s_ij) v_ij

For molecular dynamics everything that an edge contributes carries a polynomial envelope (inside
the softmax in numerator and denominator, the latter with a constant), and the energy of an atom
is counted from what the same network gives for the isolated atom:

    E_i = E0 + scale (e(x_i) - e(x_isolated))

The preset ``paper`` takes these away again, and takes the constants and the initial weights of the
released code (``constants: released``).
"""

import math

import torch
from torch import Tensor, nn

from tdn.config import ModelConfig
from tdn.ops import Edges, edge_message, edge_product, exchange, scalar_message

from .attention_initialization import draw_released_weights
from .attention_layers import (
    EnergyHead,
    EquivariantLayerNorm,
    FeedForward,
    GatedLinear,
    SharedLinear,
    activation_scales,
    neighbor_softmax,
    pad_degrees,
    smooth_leaky_relu,
)
from .attention_radial import GaussianBasis, RadialProfile
from .base import Network
from .cp_matrices import CPMatrices
from .layers import num_components
from .radial import PolynomialEnvelope


class HardCutoff(nn.Module):
    """One for every edge: the energy jumps when an atom crosses the cutoff."""

    def forward(self, r: Tensor) -> Tensor:
        return torch.ones_like(r)


class DegreeEmbedding(nn.Module):
    """Features from the number and directions of neighbors, whatever their species.

    A sum of messages from constant scalars, over the square root of the mean number of neighbors.
    """

    def __init__(self, config: ModelConfig, avg_num_neighbors: float) -> None:
        super().__init__()
        channels = config.num_channels
        self.expand = SharedLinear(channels, channels)
        self.radial = RadialProfile(config.num_gaussians, config.radial_hidden, channels)
        self.projection = SharedLinear(channels, channels, bias=False)
        self.bias = nn.Parameter(torch.zeros(channels))
        self.norm = 1 / math.sqrt(avg_num_neighbors)

    def forward(
        self, matrix: Tensor, basis: Tensor, envelope: Tensor, edges: Edges, num_all: int
    ) -> Tensor:
        """Matrices of the edges [E, D, D], [E, B], [E] -> [num_local, D, C]."""
        ones = torch.ones(1, 1, self.bias.size(0), dtype=basis.dtype, device=basis.device)
        u = self.expand(ones).repeat(num_all, 1, 1)  # [num_all, 1, C]
        w = self.radial(basis) * envelope.unsqueeze(1)  # [E, C]
        # scalars need the first column of the matrices only
        message = scalar_message(u, matrix[:, :, 0], w.unsqueeze(1), edges)  # [num_local, D, C]
        degree = torch.zeros_like(message[:, 0, 0]).index_add(0, edges.center, envelope)
        y = self.projection(message)
        scalars = y[:, :1] + degree.view(-1, 1, 1) * self.bias  # one bias from each neighbor
        return torch.cat([scalars, y[:, 1:]], dim=1) * self.norm


class GraphAttention(nn.Module):
    """Attention over neighbors with two CP products and one set of radial weights.

    Parameters
    ----------
    config : the network's configuration
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        channels, heads = config.num_channels, config.num_heads
        self.num_heads = heads
        self.head_width = channels // heads
        self.merge_source = SharedLinear(channels, channels)
        self.merge_target = SharedLinear(channels, channels, bias=False)
        self.radial = RadialProfile(config.num_gaussians, config.radial_hidden, channels)
        self.logit_mixing = nn.Parameter(torch.randn(channels, channels) / math.sqrt(channels))
        self.logit_bias = nn.Parameter(torch.zeros(channels))
        self.logit_weight = nn.Parameter(
            torch.randn(heads, self.head_width) / math.sqrt(self.head_width)
        )
        self.dropout = config.attention_dropout
        # what the softmax gives to no neighbor at all; the hard cutoff has the ordinary softmax
        self.softmax_constant = 0.0 if config.envelope is None else 1.0
        self.value = GatedLinear(channels, *activation_scales(config))
        self.projection = SharedLinear(channels, channels)

    def forward(
        self,
        x: Tensor,
        matrix: Tensor,
        basis: Tensor,
        envelope: Tensor,
        edges: Edges,
        num_all: int,
    ) -> Tensor:
        """Attend from local atoms to their neighbors.

        Parameters
        ----------
        x : [num_rows, D, C], local atoms first, then rows without neighbors
        matrix : [E, D, D], coupling tensor times spherical harmonics
        basis : [E, B], radial basis
        envelope : [E]
        num_all : local atoms and ghosts

        Returns
        -------
        [num_rows, D, C]
        """
        num_local = edges.center_ptr.size(0) - 1
        source = exchange(self.merge_source(x[:num_local]), num_all)
        target = self.merge_target(x[:num_local])
        w = self.radial(basis)  # [E, C]
        scalars, rest = edge_product(source, target, matrix, w, edges)  # z, [E, C], [E, D - 1, C]

        logits = torch.addmm(self.logit_bias, scalars, self.logit_mixing)
        logits = smooth_leaky_relu(logits.view(logits.size(0), self.num_heads, self.head_width))
        logits = (logits * self.logit_weight).sum(dim=2)  # [E, H]
        attention = neighbor_softmax(logits, envelope, edges, self.softmax_constant)
        attention = nn.functional.dropout(attention, self.dropout, self.training)

        # second product and sum over neighbors in one; gates are part of the weights
        scalars, rest, gates = self.value.apart(scalars, rest)
        w = w.view(w.size(0), self.num_heads, self.head_width) * attention.unsqueeze(2)
        w = w.flatten(1)  # [E, C]
        w = torch.stack([w, w * gates], dim=1)
        y = edge_message(scalars, rest, matrix, w, edges)  # [num_local, D, C]
        alone = y.new_zeros(x.size(0) - num_local, y.size(1), y.size(2))
        return self.projection(torch.cat([y, alone]))


class TransformerBlock(nn.Module):
    """Pre-norm attention and gated feed-forward, each with a residual."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        channels, l_max, epsilon = config.num_channels, config.l_max, config.layer_norm_epsilon
        self.norm1 = EquivariantLayerNorm(channels, l_max, epsilon)
        self.attention = GraphAttention(config)
        self.norm2 = EquivariantLayerNorm(channels, l_max, epsilon)
        self.feed_forward = FeedForward(config)

    def forward(
        self,
        x: Tensor,
        matrix: Tensor,
        basis: Tensor,
        envelope: Tensor,
        edges: Edges,
        num_all: int,
    ) -> Tensor:
        x = x + self.attention(self.norm1(x), matrix, basis, envelope, edges, num_all)
        return x + self.feed_forward(self.norm2(x))


class ForceHead(nn.Module):
    """Attention of its own, then one vector per atom from the features of degree one."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        channels = config.num_channels
        self.attention = GraphAttention(config)
        self.weight = nn.Parameter(torch.randn(channels) / math.sqrt(channels))

    def forward(
        self,
        x: Tensor,
        matrix: Tensor,
        basis: Tensor,
        envelope: Tensor,
        edges: Edges,
        num_all: int,
    ) -> Tensor:  # [num_rows, 3], in the order x, y, z of e3nn's harmonics of degree one
        y = self.attention(x, matrix, basis, envelope, edges, num_all)
        return y[:, 1:4] @ self.weight


def _without_copies(module: nn.Module, state: dict[str, Tensor], prefix: str, *_: object) -> None:
    """Earlier checkpoints name the factors again in every layer; the network holds them once."""
    for name in [n for n in state if n.startswith(prefix) and ".factors." in n[len(prefix) :]]:
        del state[name]


class AttentionModel(Network):
    """Energies per atom, and with ``forces: direct`` forces, from a graph transformer.

    Parameters
    ----------
    config : with ``species`` and ``avg_num_neighbors`` given
    factors : the CP matrices of the couplings, the same for all layers
    """

    def __init__(self, config: ModelConfig, factors: CPMatrices) -> None:
        super().__init__(config)
        channels, l_max = config.num_channels, config.l_max
        self.components = num_components(l_max)
        self.direct_forces = config.forces == "direct"
        self.subtract_isolated = config.subtract_isolated
        self.factors = factors
        self.register_load_state_dict_pre_hook(_without_copies)
        self.embedding = nn.Parameter(torch.randn(self.num_species, channels))
        from e3nn.o3 import SphericalHarmonics  # seconds, which other networks need not wait for

        self.spherical_harmonics = SphericalHarmonics(
            list(range(l_max + 1)), normalize=True, normalization="component"
        )
        self.basis = GaussianBasis(config.r_max, config.num_gaussians)
        hard = config.envelope is None
        self.envelope = HardCutoff() if hard else PolynomialEnvelope(config.r_max, config.envelope)
        self.degree_embedding = DegreeEmbedding(config, config.avg_num_neighbors)
        self.blocks = nn.ModuleList(TransformerBlock(config) for _ in range(config.num_layers))
        self.norm = EquivariantLayerNorm(channels, l_max, config.layer_norm_epsilon)
        self.energy_head = EnergyHead(config)
        self.energy_factor = 1 / math.sqrt(config.avg_num_atoms or 1.0)
        self.force_head = ForceHead(config) if self.direct_forces else None
        if config.constants == "released":
            draw_released_weights(self)

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
        x, _, _, _ = self._features(species, edges, edge_vec, num_local)
        return self._energies(x, species, edges, edge_vec, num_local)

    @torch.jit.export
    def energies_and_forces(
        self, species: Tensor, edges: Edges, edge_vec: Tensor, num_local: int
    ) -> tuple[Tensor, Tensor]:
        """Energies and direct forces of the first ``num_local`` atoms; for ``forces: direct``.

        The forces come from features of degree one. They are no gradient of the energy: molecular
        dynamics with them does not conserve it, and there is no virial.

        Returns
        -------
        energies : float64 [num_local], eV
        forces : float64 [num_local, 3], eV/angstrom
        """
        if self.force_head is None:
            raise RuntimeError("a network with forces: gradient has no direct forces")
        x, matrix, basis, envelope = self._features(species, edges, edge_vec, num_local)
        energy = self._energies(x, species, edges, edge_vec, num_local)
        forces = self.force_head(x, matrix, basis, envelope, edges, species.size(0))
        forces = forces[:num_local].to(torch.float64)
        return energy, self.scale[species[:num_local]].unsqueeze(1) * forces

    def _features(
        self, species: Tensor, edges: Edges, edge_vec: Tensor, num_local: int
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Features [num_rows, D, C], matrices [E, D, D], basis [E, B] and envelope [E] of edges.

        Rows are the local atoms and, if wanted, one isolated atom of each species.
        """
        vectors = edge_vec.to(self.embedding.dtype)
        r = torch.linalg.vector_norm(vectors, dim=1)
        matrix = self.factors.matrices(self.spherical_harmonics(vectors))  # [E, D, D]
        basis = self.basis(r)
        envelope = self.envelope(r)
        num_all = species.size(0)
        scalars = self.embedding[species[:num_local]]
        x = pad_degrees(scalars, self.components) + self.degree_embedding(
            matrix, basis, envelope, edges, num_all
        )
        if self.subtract_isolated:
            x = torch.cat([x, pad_degrees(self.embedding, self.components)])
        for block in self.blocks:
            x = block(x, matrix, basis, envelope, edges, num_all)
        return self.norm(x), matrix, basis, envelope

    def _energies(
        self, x: Tensor, species: Tensor, edges: Edges, edge_vec: Tensor, num_local: int
    ) -> Tensor:
        local_species = species[:num_local]
        rows = self.energy_head(x[:, 0]) * self.energy_factor
        energy = rows[:num_local]
        if self.subtract_isolated:
            # without neighbors both terms are equal up to rounding: exactly zero is wanted
            alone = edges.center_ptr[1:] == edges.center_ptr[:-1]
            energy = energy - rows[num_local:][local_species]
            energy = torch.where(alone, torch.zeros_like(energy), energy)
        energy = energy.to(torch.float64)
        return self.total_energy(energy, species, edges, edge_vec, num_local)
