"""The toy potential with direct forces, and with faults that only some ranks meet."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from .toy import R_MAX, Toy, closed_form, reference, write_toy

# above the size of the file's own structure and of what is made of it to measure memory
MANY_ATOMS = 100


class DirectToy(torch.nn.Module):
    """The energies of the toy, and forces of their own: f_i = sum_j s_j r_ij exp(-r_ij) fc(r_ij).

    They are no gradient of anything and do not sum to zero.
    """

    def __init__(self, toy: Toy) -> None:
        super().__init__()
        self.toy = toy
        self.r_max = R_MAX

    def forward(
        self,
        species: torch.Tensor,
        edge_index: torch.Tensor,
        edge_vec: torch.Tensor,
        num_local: int,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        energy = self.toy(species, edge_index, edge_vec, num_local)[0]
        r = edge_vec.square().sum(1).sqrt()
        size = (1 + species[edge_index[1]]) * (-r).exp() * (1 - (r / self.r_max).square()).pow(3)
        forces = torch.zeros(num_local, 3, dtype=torch.float64)
        return energy, forces.index_add(0, edge_index[0], size.unsqueeze(1) * edge_vec)


def direct_forces(
    species: np.ndarray, positions: np.ndarray, cell: np.ndarray | None = None
) -> np.ndarray:
    """The forces of `DirectToy` in numpy, [N, 3] eV/A."""
    graph = closed_form(species, positions, cell)
    r = np.linalg.norm(graph["vec"], axis=1)
    size = (1 + species[graph["neighbour"]]) * np.exp(-r) * (1 - (r / R_MAX) ** 2) ** 3
    forces = np.zeros((len(species), 3))
    np.add.at(forces, graph["centre"], size[:, None] * graph["vec"])
    return forces


class FaultyToy(torch.nn.Module):
    """The toy until a rank has more than `MANY_ATOMS` atoms of its own."""

    def __init__(self, toy: Toy, fault: str) -> None:
        super().__init__()
        self.toy = toy
        self.raises = fault == "raises"
        self.many = MANY_ATOMS

    def forward(
        self,
        species: torch.Tensor,
        edge_index: torch.Tensor,
        edge_vec: torch.Tensor,
        num_local: int,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        filler = torch.zeros(1, dtype=torch.float64)
        if num_local > self.many:
            if self.raises:
                raise RuntimeError("more atoms than this potential likes")
            filler = torch.empty(1 << 46, dtype=torch.float64)  # more than any address space has
        energy, gradient = self.toy(species, edge_index, edge_vec, num_local)
        energy = energy + filler[0]
        return energy, gradient


class HungryToy(torch.nn.Module):
    """The toy with a megabyte for each edge, which are never touched.

    A thousand at a time: operating systems refuse what exceeds the machine's memory in one piece.
    """

    def __init__(self, toy: Toy) -> None:
        super().__init__()
        self.toy = toy

    def forward(
        self,
        species: torch.Tensor,
        edge_index: torch.Tensor,
        edge_vec: torch.Tensor,
        num_local: int,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        rooms = [torch.empty(0, dtype=torch.uint8)]
        for begin in range(0, edge_vec.size(0), 1000):
            count = min(1000, edge_vec.size(0) - begin)
            rooms.append(torch.empty(count, 1_000_000, dtype=torch.uint8))
        energy, gradient = self.toy(species, edge_index, edge_vec, num_local)
        assert len(rooms) > 0
        return energy, gradient


def write_direct(path: Path, layers: int = 1) -> Path:
    """A compiled file with direct forces."""
    stored = reference(R_MAX, layers, "float64")
    forces = direct_forces(np.array(stored["species"]), np.array(stored["positions"]))
    return write_toy(
        path,
        layers=layers,
        around=DirectToy,
        change_metadata={"forces": "direct"},
        change_reference={"forces": forces.tolist(), "virial": None},
    )


def write_faulty(path: Path, fault: str, layers: int = 2) -> Path:
    """A compiled file that ``raises`` or runs ``out_of_memory`` on ranks with many atoms."""
    return write_toy(path, layers=layers, around=lambda toy: FaultyToy(toy, fault))


def write_hungry(path: Path) -> Path:
    """A compiled file that needs much memory."""
    return write_toy(path, around=HungryToy)
