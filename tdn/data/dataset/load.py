"""From the `data` section of a configuration to graphs and statistics, with every check."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from ase.data import atomic_numbers, chemical_symbols

from tdn.config import Config, DataConfig, ModelConfig
from tdn.data.bad_frames import Problems
from tdn.data.frames import Frame, LabelKeys, require_labels
from tdn.data.graphs import build_graphs
from tdn.data.readers.any_file import read_frames
from tdn.data.statistics import (
    AtomicEnergies,
    find_atomic_energies,
    force_scale,
    is_isolated_atom,
    mean_neighbors,
)
from tdn.data.survey.checks import suspicious
from tdn.system.errors import TDNError, UsageError

from .lazy import LazyGraphs
from .split import split_frames
from .streaming import load_streaming, streaming_store
from .subset import Subset


@dataclass
class Dataset:
    """Everything that training takes from data.

    Attributes
    ----------
    train, valid, test : may be empty except ``train``
    model : the model's configuration with species and mean number of neighbours filled in
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
    model: ModelConfig
    atomic_energies: AtomicEnergies
    scale: np.ndarray
    num_isolated: int
    fingerprint: str
    warnings: list[str]

    @property
    def atomic_numbers(self) -> list[int]:
        return [atomic_numbers[s] for s in self.model.species]

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
            f"{s} {v:.3f}" for s, v in zip(self.model.species, self.scale, strict=True)
        )
        return [
            f"frames: {self.train.total} training, {self._size('valid')} validation, "
            f"{self._size('test')} test, {self.num_isolated} isolated atoms (for E0 only)",
            *self._streaming(),
            f"training frames: {sizes} atoms, {stresses}{of} with stress, "
            f"{self.model.avg_num_neighbors:.1f} neighbours per atom within "
            f"{self.model.r_max:g} A",
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


def label_keys(config: DataConfig) -> LabelKeys:
    """The keys of the labels as the configuration names them."""
    return LabelKeys(
        energy=config.energy_key,
        forces=config.forces_key,
        stress=config.stress_key,
        config_type=config.config_type_key,
        split=config.split_key,
    )


def load_dataset(config: Config) -> Dataset:
    """Read, check and split the data; compute statistics and graphs.

    A large database is not read: its frames and graphs are made when they are needed, and
    statistics and checks look at a random sample of them (`tdn.data.dataset.streaming`).

    Raises
    ------
    TDNError
        For anything in files or settings that does not allow to train.
    """
    needs = needed_labels(config)
    _check_settings(config.data)
    store = streaming_store(config.data)
    if store is not None:
        return load_streaming(config, store, needs)
    problems = Problems(skip=config.data.bad_frames == "skip")
    parts, isolated = _read_parts(config, problems)
    for name, frames in parts.items():
        parts[name] = require_labels(frames, *needs, label_keys(config.data), problems)
    if not parts["train"]:
        raise TDNError(f"no usable training frame is left: {'; '.join(problems.lines())}")
    model = config.model
    if not model.species:
        found = sorted({n for f in parts["train"] for n in f.atoms.numbers})
        model = dataclasses.replace(model, species=tuple(chemical_symbols[n] for n in found))
    check_species(model.species, parts)
    numbers = [atomic_numbers[s] for s in model.species]
    energies = find_atomic_energies(
        config.data.atomic_energies, model.species, parts["train"], isolated
    )
    subsets = {
        name: Subset(frames, build_graphs(frames, numbers, model.r_max, f"{name} frames"))
        for name, frames in parts.items()
    }
    if model.avg_num_neighbors is None:
        neighbors = mean_neighbors(subsets["train"].graphs)
        model = dataclasses.replace(model, avg_num_neighbors=neighbors)
    everything = [frame for frames in parts.values() for frame in frames]
    graphs = [graph for subset in subsets.values() for graph in subset.graphs]
    return Dataset(
        **subsets,
        model=model,
        atomic_energies=energies,
        scale=force_scale(parts["train"], model.species, config.data.energy_scale == "per_species"),
        num_isolated=len(isolated),
        fingerprint=_fingerprint(parts, isolated),
        warnings=[*problems.lines(), *energies.notes, *suspicious(everything, graphs)],
    )


def needed_labels(config: Config) -> tuple[bool, bool]:
    """Whether training needs energies and forces.

    Raises
    ------
    UsageError
        If it needs nothing at all.
    """
    energy, forces = config.train.energy_weight > 0, config.train.forces_weight > 0
    if not (energy or forces or config.train.stress_weight > 0):
        raise UsageError("all loss weights are zero; set train.forces_weight or energy_weight")
    if config.train.final_energy_weight is not None and not energy:
        raise UsageError(
            "train.final_energy_weight needs a positive train.energy_weight to start from, found 0"
        )
    return energy, forces


def _check_settings(data: DataConfig) -> None:
    if data.train is None:
        raise UsageError(
            "data.train is not set: name the file with training frames, e.g. data.train=train.xyz"
        )
    if data.split_key is not None and (data.valid or data.test):
        raise UsageError(
            "data.split_key and data.valid or data.test exclude each other: with a split key, "
            "data.train is the only file"
        )


def _read_parts(config: Config, problems: Problems) -> tuple[dict[str, list[Frame]], list[Frame]]:
    """Frames per subset, and the isolated atoms that were among them or in a file of their own."""
    data, r_max = config.data, config.model.r_max
    keys = label_keys(data)
    isolated: list[Frame] = []

    def take(frames: Sequence[Frame]) -> list[Frame]:
        isolated.extend(f for f in frames if is_isolated_atom(f.atoms, r_max))
        return [f for f in frames if not is_isolated_atom(f.atoms, r_max)]

    plain = dataclasses.replace(keys, split=None)
    parts: dict[str, list[Frame]] = {"train": [], "valid": [], "test": []}

    def read(path: str, keys: LabelKeys) -> list[Frame]:
        return read_frames(path, keys, problems, data.stage)

    frames = take(read(data.train, keys))
    if keys.split is not None:
        if not any(frame.split for frame in frames) and frames:
            raise TDNError(
                f"{data.train} does not say which frames are for training (data.split_key = "
                f"'{keys.split}'); convert it with a split, or remove data.split_key"
            )
        for frame in frames:
            parts[frame.split or "train"].append(frame)
    else:
        parts["train"] = frames
    if data.valid:
        parts["valid"] = take(read(data.valid, plain))
    if data.test:
        parts["test"] = take(read(data.test, plain))
    if data.isolated_atoms:
        for frame in read(data.isolated_atoms, plain):
            if not is_isolated_atom(frame.atoms, r_max):
                raise TDNError(
                    f"{frame.where} (data.isolated_atoms) has {len(frame.atoms)} atoms or a small "
                    "periodic cell; expected one isolated atom per frame"
                )
            isolated.append(frame)
    if not parts["train"]:
        raise TDNError(
            f"{Path(data.train).name} holds no training frame (isolated atoms only set E0)"
        )
    if not parts["valid"] and not data.valid:
        parts["train"], parts["valid"] = split_frames(
            parts["train"], data.valid_fraction, config.train.seed
        )
    return parts, isolated


def check_species(species: Sequence[str], parts: dict[str, Sequence[Frame]]) -> None:
    """Raise unless the model's species are chemical symbols and cover all frames."""
    unknown = [s for s in species if s not in atomic_numbers or s == "X"]
    if unknown:
        raise UsageError(f"model.species: '{unknown[0]}' is not a chemical symbol")
    twice = [s for s in species if list(species).count(s) > 1]
    if twice:
        raise UsageError(f"model.species names {twice[0]} twice: {', '.join(species)}; remove one")
    known = {atomic_numbers[s] for s in species}
    for name, frames in parts.items():
        for frame in frames:
            extra = sorted(set(frame.atoms.numbers.tolist()) - known)
            if extra:
                symbol = chemical_symbols[extra[0]]
                advice = (
                    f"add {symbol} to model.species"
                    if name == "train"
                    else f"no training frame contains it: add some, or remove the {name} frame"
                )
                raise TDNError(
                    f"{frame.where} contains {symbol}, the model knows {', '.join(species)}; "
                    f"{advice}"
                )


def _fingerprint(parts: dict[str, list[Frame]], isolated: Sequence[Frame]) -> str:
    """Hash of structures, labels and roles: equal data give equal runs, wherever the files lie."""
    digest = hashlib.sha256()
    for name, frames in (*parts.items(), ("isolated", isolated)):
        digest.update(f"{name} {len(frames)}".encode())
        for frame in frames:
            atoms = frame.atoms
            for array in (atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc):
                digest.update(np.ascontiguousarray(array).tobytes())
            for label in (frame.energy, frame.forces, frame.stress):
                digest.update(b"-" if label is None else np.asarray(label).tobytes())
    return digest.hexdigest()[:32]


def statistics_tensors(dataset: Dataset) -> tuple[torch.Tensor, torch.Tensor]:
    """E0 and scale in the order of the model's species, float64 [S] each, eV."""
    values = dataset.atomic_energies.values
    energies = torch.tensor([values[s] for s in dataset.model.species], dtype=torch.float64)
    return energies, torch.tensor(dataset.scale, dtype=torch.float64)
