"""A small potential with a closed form that obeys the contract of the compiled file.

    E_i = E0_i + 1/2 sum_j phi(r_ij) + F(rho_i),   rho_i = sum_j a_sj exp(-r_ij) fc(r_ij)
    phi(r) = D [(1 - exp(-b (r - r0)))^2 - 1] fc(r),   F(rho) = -A sqrt(1 + rho)
    fc(r) = (1 - (r / rc)^2)^3

Only the embedding term needs the neighbours' species; ``layers=2`` adds a second round,

    E_i += B sum_j rho_j exp(-r_ij) fc(r_ij),

for which the densities of the neighbours must be known: it goes through `tdn::exchange`.
The closed form with its analytic derivatives is `closed_form`, in numpy, over all pairs.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

import tdn.ops  # noqa: F401  registers torch.ops.tdn

SPECIES = ("H", "O")
R_MAX = 4.0
E0 = (-1.25, -3.5)
DEPTH, WIDTH, R0 = 0.4, 1.3, 1.6
DENSITY = (0.7, 1.9)
EMBEDDING = 0.8
SECOND = 0.15


class Toy(torch.nn.Module):
    """TorchScript form of the potential; see the module's docstring."""

    def __init__(self, r_max: float, layers: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.r_max = r_max
        self.layers = layers
        self.dtype = dtype
        self.register_buffer("e0", torch.tensor(E0, dtype=torch.float64))
        self.register_buffer("density", torch.tensor(DENSITY, dtype=dtype))
        self.constants = (DEPTH, WIDTH, R0, EMBEDDING, SECOND)

    def forward(
        self,
        species: torch.Tensor,
        edge_index: torch.Tensor,
        edge_vec: torch.Tensor,
        num_local: int,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        depth, width, r0, embedding, second = self.constants
        vec = edge_vec.detach().requires_grad_(True)
        centre, neighbour = edge_index[0], edge_index[1]
        r2 = vec.square().sum(1)
        r = r2.sqrt().to(self.dtype)
        cutoff = (1 - (r / self.r_max).square()).clamp(min=0).pow(3)
        decay = (-r).exp() * cutoff
        well = ((1 - (-width * (r - r0)).exp()).square() - 1) * cutoff * depth

        zeros = torch.zeros(num_local, dtype=self.dtype, device=vec.device)
        rho = zeros.index_add(0, centre, self.density[species[neighbour]] * decay)
        energy = zeros.index_add(0, centre, 0.5 * well) - embedding * (1 + rho).sqrt()
        if self.layers == 2:
            rho_all = torch.ops.tdn.exchange(rho.unsqueeze(1), species.shape[0])[:, 0]
            energy = energy + zeros.index_add(0, centre, second * rho_all[neighbour] * decay)
        atom_energy = energy.to(torch.float64) + self.e0[species[:num_local]]
        gradient = torch.autograd.grad([atom_energy.sum()], [vec])[0]
        assert gradient is not None
        return atom_energy.detach(), gradient


def closed_form(
    species: np.ndarray,
    positions: np.ndarray,
    cell: np.ndarray | None = None,
    r_max: float = R_MAX,
    layers: int = 1,
) -> dict[str, np.ndarray]:
    """Energies [N] eV, forces [N, 3] eV/A and virial [3, 3] eV of the closed form.

    Every pair of atoms and periodic images is visited with plain loops over image vectors.
    """
    centre, neighbour, vec = all_edges(positions, cell, r_max)
    r = np.linalg.norm(vec, axis=1)
    x = 1 - (r / r_max) ** 2
    fc, dfc = x**3, -6 * r / r_max**2 * x**2
    decay = np.exp(-r) * fc
    d_decay = np.exp(-r) * (dfc - fc)
    morse = np.exp(-WIDTH * (r - R0))
    well = DEPTH * ((1 - morse) ** 2 - 1)
    d_well = DEPTH * 2 * (1 - morse) * WIDTH * morse

    num_atoms = len(species)
    density = np.array(DENSITY)[species]
    rho = np.bincount(centre, density[neighbour] * decay, num_atoms)
    energy = np.array(E0)[species] - EMBEDDING * np.sqrt(1 + rho)
    energy += np.bincount(centre, 0.5 * well * fc, num_atoms)

    d_rho = -0.5 * EMBEDDING / np.sqrt(1 + rho)  # dE/drho
    slope = 0.5 * (d_well * fc + well * dfc)
    if layers == 2:
        energy += np.bincount(centre, SECOND * rho[neighbour] * decay, num_atoms)
        d_rho = d_rho + SECOND * np.bincount(neighbour, decay, num_atoms)
        slope = slope + SECOND * rho[neighbour] * d_decay
    slope = slope + d_rho[centre] * density[neighbour] * d_decay

    gradient = (slope / r)[:, None] * vec
    forces = np.zeros((num_atoms, 3))
    np.add.at(forces, centre, gradient)
    np.subtract.at(forces, neighbour, gradient)
    return {
        "energy": energy,
        "forces": forces,
        "virial": -vec.T @ gradient,
        "centre": centre,
        "neighbour": neighbour,
        "vec": vec,
        "gradient": gradient,
    }


def all_edges(
    positions: np.ndarray, cell: np.ndarray | None, r_max: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Centres, neighbours and vectors of all directed pairs within the cutoff, by brute force."""
    images = np.zeros((1, 3))
    if cell is not None:
        heights = 1 / np.linalg.norm(np.linalg.inv(cell), axis=0)
        counts = np.ceil(r_max / heights).astype(int) + 1
        grids = np.meshgrid(*(np.arange(-n, n + 1) for n in counts), indexing="ij")
        images = np.stack([grid.ravel() for grid in grids], axis=1) @ cell
    vec = positions[None, :, None] - positions[:, None, None] + images[None, None]
    r2 = (vec**2).sum(-1)
    centre, neighbour, image = np.nonzero((r2 < r_max**2) & (r2 > 0))
    return centre, neighbour, vec[centre, neighbour, image]


def metadata(r_max: float, layers: int, dtype: str) -> dict:
    """The metadata that an exported file has."""
    return {
        "format": "tdn-compiled",
        "format_version": 1,
        "tdn_version": "0.1.0",
        "torch_version": torch.__version__,
        "r_max": r_max,
        "num_layers": layers,
        "species": list(SPECIES),
        "atomic_numbers": [1, 8],
        "dtype": dtype,
        "units": {"energy": "eV", "length": "angstrom"},
        "architecture": "toy",
        "num_parameters": 0,
        "weight_hash": "0",
        "created": "2000-01-01T00:00:00",
    }


def reference(r_max: float, layers: int, dtype: str) -> dict:
    """A bent molecule with the results of the closed form."""
    species = np.array([1, 0, 0, 1])
    positions = np.array([[0.0, 0.0, 0.0], [1.0, 0.1, 0.0], [-0.3, 0.9, 0.2], [1.5, 1.7, -0.8]])
    result = closed_form(species, positions, None, r_max, layers)
    tolerance = 1e-10 if dtype == "float64" else 1e-5
    return {
        "species": species.tolist(),
        "positions": positions.tolist(),
        "edge_index": [result["centre"].tolist(), result["neighbour"].tolist()],
        "edge_vec": result["vec"].tolist(),
        "num_local": len(species),
        "atom_energy": result["energy"].tolist(),
        "forces": result["forces"].tolist(),
        "virial": result["virial"].tolist(),
        "tolerance": {"energy": tolerance, "forces": tolerance, "virial": tolerance},
    }


def write_toy(
    path: Path,
    *,
    r_max: float = R_MAX,
    layers: int = 1,
    dtype: str = "float64",
    around: Callable[[torch.nn.Module], torch.nn.Module] | None = None,
    change_metadata: dict | None = None,
    change_reference: dict | None = None,
) -> Path:
    """Write the potential as a compiled file.

    ``around`` makes another module of the potential; the changes overwrite entries of the
    descriptions.
    """
    toy = Toy(r_max, layers, getattr(torch, dtype))
    module = torch.jit.script(toy if around is None else around(toy))
    files = {
        "metadata.json": {**metadata(r_max, layers, dtype), **(change_metadata or {})},
        "reference.json": {**reference(r_max, layers, dtype), **(change_reference or {})},
    }
    extra = {name: json.dumps(content) for name, content in files.items()}
    torch.jit.save(module, str(path), _extra_files=extra)
    return path
