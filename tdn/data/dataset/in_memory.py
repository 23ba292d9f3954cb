"""Training data that are read as a whole."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from ase.data import atomic_numbers, chemical_symbols

from tdn.config import Config
from tdn.data.bad_frames import Problems
from tdn.data.frames import Frame, LabelKeys, label_keys, require_labels
from tdn.data.graphs import build_graphs
from tdn.data.readers.any_file import read_frames
from tdn.data.statistics import (
    energy_scale,
    find_atomic_energies,
    is_isolated_atom,
    mean_neighbors,
)
from tdn.data.survey.checks import suspicious
from tdn.system.errors import TDNError

from .settings import check_species, train_files
from .split import split_frames
from .subset import Subset
from .types import Dataset


def load_in_memory(config: Config, needs: tuple[bool, bool]) -> Dataset:
    """Read, check and split the data; compute statistics and graphs.

    Parameters
    ----------
    needs : whether training needs energies, and whether it needs forces

    Raises
    ------
    TDNError
        For anything in files or settings that does not allow to train.
    """
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
        model_config=model,
        atomic_energies=energies,
        scale=energy_scale(parts["train"], model.species, config.data.energy_scale),
        num_isolated=len(isolated),
        fingerprint=_fingerprint(parts, isolated),
        warnings=[
            *problems.lines(),
            *energies.warnings(parts["train"]),
            *suspicious(everything, graphs),
        ],
    )


def _read_parts(config: Config, problems: Problems) -> tuple[dict[str, list[Frame]], list[Frame]]:
    """Frames per subset, and the isolated atoms that were among them or in a file of their own."""
    data, r_max = config.data, config.model.r_max
    keys = label_keys(data)
    isolated: list[Frame] = []

    def take(frames: Sequence[Frame]) -> list[Frame]:
        isolated.extend(f for f in frames if is_isolated_atom(f, r_max))
        return [f for f in frames if not is_isolated_atom(f, r_max)]

    plain = dataclasses.replace(keys, split=None)
    parts: dict[str, list[Frame]] = {"train": [], "valid": [], "test": []}

    def read(path: str | Sequence[str], keys: LabelKeys) -> list[Frame]:
        return read_frames(path, keys, problems, data.stage)

    files = train_files(data)
    names = ", ".join(Path(file).name for file in files)
    frames = take(read(files, keys))
    if keys.split is not None:
        if not any(frame.split for frame in frames) and frames:
            raise TDNError(
                f"{names} does not say which frames are for training (data.split_key = "
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
            if not is_isolated_atom(frame, r_max):
                raise TDNError(
                    f"{frame.where} (data.isolated_atoms) has {len(frame.atoms)} atoms or a small "
                    "periodic cell; expected one isolated atom per frame"
                )
            isolated.append(frame)
    if not parts["train"]:
        raise TDNError(f"{names} holds no training frame (isolated atoms only set E0)")
    if not parts["valid"] and not data.valid:
        parts["train"], parts["valid"] = split_frames(
            parts["train"], data.valid_fraction, config.train.seed
        )
    return parts, isolated


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
            if frame.weight != 1:
                digest.update(f"weight {frame.weight!r}".encode())
    return digest.hexdigest()[:32]
