"""Training data that do not fit in memory: a database whose frames are read when they are needed.

What is kept in memory does not depend on the number of frames: the metadata of the database, a
random sample for statistics and checks, bounded validation and test sets, a bounded cache of
graphs, and the batches of one epoch, which is at most `data.epoch_frames` long.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from ase.data import atomic_numbers

from tdn.config import Config, DataConfig
from tdn.data.database.store import FrameStore
from tdn.data.frames import Frame, label_keys
from tdn.data.graphs import build_graphs
from tdn.data.readers.any_file import kind_of, read_frames
from tdn.data.statistics import energy_scale, find_atomic_energies, is_isolated_atom, mean_neighbors
from tdn.data.survey.checks import suspicious
from tdn.data.survey.unit_checks import force_consistency
from tdn.data.units import unit_factor
from tdn.system.errors import TDNError, UsageError

from .lazy import LazyFrames, LazyGraphs
from .permutation import Complement, EpochOrder, choose
from .settings import check_species, train_files
from .subset import Subset
from .types import Dataset

# a database with more frames than this is not read into memory
STREAM_FROM = 50_000
# random frames behind E0, energy scale and warnings, and those whose neighbours are counted
SAMPLE_FRAMES = 5000
SAMPLE_GRAPHS = 500
SAMPLE_PAIRS = 200


def streaming_store(data: DataConfig) -> FrameStore | None:
    """The database behind ``data.train`` if its frames are to be streamed.

    Raises
    ------
    TDNError
        If streaming is asked for and the file is no database of this project.
    """
    files = train_files(data)
    path = Path(files[0])
    alone = len(files) == 1 and path.is_file() and kind_of(path) == "store"
    if data.streaming == "never" or not alone:
        if data.streaming == "always":
            raise TDNError(
                f"data.streaming=always needs a database of frames; make one: tdn-data convert "
                f"{' '.join(files)} -o {path.stem}.lmdb"
            )
        return None
    store = FrameStore(path)
    if data.streaming == "auto" and len(store) <= STREAM_FROM:
        return None
    if unit_factor("data.stress_unit", data.stress_unit) != 1:
        raise UsageError(
            f"data.stress_unit = {data.stress_unit} and streaming exclude each other; convert the "
            f"units: tdn-data convert {path} --stress-unit={data.stress_unit} -o NEW.lmdb"
        )
    return store


def load_streaming(config: Config, store: FrameStore, needs: tuple[bool, bool]) -> Dataset:
    """The data set behind a database, without reading more of it than a sample.

    Parameters
    ----------
    needs : whether training needs energies, and whether it needs forces

    Raises
    ------
    TDNError
        For anything in the database or the settings that does not allow to train.
    """
    data, model, seed = config.data, config.model, config.train.seed
    found = sorted(store.metadata["elements"], key=atomic_numbers.get)
    species = model.species or tuple(found)
    model = dataclasses.replace(model, species=species)
    isolated = [store.frame(i) for i in store.metadata["single_atoms"]]
    isolated = [f for f in isolated if is_isolated_atom(f, model.r_max)]
    _require_labels(store, isolated, needs)
    if data.isolated_atoms:
        isolated += _isolated_file(data, model.r_max)
    numbers = _numbers(
        config, store, {f.number - 1 for f in isolated if f.source == store.path.name}
    )
    sample = _sample(store, numbers, seed, model.r_max)
    parts: dict[str, Sequence[Frame]] = {"train": sample}
    for name, path in (("valid", data.valid), ("test", data.test)):
        if path is None:
            chosen = numbers[name]
            kept = [int(chosen[i]) for i in choose(len(chosen), data.evaluation_frames, seed)]
            parts[name] = LazyFrames(store, kept)
        else:
            parts[name] = _evaluation_file(path, config)
    _check_elements(store, species)
    check_species(species, {n: f for n, f in parts.items() if n != "train"})
    energies = find_atomic_energies(data.atomic_energies, species, sample, isolated)
    charges = [atomic_numbers[s] for s in species]
    graphs = build_graphs(sample[:SAMPLE_GRAPHS], charges, model.r_max, "a sample")
    neighbors = mean_neighbors(graphs)
    if model.avg_num_neighbors is None:
        model = dataclasses.replace(model, avg_num_neighbors=neighbors)

    def lazy(frames: LazyFrames, cache_mb: int) -> LazyGraphs:
        return LazyGraphs(frames, charges, model.r_max, cache_mb * 2**20, neighbors)

    def subset(name: str) -> Subset:
        frames = parts[name]
        if isinstance(frames, LazyFrames):
            return Subset(frames, lazy(frames, data.cache_mb), total=len(numbers[name]))
        return Subset(frames, build_graphs(frames, charges, model.r_max, f"{name} frames"))

    train_frames = LazyFrames(store, EpochOrder(numbers["train"], data.epoch_frames, seed))
    count = min(data.evaluation_frames, len(train_frames))
    chosen = choose(len(numbers["train"]), count, seed + 1)
    shown = LazyFrames(store, [int(numbers["train"][i]) for i in chosen])
    train = Subset(
        train_frames,
        lazy(train_frames, data.cache_mb),
        total=len(numbers["train"]),
        sample=Subset(shown, lazy(shown, 0)),
    )
    warnings = [
        *_split_warnings(store, config),
        *energies.warnings(sample),
        *(f"in a sample of {len(sample)} frames: {w}" for w in suspicious(sample, graphs)),
        *(f"in a sample: {w}" for w in [force_consistency(_runs(store, seed))] if w),
    ]
    return Dataset(
        train=train,
        valid=subset("valid"),
        test=subset("test"),
        model_config=model,
        atomic_energies=energies,
        scale=energy_scale(sample, species, data.energy_scale),
        num_isolated=len(isolated),
        fingerprint=_fingerprint(store, config, parts, isolated),
        warnings=warnings,
    )


def _require_labels(store: FrameStore, isolated: list[Frame], needs: tuple[bool, bool]) -> None:
    for name, needed in zip(("energy", "forces"), needs, strict=True):
        missing = len(store) - store.metadata["labels"][name]
        missing -= sum(getattr(frame, name) is None for frame in isolated)
        if needed and missing > 0:
            raise TDNError(
                f"{missing} of {len(store)} frames of {store.path.name} have no {name}; "
                f"leave them out (tdn-data convert {store.path.name} -o new.lmdb --require {name}) "
                f"or set train.{name}_weight=0"
            )


def _check_elements(store: FrameStore, species: Sequence[str]) -> None:
    extra = [s for s in store.metadata["elements"] if s not in species]
    if extra:
        count = store.metadata["elements"][extra[0]]["frames"]
        raise TDNError(
            f"{count} frames of {store.path.name} contain {extra[0]}, the model knows "
            f"{', '.join(species)}; add {extra[0]} to model.species"
        )


def _isolated_file(data: DataConfig, r_max: float) -> list[Frame]:
    keys = dataclasses.replace(label_keys(data), split=None)
    frames = read_frames(data.isolated_atoms, keys)
    for frame in frames:
        if not is_isolated_atom(frame, r_max):
            raise TDNError(
                f"{frame.where} (data.isolated_atoms) has {len(frame.atoms)} atoms or a small "
                "periodic cell; expected one isolated atom per frame"
            )
    return frames


def _numbers(config: Config, store: FrameStore, isolated: set[int]) -> dict[str, Sequence[int]]:
    """Which frames of the database are for what."""
    data = config.data
    if data.split_key is not None:
        if not store.splits:
            raise TDNError(
                f"{store.path} does not say which frames are for training (data.split_key = "
                f"'{data.split_key}'); convert it with --split, or remove data.split_key"
            )
        parts = {name: store.split(name) for name in ("train", "valid", "test")}
    else:
        parts = {"train": Complement(len(store), sorted(isolated)), "valid": (), "test": ()}
    if not len(parts["train"]):
        raise TDNError(f"{store.path.name} holds no training frame")
    if len(parts["valid"]) or data.valid or data.valid_fraction == 0:
        return parts
    if data.split_key is not None:
        raise UsageError(
            f"{store.path} has no validation frames; set data.valid, or data.valid_fraction=0"
        )
    count = max(1, round(data.valid_fraction * len(parts["train"])))
    if count >= len(parts["train"]):
        raise TDNError(f"splitting {count} frames off for validation leaves none for training")
    count = min(count, data.evaluation_frames)
    chosen = choose(len(parts["train"]), count, config.train.seed)
    valid = [int(parts["train"][i]) for i in chosen]
    parts["train"] = Complement(len(store), sorted({*isolated, *valid}))
    parts["valid"] = valid
    return parts


def _sample(
    store: FrameStore, numbers: dict[str, Sequence[int]], seed: int, r_max: float
) -> list[Frame]:
    """Random training frames, and some that hold each element."""
    train, valid = numbers["train"], numbers["valid"]
    chosen = [int(train[i]) for i in choose(len(train), SAMPLE_FRAMES, seed)]
    order = np.random.Generator(np.random.PCG64(seed)).permutation(len(chosen))
    taken = [chosen[i] for i in order]
    known = {*taken, *(valid if isinstance(valid, list) else ())}
    examples = [i for e in store.metadata["elements"].values() for i in e["examples"]]
    frames = [store.frame(i) for i in taken]
    others = [store.frame(i) for i in dict.fromkeys(examples) if i not in known]
    frames += [frame for frame in others if frame.split in (None, "train")]
    return [frame for frame in frames if not is_isolated_atom(frame, r_max)]


def _evaluation_file(path: str, config: Config) -> Sequence[Frame]:
    """Frames of a validation or test file of its own; a bounded choice of a database."""
    data = config.data
    if Path(path).is_file() and kind_of(path) == "store":
        store = FrameStore(path)
        return LazyFrames(
            store, choose(len(store), data.evaluation_frames, config.train.seed).tolist()
        )
    return read_frames(path, dataclasses.replace(label_keys(data), split=None), stage=data.stage)


def _runs(store: FrameStore, seed: int) -> list[Frame]:
    """Pairs of successive frames, concatenated."""
    starts = choose(max(1, len(store) - 1), SAMPLE_PAIRS, seed)
    return [store.frame(int(i)) for start in starts for i in (start, start + 1) if i < len(store)]


def _split_warnings(store: FrameStore, config: Config) -> list[str]:
    data = config.data
    random_split = data.split_key is None and not data.valid and data.valid_fraction > 0
    if random_split and store.metadata["trajectories"] < len(store):
        return [
            "frames of one trajectory are used for training and validation, which makes errors "
            "look too small; convert the data with --split trajectory and set data.split_key=split"
        ]
    return []


def _fingerprint(
    store: FrameStore, config: Config, parts: dict[str, Sequence[Frame]], isolated: list[Frame]
) -> str:
    """Hash of the database and of what decides about the roles of its frames."""
    data = config.data
    digest = hashlib.sha256(store.metadata["hash"].encode())
    roles = (data.split_key is not None, data.valid_fraction, data.evaluation_frames)
    digest.update(repr((roles, data.epoch_frames, config.train.seed, store.splits)).encode())
    for name in ("valid", "test"):
        digest.update(f"{name} {len(parts[name])}".encode())
        for frame in parts[name]:
            digest.update(frame.atoms.positions.tobytes())
    for frame in isolated:
        digest.update(repr((frame.atoms.numbers.tolist(), frame.energy)).encode())
    return digest.hexdigest()[:32]
