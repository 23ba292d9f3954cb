"""Structures and models that many tests share."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import ase
import numpy as np
import torch
from ase.build import bulk, molecule

from tdn.config import ModelConfig
from tdn.graph import graph_from_atoms
from tdn.network.build import build_model
from tdn.network.convolution_model import ConvolutionModel
from tdn.network.potential import Potential, stress_of_virial

TRAINED_MODEL = Path(__file__).parent / "files" / "water_small.pt"

# small networks that between them use every option
CONFIGS = {
    "default": ModelConfig(num_channels=8, radial_hidden=(8, 8), readout_hidden=4),
    "l1": ModelConfig(
        l_max=1, num_channels=5, correlation=2, radial="shared", num_layers=3, gate=False
    ),
    "l3": ModelConfig(l_max=3, num_channels=4, num_layers=2, zbl=True, radial_hidden=(8,)),
    "one_layer": ModelConfig(num_layers=1, num_channels=4, correlation=4, radial_hidden=()),
    "scalars": ModelConfig(l_max=0, num_channels=6, correlation=1),
    "attention": ModelConfig(
        architecture="attention",
        l_max=1,
        num_channels=8,
        num_heads=2,
        num_gaussians=8,
        radial_hidden=(8, 8),
    ),
    "attention_l2": ModelConfig(
        architecture="attention",
        l_max=2,
        num_channels=6,
        num_layers=1,
        num_heads=3,
        num_gaussians=6,
        radial_hidden=(6,),
        zbl=True,
    ),
}
CONVOLUTION = [name for name, config in CONFIGS.items() if config.architecture == "convolution"]


def random_model(name: str, seed: int = 1, **changes) -> ConvolutionModel:
    """A float64 network for H and O with random weights, E0 and scales."""
    config = dataclasses.replace(
        CONFIGS[name], species=("H", "O"), avg_num_neighbors=12.0, r_max=4.0, **changes
    )
    model = build_model(config, seed=seed).requires_grad_(False)
    model.set_statistics(torch.tensor([-13.6, -432.1]), torch.tensor([0.7, 1.3]))
    return model


def evaluate(model: torch.nn.Module, atoms: ase.Atoms) -> dict[str, torch.Tensor]:
    """Everything that a potential gives for one structure, and its stress."""
    graph = graph_from_atoms(atoms, model.atomic_numbers, model.r_max)
    result = Potential(model)(graph)
    return result | {"stress": stress_of_virial(result["virial"], graph.volume)}


def derivative(energy: Callable[[float], float], step: float) -> float:
    """d energy / dx at 0 by a fourth-order central difference."""
    near, far = (energy(h) - energy(-h) for h in (step, 2 * step))
    return (8 * near - far) / (12 * step)


def displaced(atoms: ase.Atoms, atom: int, axis: int, x: float) -> ase.Atoms:
    """A copy with one coordinate changed."""
    moved = atoms.copy()
    moved.positions[atom, axis] += x
    return moved


def assert_forces_are_slopes(model: torch.nn.Module, atoms: ase.Atoms) -> None:
    """Two components of forces are slopes of the energy, to 1e-6 of the largest."""
    forces = evaluate(model, atoms)["forces"]
    for atom, axis in [(0, 0), (4, 2)]:

        def energy(x: float, atom: int = atom, axis: int = axis) -> float:
            return float(evaluate(model, displaced(atoms, atom, axis, x))["energy"][0])

        slope = derivative(energy, 1e-3)
        assert abs(slope + float(forces[atom, axis])) < 1e-6 * float(forces.abs().max())


def water_cluster(seed: int = 0, count: int = 4) -> ase.Atoms:
    """Water molecules at random places in a vacuum, none closer than 1.5 angstrom."""
    rng = np.random.default_rng(seed)
    atoms = molecule("H2O")
    while len(atoms) < 3 * count:
        guest = molecule("H2O")
        guest.rotate(rng.uniform(0, 360), rng.normal(size=3))
        guest.translate(rng.uniform(-3, 3, size=3))
        distances = np.linalg.norm(atoms.positions[:, None] - guest.positions[None], axis=-1)
        if distances.min() > 1.5:
            atoms += guest
    atoms.positions += 0.05 * rng.normal(size=atoms.positions.shape)
    return atoms


def small_cell(seed: int = 0) -> ase.Atoms:
    """One molecule in a cell much smaller than the cutoff: every atom sees its own images."""
    rng = np.random.default_rng(seed)
    atoms = molecule("H2O", cell=[2.9, 3.1, 2.7], pbc=True)
    atoms.positions += 0.05 * rng.normal(size=atoms.positions.shape)
    return atoms


def triclinic_cell(seed: int = 0) -> ase.Atoms:
    """A strongly skewed periodic cell with both species."""
    rng = np.random.default_rng(seed)
    cell = [[6.0, 0.0, 0.0], [2.1, 5.5, 0.0], [-1.7, 1.9, 5.8]]
    atoms = ase.Atoms("H6O4", scaled_positions=rng.uniform(size=(10, 3)), cell=cell, pbc=True)
    # spread the atoms out: random points may nearly coincide
    for _ in range(200):
        vectors = atoms.get_all_distances(mic=True, vector=True)
        lengths = np.linalg.norm(vectors, axis=-1) + 10 * np.eye(len(atoms))
        push = np.where((lengths < 1.6)[..., None], vectors / lengths[..., None], 0).sum(axis=1)
        atoms.positions -= 0.05 * push
    return atoms


def slab(seed: int = 0) -> ase.Atoms:
    """Periodic in two directions only."""
    rng = np.random.default_rng(seed)
    atoms = bulk("O", "fcc", a=4.2, cubic=True) * (1, 1, 2)
    atoms.symbols[::2] = "H"
    atoms.pbc = [True, True, False]
    atoms.positions += 0.1 * rng.normal(size=atoms.positions.shape)
    return atoms


STRUCTURES = {
    "cluster": water_cluster,
    "small_cell": small_cell,
    "triclinic": triclinic_cell,
    "slab": slab,
}
