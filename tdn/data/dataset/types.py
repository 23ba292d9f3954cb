"""What a training run takes from its data."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from ase.data import atomic_numbers

from tdn.config import ModelConfig
from tdn.data.statistics import AtomicEnergies

from .lazy import LazyGraphs
from .subset import Subset


@dataclass
class Dataset:
    """Everything that training takes from data.

    Attributes
    ----------
    train, valid, test : may be empty except ``train``
    model_config : the model's configuration with species and mean number of neighbours filled in
    atomic_energies : E0 per element
    scale : energy scale per species in eV, [S]
    num_isolated : frames of isolated atoms, which set E0 and are not trained on
    fingerprint : hash of all structures, labels and their roles
    warnings : one line each
    heads : names of the levels of theory if there are several (`.theory_levels`)
    """

    heads = ()

    train: Subset
    valid: Subset
    test: Subset
    model_config: ModelConfig
    atomic_energies: AtomicEnergies
    scale: np.ndarray
    num_isolated: int
    fingerprint: str
    warnings: list[str]

    @property
    def atomic_numbers(self) -> list[int]:
        return [atomic_numbers[s] for s in self.model_config.species]

    def summary(self) -> list[str]:
        """Lines that tell a user what was found."""
        shown = self.train.report.frames
        atoms = [len(f.atoms) for f in shown]
        sizes = f"{min(atoms)}" if min(atoms) == max(atoms) else f"{min(atoms)}-{max(atoms)}"
        stresses = sum(f.stress is not None for f in shown)
        of = f" of {len(shown)}" if self.train.report is not self.train else ""
        e0 = ", ".join(
            f"{s} {v:.4f} ({self.atomic_energies.origin[s]})"
            for s, v in self.atomic_energies.values.items()
        )
        scales = ", ".join(
            f"{s} {v:.3f}" for s, v in zip(self.model_config.species, self.scale, strict=True)
        )
        return [
            f"frames: {self.train.total} training, {self._size('valid')} validation, "
            f"{self._size('test')} test, {self.num_isolated} isolated atoms (for E0 only)",
            *self._streaming(),
            f"training frames: {sizes} atoms, {stresses}{of} with stress, "
            f"{self.model_config.avg_num_neighbors:.1f} neighbors per atom within "
            f"{self.model_config.r_max:g} A",
            f"E0 (eV): {e0}",
            f"energy scale (RMS force, eV): {scales}",
        ]

    def _size(self, name: str) -> str:
        subset = getattr(self, name)
        whole = f" (of {subset.total})" if subset.total != len(subset) else ""
        return f"{len(subset)}{whole}"

    def _streaming(self) -> list[str]:
        if not isinstance(self.train.graphs, LazyGraphs):
            return []
        epochs = self.train.total / len(self.train)
        passes = "" if epochs == 1 else f"; {epochs:.4g} epochs go once through the set"
        return [
            f"streaming: frames are read when they are needed, {len(self.train)} per epoch{passes}"
        ]


def statistics_tensors(dataset: Dataset) -> tuple[torch.Tensor, torch.Tensor]:
    """E0 and scale in the order of the model's species, float64 [S] each, eV."""
    values = dataset.atomic_energies.values
    energies = torch.tensor([values[s] for s in dataset.model_config.species], dtype=torch.float64)
    return energies, torch.tensor(dataset.scale, dtype=torch.float64)
