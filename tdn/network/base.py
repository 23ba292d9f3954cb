"""What all networks share: statistics of the data, total energies, precision."""

import torch
from ase.data import atomic_numbers as number_of_symbol
from torch import Tensor, nn

from tdn.config import ModelConfig
from tdn.ops import Edges

from .zbl import ZBL


class Network(nn.Module):
    """Base of the architectures: E_i = E0 + scale e_i [+ ZBL], in float64 whatever the precision.

    Subclasses define ``forward(species [n_all], edges, edge_vec [E, 3], num_local)``, which gives
    energies [num_local] in eV, and a parameter ``embedding`` in the network's precision.

    Parameters
    ----------
    config : with ``species`` and ``avg_num_neighbors`` given

    Attributes
    ----------
    direct_forces : whether ``energies_and_forces`` gives forces that are not a gradient
    heads : names of the levels of theory of a network with several (`.theory_levels`)
    networks : one for each head; without heads the network itself
    """

    # float64 originals of rounded constants (see `set_dtype`) are no part of compiled files
    __jit_ignored_attributes__ = ("float64_constants", "heads")
    __jit_unused_properties__ = ("networks",)

    direct_forces = False
    heads: tuple[str, ...] = ()

    atomic_energies: Tensor
    scale: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.r_max = config.r_max
        self.num_species = len(config.species)
        self.atomic_numbers = [number_of_symbol[s] for s in config.species]
        self.zbl = ZBL(self.atomic_numbers, config.r_max) if config.zbl else None
        self.register_buffer("atomic_energies", torch.zeros(self.num_species, dtype=torch.float64))
        self.register_buffer("scale", torch.ones(self.num_species, dtype=torch.float64))

    @property
    def networks(self) -> list["Network"]:
        return [self]

    def total_energy(
        self, energy: Tensor, species: Tensor, edges: Edges, edge_vec: Tensor, num_local: int
    ) -> Tensor:
        """Add E0, scale and ZBL to what the network gives for each atom, float64 [num_local]."""
        local_species = species[:num_local]
        energy = self.atomic_energies[local_species] + self.scale[local_species] * energy
        if self.zbl is not None:
            lengths = torch.linalg.vector_norm(edge_vec, dim=1)
            energy = energy + self.zbl(lengths, species, edges.center, edges.neighbor, num_local)
        return energy

    def set_statistics(self, atomic_energies: Tensor, scale: Tensor | float) -> None:
        """Set E0 [num_species] in eV and the energy scale (number or [num_species]) in eV."""
        self.atomic_energies.copy_(torch.as_tensor(atomic_energies, dtype=torch.float64))
        scale = torch.as_tensor(scale, dtype=torch.float64).expand(self.num_species)
        self.scale.copy_(scale)


# everything that stays float64 whatever the network's precision
FLOAT64_BUFFERS = ("atomic_energies", "scale", "zbl.number", "zbl.pair_cutoff")
# constants whose exact values matter: rounded CP factors are equivariant to 1e-7 only
CONSTANTS = (".input1", ".input2", ".output")


def exact_constants(model: Network) -> dict[str, Tensor]:
    """CP factors in float64, whatever the network's precision."""
    if model_dtype(model) != torch.float64 and hasattr(model, "float64_constants"):
        return model.float64_constants
    buffers = model.named_buffers()
    return {name: b.detach().double().cpu() for name, b in buffers if name.endswith(CONSTANTS)}


def set_dtype(model: Network, dtype: torch.dtype) -> Network:
    """Convert the network to ``dtype`` in place; energies still add up in float64.

    Going to float32 and back loses the digits of weights, but not those of constants.
    """
    constants = exact_constants(model)
    kept = {name: buffer for name, buffer in model.named_buffers() if name in FLOAT64_BUFFERS}
    model.to(dtype)
    for name, buffer in kept.items():
        owner = model.get_submodule(name.rpartition(".")[0])
        setattr(owner, name.rpartition(".")[2], buffer)
    for name, value in constants.items():
        model.get_buffer(name).copy_(value)
    model.float64_constants = constants
    return model


def model_dtype(model: Network) -> torch.dtype:
    """The precision in which the network computes."""
    return model.embedding.dtype
