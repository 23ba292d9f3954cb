"""The universal repulsion of nuclei at short distance (Ziegler, Biersack, Littmark 1985)."""

import torch
from ase.data import covalent_radii
from torch import Tensor, nn

from .radial import PolynomialEnvelope

# e^2 / (4 pi epsilon_0) in eV angstrom
COULOMB = 14.399645478425668


class ZBL(nn.Module):
    """Energy per atom from half of every pair's screened Coulomb repulsion, in float64.

    The pair energy is switched off smoothly at the sum of the covalent radii (or at ``r_max``,
    if that is less), so that it acts only where atoms overlap.

    Parameters
    ----------
    atomic_numbers : one per species
    r_max : cutoff radius of the graph in angstrom
    """

    number: Tensor
    pair_cutoff: Tensor

    def __init__(self, atomic_numbers: list[int], r_max: float) -> None:
        super().__init__()
        number = torch.tensor(atomic_numbers, dtype=torch.float64)
        radius = torch.tensor(covalent_radii[atomic_numbers], dtype=torch.float64)
        cutoff = (radius[:, None] + radius[None, :]).clamp(max=r_max)
        self.register_buffer("number", number, persistent=False)
        self.register_buffer("pair_cutoff", cutoff, persistent=False)
        self.envelope = PolynomialEnvelope(1.0, 6)
        self.half_coulomb = 0.5 * COULOMB  # TorchScript knows no global numbers

    def forward(
        self, r: Tensor, species: Tensor, center: Tensor, neighbor: Tensor, num_atoms: int
    ) -> Tensor:
        """Distances [E] in angstrom -> energies [num_atoms] in eV."""
        zi, zj = self.number[species[center]], self.number[species[neighbor]]
        x = r * (zi.pow(0.23) + zj.pow(0.23)) / 0.46850
        screening = (
            0.18175 * torch.exp(-3.19980 * x)
            + 0.50986 * torch.exp(-0.94229 * x)
            + 0.28022 * torch.exp(-0.40290 * x)
            + 0.02817 * torch.exp(-0.20162 * x)
        )
        switch = self.envelope(r / self.pair_cutoff[species[center], species[neighbor]])
        pair = self.half_coulomb * zi * zj / r * screening * switch
        return torch.zeros(num_atoms, dtype=r.dtype, device=r.device).index_add(0, center, pair)
