"""Checks of the ``data`` section and what follows from it, for data in memory and streamed."""

from __future__ import annotations

from collections.abc import Sequence

from ase.data import atomic_numbers, chemical_symbols

from tdn.config import Config, DataConfig
from tdn.data.frames import Frame
from tdn.system.errors import TDNError, UsageError


def train_files(config: DataConfig) -> tuple[str, ...]:
    """The training files, one or several."""
    return (config.train,) if isinstance(config.train, str) else tuple(config.train)


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


def check_settings(data: DataConfig) -> None:
    """Raise `UsageError` unless the section names training frames and fits together."""
    if not data.train:
        raise UsageError(
            "data.train is not set: name the file with training frames, e.g. data.train=train.xyz"
        )
    if data.split_key is not None and (data.valid or data.test):
        raise UsageError(
            "data.split_key and data.valid or data.test exclude each other: with a split key, "
            "data.train is the only file"
        )


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
