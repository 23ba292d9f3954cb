"""Data of several levels of theory: one data set per head, concatenated."""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass, field

import numpy as np
import torch
from ase.data import atomic_numbers

from tdn.config import Config, DataConfig, data_config_from_dict
from tdn.data.statistics import mean_neighbors
from tdn.graph import species_index
from tdn.system.errors import TDNError, UsageError

from .lazy import LazyGraphs
from .load import load_dataset
from .subset import Subset
from .types import Dataset, statistics_tensors


@dataclass
class MultiHeadDataset(Dataset):
    """Frames of all heads, those of the first head first.

    Attributes
    ----------
    heads : names
    sizes : per subset the number of frames of each head
    statistics : per head E0 and energy scale, float64 [S] each, eV
    origins : per head where the E0 of each element come from
    """

    heads: tuple[str, ...] = ()
    sizes: dict[str, list[int]] = field(default_factory=dict)
    statistics: list[tuple[torch.Tensor, torch.Tensor]] = field(default_factory=list)
    origins: list[dict[str, str]] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)

    def summary(self) -> list[str]:
        """What was found for each head."""
        return self.lines


def head_slices(dataset: Dataset, subset: str) -> list[range]:
    """Which frames of a subset belong to each head; all to the only one without heads."""
    if not isinstance(dataset, MultiHeadDataset):
        return [range(len(getattr(dataset, subset)))]
    ends = [sum(dataset.sizes[subset][: i + 1]) for i in range(len(dataset.heads))]
    return [range(start, end) for start, end in zip([0, *ends], ends, strict=False)]


def head_statistics(dataset: Dataset) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """E0 and energy scale for each head, float64 [S] each, eV."""
    if isinstance(dataset, MultiHeadDataset):
        return dataset.statistics
    return [statistics_tensors(dataset)]


def head_origins(dataset: Dataset) -> list[dict[str, str]]:
    """Where the E0 of each element come from, for each head."""
    if isinstance(dataset, MultiHeadDataset):
        return dataset.origins
    return [dataset.atomic_energies.origin]


def load_training_data(config: Config) -> Dataset:
    """`load_dataset`, for each entry of ``data.heads`` if there are any.

    An entry has keys of the data section; those that it lacks are as in the section itself.

    Raises
    ------
    TDNError
        As `load_dataset`, naming the head.
    """
    if not config.data.heads:
        return load_dataset(config)
    for key in ("train", "valid", "test", "split_key"):
        if getattr(config.data, key) is not None:
            raise UsageError(
                f"data.{key} and data.heads exclude each other; move it into the heads"
            )
    base = dataclasses.asdict(config.data)
    loaded = {}
    for name, values in config.data.heads.items():
        if "heads" in values:
            raise UsageError(f"data.heads.{name} has heads itself; expected keys of a data section")
        data = data_config_from_dict({**base, **values, "heads": None}, f"data.heads.{name}")
        try:
            # species are those of all heads together: each finds its own first
            loaded[name] = load_dataset(_for_head(config, data))
        except UsageError as error:
            raise UsageError(f"head '{name}': {error}") from None
        except TDNError as error:
            raise TDNError(f"head '{name}': {error}") from None
        if isinstance(loaded[name].train.graphs, LazyGraphs):
            raise TDNError(
                f"head '{name}': streaming and heads do not go together; set data.streaming=never, "
                "or use a smaller data set"
            )
    return _joined(config, loaded)


def _for_head(config: Config, data: DataConfig) -> Config:
    model = dataclasses.replace(config.model, species=())
    return dataclasses.replace(config, data=data, model=model)


def _joined(config: Config, loaded: dict[str, Dataset]) -> MultiHeadDataset:
    species = config.model.species or tuple(
        sorted({s for d in loaded.values() for s in d.model_config.species}, key=atomic_numbers.get)
    )
    numbers = [atomic_numbers[s] for s in species]
    found: dict[str, float] = {}
    for dataset in loaded.values():
        found = {**dataset.atomic_energies.values, **found}
    subsets, sizes, statistics, origins, lines, warnings = {}, {}, [], [], [], []
    for name, dataset in loaded.items():
        missing = [s for s in dataset.model_config.species if s not in species]
        if missing:
            raise TDNError(
                f"head '{name}': frames contain {missing[0]}, the model knows "
                f"{', '.join(species)}; add {missing[0]} to model.species"
            )
        own = dataset.atomic_energies.values
        lacking = [s for s in species if s not in own]
        unknown = [s for s in lacking if s not in found]
        if unknown:
            raise TDNError(f"no E0 for element {unknown[0]}: no head has frames with it")
        if lacking:
            warnings.append(
                f"head '{name}' has no frames with {', '.join(lacking)}: E0 of another head is "
                "used there (give data.heads.<name>.atomic_energies for a better one)"
            )
        scale = dict(zip(dataset.model_config.species, dataset.scale.tolist(), strict=True))
        default = sum(scale.values()) / len(scale)
        statistics.append(
            (
                torch.tensor([own.get(s, found.get(s)) for s in species], dtype=torch.float64),
                torch.tensor([scale.get(s, default) for s in species], dtype=torch.float64),
            )
        )
        origin = dataset.atomic_energies.origin
        origins.append({s: origin.get(s, "another head") for s in species})
        table = torch.from_numpy(species_index(np.array(dataset.atomic_numbers), numbers))
        for part in ("train", "valid", "test"):
            for graph in getattr(dataset, part).graphs:
                graph.species = table[graph.species]
        lines += [f"head {name}: {line}" for line in dataset.summary()]
        warnings += [f"head '{name}': {line}" for line in dataset.warnings]
    for part in ("train", "valid", "test"):
        parts = [getattr(dataset, part) for dataset in loaded.values()]
        frames = [f for p in parts for f in p.frames]
        subsets[part] = Subset(frames, [p.graphs[i] for p in parts for i in range(len(p))])
        sizes[part] = [len(p) for p in parts]
    neighbors = config.model.avg_num_neighbors or mean_neighbors(subsets["train"].graphs)
    first = next(iter(loaded.values()))
    digest = hashlib.sha256()
    for name, dataset in loaded.items():
        digest.update(f"{name} {dataset.fingerprint}".encode())
    energies = dataclasses.replace(
        first.atomic_energies,
        values=dict(zip(species, statistics[0][0].tolist(), strict=True)),
        origin=origins[0],
    )
    return MultiHeadDataset(
        **subsets,
        model_config=dataclasses.replace(
            config.model, species=species, avg_num_neighbors=neighbors
        ),
        atomic_energies=energies,
        scale=statistics[0][1].numpy(),
        num_isolated=sum(d.num_isolated for d in loaded.values()),
        fingerprint=digest.hexdigest()[:32],
        warnings=warnings,
        heads=tuple(loaded),
        sizes=sizes,
        statistics=statistics,
        origins=origins,
        lines=lines,
    )
