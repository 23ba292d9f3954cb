"""The network: species and edges to energies per atom.

Reads top-down: `build_model` turns a configuration into a `ConvolutionModel`, which embeds species,
applies `InteractionLayer`s and adds up readouts, or into an `AttentionModel` (`tdn.attention`).
"""

import torch
from ase.data import atomic_numbers as number_of_symbol
from torch import Tensor, nn

from .attention import AttentionModel
from .config import ModelConfig
from .convolution import CPConvolution, CPMatrices, NodeProduct, scalar_convolution_factors
from .cp import load_factors
from .errors import TDNError
from .layers import (
    DegreeLinear,
    DegreeScale,
    Gate,
    LinearReadout,
    MLPReadout,
    NoGate,
    num_components,
)
from .network import Network
from .ops import Edges, edge_geometry, exchange
from .radial import BesselBasis, PolynomialEnvelope, RadialNetwork


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
        self.r_max, self.envelope = config.r_max, config.envelope
        self.radial = RadialNetwork(
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
        num_local = edges.center_ptr.size(0) - 1
        h = self.mix_in(x)
        if self.first:
            h = h.index_select(0, species)
        else:
            h = exchange(h, species.size(0))
        w = self.radial.of_distance(r, pair, self.r_max, self.envelope)
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
        self.basis = BesselBasis(config.r_max, config.num_radial)
        self.envelope = PolynomialEnvelope(config.r_max, config.envelope)
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
        pair = species[edges.center] * self.num_species + species[edges.neighbor]
        x = self.embedding.unsqueeze(1)  # [S, 1, C]
        energy = torch.zeros(num_local, dtype=torch.float64, device=edge_vec.device)
        scalars = self.embedding
        for layer, readout in zip(self.layers, self.readouts):
            x, scalars = layer(x, scalars, species, sh, r, pair, edges)
            energy = energy + readout(scalars).to(torch.float64)
        return self.total_energy(energy, species, edges, edge_vec, num_local)


def _check(config: ModelConfig) -> None:
    """What the checks of single keys cannot see."""
    if not config.species:
        raise TDNError("model.species is empty: name the chemical symbols, e.g. [H, O]")
    unknown = [s for s in config.species if s not in number_of_symbol or s == "X"]
    if unknown:
        raise TDNError(f"model.species: '{unknown[0]}' is not a chemical symbol")
    if len(set(config.species)) != len(config.species):
        raise TDNError(f"model.species names an element twice: {', '.join(config.species)}")
    if min(config.radial_hidden, default=1) < 1:
        raise TDNError(
            f"model.radial_hidden = {list(config.radial_hidden)}: expected widths from 1"
        )
    if config.avg_num_neighbors is None:
        raise TDNError("model.avg_num_neighbors is not set: give the mean number of neighbours")
    if config.architecture == "attention":
        if config.num_channels % config.num_heads:
            raise TDNError(
                f"model.num_channels = {config.num_channels} is not a multiple of "
                f"model.num_heads = {config.num_heads}; every head takes an equal share"
            )
        if config.forces == "direct" and config.l_max == 0:
            raise TDNError("model.forces = 'direct' needs vectors: set model.l_max to 1 or more")
        return
    for key, value, needed in (
        ("forces", config.forces, "gradient"),
        ("path_coefficients", config.path_coefficients, "free"),
        ("preset", config.preset == "paper", False),
    ):
        if value != needed:
            raise TDNError(
                f"model.{key} = {getattr(config, key)!r} needs model.architecture = 'attention', "
                f"found '{config.architecture}'"
            )
    if config.envelope is None:
        raise TDNError(
            "model.envelope is null, which model.architecture = 'attention' alone allows; "
            f"give a power, e.g. {ModelConfig().envelope}"
        )


def build_model(config: ModelConfig, seed: int | None = None) -> Network:
    """Build a network in float64 with random weights.

    The one place where a configuration becomes a model. Weights are drawn in float64, so that the
    same seed gives the same network in either precision.

    Raises
    ------
    TDNError
        If the configuration lacks species or ``avg_num_neighbors``, names an unknown element, or
        combines options that do not go together.
    """
    _check(config)
    default = torch.get_default_dtype()
    with torch.random.fork_rng(devices=[], enabled=seed is not None):
        if seed is not None:
            torch.manual_seed(seed)
        torch.set_default_dtype(torch.float64)
        try:
            if config.architecture == "attention":
                return AttentionModel(config)
            return ConvolutionModel(config)
        finally:
            torch.set_default_dtype(default)
