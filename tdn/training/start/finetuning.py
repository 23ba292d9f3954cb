"""``train.init_from``: another run's network as the start, with other elements and energies E0."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from ase.data import atomic_numbers

from tdn.config import Config, ModelConfig, stored_model_config
from tdn.data import Dataset
from tdn.data.dataset.theory_levels import head_origins, head_slices
from tdn.data.statistics import count_elements, least_squares_energies
from tdn.evaluation.errors import evaluate
from tdn.network.build import stored_config
from tdn.network.checkpoint import model_from_dict, read_checkpoint
from tdn.network.elements import pick_species, species_axes
from tdn.network.potential import Potential
from tdn.network.theory_levels import select_head
from tdn.system.errors import TDNError, UsageError
from tdn.training.run.resume import FORMAT

# relative noise on what a new element takes from a known one, so that two new ones differ
NOISE = 0.1
# frames that E0 are fitted to
REFIT_FRAMES = 500
NOBLE_GASES = (2, 10, 18, 36, 54, 86)


def _checkpoint(path: str) -> dict:
    """The content of a checkpoint; of several heads the first is taken."""
    content = read_checkpoint(path)
    return select_head(content, next(iter(content.get("heads", {})), None), path)


def adopt_network(config: Config, state: Path | None = None) -> Config:
    """The configuration with the network of ``train.init_from``, but the species asked for.

    Parameters
    ----------
    state : ``last.pt`` of a run that goes on; it has the network, whatever became of that file

    Raises
    ------
    UsageError
        If the model section asks for another network.
    """
    source = config.train.init_from
    if source is None:
        return config
    path = str(Path(source).expanduser().absolute())  # the same wherever the run goes on
    if state is None:
        found = stored_config(_checkpoint(path))
    else:
        found = stored_model_config(read_checkpoint(state, FORMAT)["config"]["model"])
    default = ModelConfig()
    for field in dataclasses.fields(ModelConfig):
        asked, there = getattr(config.model, field.name), getattr(found, field.name)
        if field.name != "species" and asked not in (there, getattr(default, field.name)):
            raise UsageError(
                f"model.{field.name} = {asked!r}, but the network of train.init_from ({source}) "
                f"has {there!r}; remove the key, since the network comes from that file"
            )
    model = dataclasses.replace(found, species=config.model.species)
    train = dataclasses.replace(config.train, init_from=path)
    return dataclasses.replace(config, model=model, train=train)


def start_from_checkpoint(
    model: torch.nn.Module, path: str, dataset: Dataset, seed: int
) -> list[str]:
    """Take the weights of a checkpoint into a model whose elements may differ.

    What depends on an element is copied for a known one; a new one takes that of the most alike
    known element (`most_alike`), with 10 % noise on weights. The energy scale is part of what the
    network has learned and is taken over in the same way. E0 are those of the new data; where
    least squares give them, they are fitted to what the network leaves unexplained, because
    otherwise the first steps would have to unlearn the difference.

    Parameters
    ----------
    model : network in float64, or several with heads, which all take the same
    dataset : its E0 change when they are fitted

    Returns
    -------
    list of str
        What a user should know.

    Raises
    ------
    TDNError
        If the file is no checkpoint or its network has another form.
    """
    content = _checkpoint(path)
    config = stored_config(content)
    old = config.species
    state = model_from_dict(content).double().state_dict()
    new = model.networks[0].config.species
    source = [most_alike(s, old) for s in new]
    axes = species_axes(config)
    trained = {name for name, _ in model.networks[0].named_parameters()}
    generator = torch.Generator().manual_seed(seed % 2**63)
    fresh = torch.tensor([s not in old for s in new])
    taken = {}
    for name, there in model.networks[0].state_dict().items():
        # E0 belong to the data; the repulsion of nuclei follows from the elements
        if name == "atomic_energies" or name.startswith("zbl."):
            continue
        if name not in state:
            raise TDNError(f"{path} lacks '{name}': its network has another form; train a new one")
        value = pick_species(state[name], axes.get(name, {}), torch.tensor(source), len(old))
        for axis, power in axes.get(name, {}).items():
            is_new = fresh if power == 1 else (fresh[:, None] | fresh[None]).flatten()
            if name in trained:
                noise = torch.randn(value.shape, generator=generator, dtype=torch.float64)
                shape = [-1 if a == axis else 1 for a in range(value.ndim)]
                value = value * (1 + NOISE * noise * is_new.view(shape))
        if value.shape != there.shape:
            raise TDNError(
                f"{path}: '{name}' has shape {list(value.shape)}, this network "
                f"{list(there.shape)}; it was written by another version"
            )
        taken[name] = value
    for network in model.networks:
        network.load_state_dict(taken, strict=False)
    notes = []
    pairs = [f"{s} like {old[i]}" for s, i in zip(new, source, strict=True) if s not in old]
    if pairs:
        notes.append(
            f"elements that {Path(path).name} does not know begin as a known one: "
            f"{', '.join(pairs)}"
        )
    dropped = [s for s in old if s not in new]
    if dropped:
        notes.append(
            f"elements of {Path(path).name} without training frames are dropped: "
            f"{', '.join(dropped)} (name them in model.species, and E0 in data.atomic_energies, "
            "to keep them)"
        )
    _refit(model, dataset)
    return notes


def _refit(model: torch.nn.Module, dataset: Dataset) -> None:
    """Fit E0 that come from least squares to energies minus what the network explains."""
    species = dataset.model_config.species
    networks, slices = model.networks, head_slices(dataset, "train")
    for network, frames, origin in zip(networks, slices, head_origins(dataset), strict=True):
        free = [i for i, s in enumerate(species) if origin[s] == "least squares"]
        if not free:
            continue
        known = (i for i in frames if dataset.train.frames[i].energy is not None)
        chosen = list(islice(known, REFIT_FRAMES))
        if not chosen:
            continue
        fixed = network.atomic_energies.clone()
        fixed[free] = 0.0
        network.atomic_energies.copy_(fixed)
        found = evaluate(Potential(network), [dataset.train.graphs[i] for i in chosen])
        counts = count_elements([dataset.train.frames[i] for i in chosen], species)[:, free]
        some = counts.sum(axis=1) > 0
        rest = (found.reference.energy - found.predicted.energy)[some]
        values, _ = least_squares_energies(counts[some], rest)
        fixed[free] = torch.from_numpy(np.asarray(values))
        network.atomic_energies.copy_(fixed)
    take_energies(model, dataset)


def take_energies(model: torch.nn.Module, dataset: Dataset) -> None:
    """Make the E0 of a network, of the first where there are several, those of the data set."""
    species = dataset.model_config.species
    energies = model.networks[0].atomic_energies.tolist()
    dataset.atomic_energies = dataclasses.replace(
        dataset.atomic_energies, values=dict(zip(species, energies, strict=True))
    )


def most_alike(symbol: str, known: Sequence[str]) -> int:
    """Index of the element itself, else of the nearest one of its group, else of the nearest one.

    Groups count from the noble gas before and from the one after, so that Na is like K and Cl
    like F, whatever is between them.
    """
    if symbol in known:
        return list(known).index(symbol)
    number = atomic_numbers[symbol]

    def unlikeness(other: str) -> tuple[bool, int]:
        z = atomic_numbers[other]
        same = _group(number) & _group(z)
        return (not same, abs(number - z))

    return min(range(len(known)), key=lambda i: unlikeness(known[i]))


def _group(number: int) -> set[tuple[str, int]]:
    """Electrons since the last noble gas (the first three) and missing to the next (up to five)."""
    before = max([z for z in (0, *NOBLE_GASES) if z < number], default=0)
    after = min([z for z in NOBLE_GASES if z >= number], default=118)
    marks = set()
    if number - before <= 3 and number > 2:
        marks.add(("valence", number - before))
    if after - number <= 4:
        marks.add(("holes", after - number))
    return marks
