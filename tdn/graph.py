"""Atoms to graphs: neighbor lists (by vesin), sorted edges and batching.

Conventions: ``edge_index[0]`` is the center i that receives, ``edge_index[1]`` the neighbor j that
sends; ``edge_vec = positions[j] + edge_shift - positions[i]``; edges are sorted by center. What the
operators need besides, `Graph.edges`, is made and checked once for each graph or batch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass, field

import ase
import ase.geometry
import numpy as np
import torch
from ase.data import chemical_symbols
from vesin import NeighborList

from .ops import Edges, sort_edges
from .system.errors import TDNError


@dataclass
class Graph:
    """One structure, or several side by side.

    Attributes
    ----------
    species : int64 [N], index into the model's species
    positions : float64 [N, 3], angstrom
    edge_index : int64 [2, E], center and neighbor, sorted by center
    edge_shift : float64 [E, 3], periodic image of the neighbor in angstrom
    batch : int64 [N], which structure an atom belongs to
    cell : float64 [B, 3, 3], rows are lattice vectors; zero where there is none
    pbc : bool [B, 3]
    energy, forces, stress : float64 [B], [N, 3], [B, 3, 3] or None
        Reference values in eV, eV/angstrom, eV/angstrom^3; NaN where a frame has none.
    weight : float64 [B], weight of each structure in the loss, or None
    """

    species: torch.Tensor
    positions: torch.Tensor
    edge_index: torch.Tensor
    edge_shift: torch.Tensor
    batch: torch.Tensor
    cell: torch.Tensor
    pbc: torch.Tensor
    energy: torch.Tensor | None = None
    forces: torch.Tensor | None = None
    stress: torch.Tensor | None = None
    weight: torch.Tensor | None = None
    _edges: Edges | None = field(default=None, init=False, repr=False, compare=False)

    @property
    def edges(self) -> Edges:
        """The edges as operators take them, checked and walked from both ends; made once.

        Raises
        ------
        ValueError
            If edges are not sorted by center, or name atoms that do not exist.
        """
        if self._edges is None:
            self._edges = sort_edges(self.edge_index, self.num_atoms, self.num_atoms)
        return self._edges

    @property
    def num_atoms(self) -> int:
        return self.species.shape[0]

    @property
    def num_graphs(self) -> int:
        return self.cell.shape[0]

    @property
    def num_edges(self) -> int:
        return self.edge_index.shape[1]

    @property
    def edge_vec(self) -> torch.Tensor:
        """Vectors from center to neighbor, float64 [E, 3]."""
        center, neighbor = self.edge_index
        return self.positions[neighbor] + self.edge_shift - self.positions[center]

    @property
    def volume(self) -> torch.Tensor:
        """Volume of each cell in angstrom^3, [B]; zero without three lattice vectors."""
        return torch.linalg.det(self.cell).abs()

    @property
    def atoms_per_graph(self) -> torch.Tensor:
        """Number of atoms of each structure, int64 [B]."""
        return torch.bincount(self.batch, minlength=self.num_graphs)

    def to(self, device: torch.device | str) -> Graph:
        """The same graph on another device."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.init}
        moved = Graph(**{k: None if v is None else v.to(device) for k, v in values.items()})
        if self._edges is not None:
            moved._edges = Edges(*(tensor.to(device) for tensor in self._edges))
        return moved


def species_index(numbers: np.ndarray, atomic_numbers: list[int]) -> np.ndarray:
    """Map atomic numbers to indices into the model's species.

    Raises
    ------
    TDNError
        If an element is not one of the model's.
    """
    table = np.full(len(chemical_symbols), -1, dtype=np.int64)
    table[atomic_numbers] = np.arange(len(atomic_numbers))
    species = table[numbers]
    if (species < 0).any():
        unknown = sorted({chemical_symbols[n] for n in numbers[species < 0]})
        known = ", ".join(chemical_symbols[n] for n in atomic_numbers)
        raise TDNError(
            f"element {', '.join(unknown)} is not known to the model (it knows {known}); "
            "train a model with frames that contain it"
        )
    return species


def neighbor_list(
    positions: np.ndarray, cell: np.ndarray, pbc: np.ndarray, r_max: float
) -> tuple[np.ndarray, np.ndarray]:
    """All pairs closer than ``r_max``, sorted by center.

    Parameters
    ----------
    positions : float [N, 3], angstrom
    cell : float [3, 3], rows are lattice vectors
    pbc : bool [3]
    r_max : float, angstrom

    Returns
    -------
    edge_index : int64 [2, E]
    shift : int64 [E, 3], in lattice vectors

    Raises
    ------
    TDNError
        If positions or cell are not finite, or the cell is flat along a periodic direction.
    """
    if not (np.isfinite(positions).all() and np.isfinite(cell).all()):
        raise TDNError("positions or cell contain NaN or infinity; check the structure")
    if len(positions) == 0:
        return np.zeros((2, 0), np.int64), np.zeros((0, 3), np.int64)
    pbc = np.asarray(pbc, dtype=bool)
    if pbc.any():
        if np.linalg.matrix_rank(cell[pbc], tol=1e-3) < pbc.sum():
            raise TDNError("the cell is flat along a periodic direction; check cell and pbc")
        # directions without periodicity get a vector of their own: the list needs a full cell
        cell = ase.geometry.complete_cell(np.where(pbc[:, None], cell, 0.0))
    neighbors = NeighborList(cutoff=r_max, full_list=True)
    i, j, shift = neighbors.compute(
        points=positions, box=cell, periodic=pbc if pbc.any() else False, quantities="ijS"
    )
    i, j, shift = i.astype(np.int64), j.astype(np.int64), shift.astype(np.int64)
    # one fixed order, whatever the library does: sums are then reproducible
    order = np.lexsort((shift[:, 2], shift[:, 1], shift[:, 0], j, i))
    return np.stack([i[order], j[order]]), shift[order]


def graph_from_atoms(
    atoms: ase.Atoms,
    atomic_numbers: list[int],
    r_max: float,
    pairs: tuple[np.ndarray, np.ndarray] | None = None,
) -> Graph:
    """Build the graph of one structure (without reference values).

    Parameters
    ----------
    pairs : what `neighbor_list` gave for this structure and a cutoff of at least ``r_max``, so that
        it need not be computed again

    Raises
    ------
    TDNError
        For an unknown element, positions that are not finite, or a flat periodic cell.
    """
    species = species_index(atoms.numbers, atomic_numbers)
    cell = np.asarray(atoms.cell.array, dtype=np.float64)
    if pairs is None:
        edge_index, shift = neighbor_list(atoms.positions, cell, atoms.pbc, r_max)
    else:
        edge_index, shift = pairs
        i, j = edge_index
        vectors = atoms.positions[j] + shift @ cell - atoms.positions[i]
        near = np.einsum("ek,ek->e", vectors, vectors) < r_max**2
        edge_index, shift = edge_index[:, near], shift[near]
    return Graph(
        species=torch.from_numpy(species),
        positions=torch.tensor(atoms.positions, dtype=torch.float64),
        edge_index=torch.from_numpy(edge_index),
        edge_shift=torch.from_numpy(shift @ cell),
        batch=torch.zeros(len(atoms), dtype=torch.int64),
        cell=torch.tensor(cell)[None],
        pbc=torch.tensor(np.asarray(atoms.pbc))[None],
    )


def collate(graphs: Iterable[Graph]) -> Graph:
    """Put several graphs side by side into one; reference values must be there for all or none."""
    graphs = list(graphs)  # a lazy sequence makes each graph once
    atoms = [g.num_atoms for g in graphs]
    frames = [g.num_graphs for g in graphs]
    atom_offset = np.cumsum([0, *atoms])
    frame_offset = np.cumsum([0, *frames])

    def join(name: str) -> torch.Tensor | None:
        values = [getattr(g, name) for g in graphs]
        return None if values[0] is None else torch.cat(values)

    return Graph(
        species=join("species"),
        positions=join("positions"),
        edge_index=torch.cat(
            [g.edge_index + int(o) for g, o in zip(graphs, atom_offset, strict=False)], dim=1
        ),
        edge_shift=join("edge_shift"),
        batch=torch.cat([g.batch + int(o) for g, o in zip(graphs, frame_offset, strict=False)]),
        cell=join("cell"),
        pbc=join("pbc"),
        energy=join("energy"),
        forces=join("forces"),
        stress=join("stress"),
        weight=join("weight"),
    )
