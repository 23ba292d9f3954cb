"""A commented configuration that fits a file of frames: where ``tdn-train --init`` starts."""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import numpy as np
from ase.data import atomic_numbers

from tdn.config import DataConfig, ModelConfig, TrainConfig
from tdn.data.bad_frames import Problems, free_energy
from tdn.data.dataset.streaming import STREAM_FROM
from tdn.data.frames import Frame, LabelKeys
from tdn.data.graphs import build_graphs
from tdn.data.readers.any_file import kind_of, source_files
from tdn.data.readers.ase_files import iterate_atoms
from tdn.data.statistics import find_atomic_energies, is_isolated_atom
from tdn.system.errors import TDNError

from .checks import suspicious
from .summary import Survey, survey

CUTOFFS = (4.0, 4.5, 5.0, 5.5, 6.0)
# mean neighbours per atom: more cost time and bring little, fewer say too little
MANY_NEIGHBORS, FEW_NEIGHBORS = 60, 12
BATCH_SIZES = (1, 2, 4, 5, 8, 10, 16, 24, 32, 48, 64)
# bytes of training memory per atom and per edge for the default network in float32, and the part
# of the free memory that a batch may take
BYTES_PER_ATOM, BYTES_PER_EDGE, MEMORY_PART = 60_000, 10_000, 0.25
# training frames up to which smoother functions of the distance are worth their slower learning
FEW_FRAMES = 1000
# steps per epoch below which batches are not made larger, and steps of a whole run
MIN_STEPS, RUN_STEPS = 60, 40_000
# steps for few frames of one element: a network of one layer has learned what they hold
ELEMENT_STEPS = 6000
# weight of the energy at the end of a run: of molecules; of crystals and liquids, where an energy
# per atom is a mean over many, and from the start
FINAL_ENERGY_WEIGHT = 300
CONDENSED_ENERGY_WEIGHT, CONDENSED_FINAL_ENERGY_WEIGHT = 30, 3000
# part of a run without a better validation loss that is waited for
PATIENCE = 0.1
COUNTED_FRAMES = 50


def initial_config(data: str | Path, folder: str | Path = ".") -> str:
    """YAML text for training on ``data``, to be written in ``folder``.

    Raises
    ------
    TDNError
        If the file cannot be read or has no labels.
    """
    data = Path(data)
    keys = LabelKeys(split=_split_key(data))
    found = survey(data, keys, complete=False)
    if not found.frames:
        raise TDNError(f"{data} holds no usable frame: {'; '.join(found.problems.lines())}")
    if not (found.labels["energy"] or found.labels["forces"]):
        raise TDNError(
            f"ATTENTION: positions only; no frame of {data} has energies or forces under a name "
            f"that is known{found.problems.candidates('energy')}; name them: tdn-train --defaults "
            "prints data.energy_key and data.forces_key"
        )
    default = ModelConfig()
    isolated = [f for f in found.isolated if is_isolated_atom(f, default.r_max)]
    frames = [f for f in found.sample if not is_isolated_atom(f, default.r_max)]
    if not frames:
        raise TDNError(f"{data} holds isolated atoms only; expected structures to train on")
    species = sorted({s for f in frames for s in f.atoms.symbols}, key=atomic_numbers.get)
    counted = frames[:: max(1, len(frames) // COUNTED_FRAMES)][:COUNTED_FRAMES]
    neighbors = _neighbor_counts(counted, species)
    r_max = _cutoff(neighbors, counted)
    # molecules in a large box count as such: no neighbor is an image
    numbers = [atomic_numbers[s] for s in species]
    condensed = any(g.edge_shift.any() for g in build_graphs(counted, numbers, r_max))
    total = found.frames - len(isolated)
    splits = {n: c for n, c in found.splits.items() if n in ("train", "valid", "test")}
    with_splits = bool(splits.get("train") and splits.get("valid"))
    training = splits["train"] if with_splits else max(1, round(0.9 * total))
    atoms = float(np.mean([len(f.atoms) for f in counted]))
    edges = atoms * neighbors[r_max]
    streaming = _is_streamed(data, total)
    epoch = min(training, DataConfig().epoch_frames) if streaming else training
    batch, batch_note = _batch_size(epoch, atoms, edges)
    steps = -(-epoch // batch)
    # many neighbors shorten the cutoff: one layer sees too little then, as in diamond
    far = r_max >= ModelConfig().r_max
    element = condensed and far and len(species) == 1 and training <= FEW_FRAMES
    epochs = int(np.clip(round((ELEMENT_STEPS if element else RUN_STEPS) / steps), 3, 500))
    lines = [
        f"# Written by: tdn-train --init {data.name}",
        f"# {total} frames of {_range([len(f.atoms) for f in frames])} atoms"
        f"{f', {len(isolated)} isolated atoms' if isolated else ''}; "
        f"energies in {found.labels['energy']}, forces in {found.labels['forces']}, stress in "
        f"{found.labels['stress']} of {found.frames}.",
        "# All other keys and their meaning: tdn-train --defaults",
        *_attention(found, frames, counted, species, r_max),
        "",
        "model:",
        f"  species: [{', '.join(species)}]",
        *_wrapped(
            "neighbors per atom: "
            + ", ".join(f"{n:.0f} within {c:g} A" for c, n in neighbors.items())
        ),
        f"  r_max: {r_max:g}",
        *_depth_lines(condensed, element, training),
        f"  num_channels: {default.num_channels}  # accuracy and cost grow with it: 32 to 128",
        "  # no nonlinearity beside the products of messages: the most accurate on a molecule",
        "  gate: false",
        "  radial_hidden: [64]",
        *_smoothness_lines(element, training),
        "",
        "data:",
        f"  train: {_yaml(os.path.relpath(data, folder))}",
        *_split_lines(with_splits, splits, total, keys, streaming),
        *_key_lines(found),
        *_energy_lines(species, frames, isolated),
        *_label_lines(found, total),
        *_streaming_lines(data, total),
        "",
        "train:",
        "  run_dir: run",
        *_wrapped(batch_note),
        f"  batch_size: {batch}",
        f"  # {steps} steps per epoch, about {steps * epochs} in all",
        f"  max_epochs: {epochs}",
        f"  learning_rate: {TrainConfig().learning_rate:g}",
        *_patience_lines(epochs, not element and (with_splits or _valid_fraction(total) > 0)),
        *_weight_lines(found, condensed),
    ]
    return "\n".join(lines) + "\n"


def _split_key(path: Path) -> str | None:
    """``split`` if the first frames of a file have such a key."""
    file = source_files(path)[0]
    if kind_of(file) != "ase":
        return None
    first = (atoms for atoms in iterate_atoms(file, Problems(skip=True)) if atoms is not None)
    named = [isinstance(atoms.info.get("split"), str) for atoms in islice(first, 5)]
    return "split" if any(named) else None


def _neighbor_counts(frames: Sequence[Frame], species: list[str]) -> dict[float, float]:
    numbers = [atomic_numbers[s] for s in species]
    atoms = sum(len(f.atoms) for f in frames)
    return {
        cutoff: sum(g.num_edges for g in build_graphs(frames, numbers, cutoff)) / atoms
        for cutoff in CUTOFFS
    }


def _cutoff(neighbors: dict[float, float], frames: Sequence[Frame]) -> float:
    """The default, shorter where that means many neighbours, longer where few in a crystal."""
    chosen = ModelConfig().r_max
    while neighbors[chosen] > MANY_NEIGHBORS and chosen > CUTOFFS[0]:
        chosen = CUTOFFS[CUTOFFS.index(chosen) - 1]
    if any(f.atoms.pbc.any() for f in frames):
        while neighbors[chosen] < FEW_NEIGHBORS and chosen < CUTOFFS[-1]:
            chosen = CUTOFFS[CUTOFFS.index(chosen) + 1]
    return chosen


def _batch_size(frames: int, atoms: float, edges: float) -> tuple[int, str]:
    each = BYTES_PER_ATOM * atoms + BYTES_PER_EDGE * edges
    fits = MEMORY_PART * _free_memory() / each
    wanted = max(1.0, frames / MIN_STEPS)
    size = max([b for b in BATCH_SIZES if b <= min(wanted, fits)] or [1])
    why = "memory" if fits < wanted else "the number of frames"
    return size, (
        f"about {edges:.0f} edges and {each / 2**20:.0f} MiB per frame in training; the size of "
        f"the batches is limited by {why}"
    )


def _free_memory() -> float:
    """Bytes that are free on this machine; four GiB where that is not known."""
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return float(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    return 4.0 * 2**30


def _range(values: Sequence[int]) -> str:
    return str(min(values)) if min(values) == max(values) else f"{min(values)} to {max(values)}"


def _yaml(value: str) -> str:
    import yaml

    return yaml.safe_dump(value).removesuffix("...\n").strip()


def _wrapped(text: str, indent: str = "  # ") -> list[str]:
    import textwrap

    return textwrap.wrap(text, 98, initial_indent=indent, subsequent_indent=indent)


def _attention(
    found: Survey, frames: list[Frame], counted: list[Frame], species: list[str], r_max: float
) -> list[str]:
    """Findings as comments, so that they are read before training starts."""
    graphs = build_graphs(counted, [atomic_numbers[s] for s in species], r_max)
    chosen = {id(f) for f in counted}
    order = [*counted, *(f for f in frames if id(f) not in chosen)]
    lines = []
    for text in [*_label_findings(found), *suspicious(order, graphs)]:
        lines += _wrapped(f"ATTENTION: {text}", "# ")
    return lines


def _valid_fraction(total: int) -> float:
    return 0.1 if total >= 20 else (0.2 if total >= 5 else 0)


def _depth_lines(condensed: bool, element: bool, training: int) -> list[str]:
    """Degree and layers: few frames ask for more of either, molecules and crystals not for both."""
    default = ModelConfig()
    if element:
        return [
            "  # crystals and melts of one element: angles and products of more neighbors, not",
            "  # a second layer, which overfits few frames (molybdenum: a third off the errors of",
            "  # energies, a twentieth off those of forces); l_max 3 is three to four times faster",
            "  l_max: 4",
            "  correlation: 4",
            "  num_layers: 1",
        ]
    if training > FEW_FRAMES:
        return [f"  l_max: {default.l_max}", f"  num_layers: {default.num_layers}"]
    if condensed:
        return [
            "  # few frames of crystals and melts gain from angles more than from another layer: 3",
            "  # took a tenth off the errors of forces in molybdenum; 2 is faster",
            "  l_max: 3",
            f"  num_layers: {default.num_layers}",
        ]
    return [
        f"  l_max: {default.l_max}",
        "  # a third layer takes a sixth off the errors far from few frames of a molecule; 2 is",
        "  # faster",
        "  num_layers: 3",
    ]


def _smoothness_lines(element: bool, training: int) -> list[str]:
    if element:
        return [
            "  # 1 learns faster than 2, and energies of molybdenum were better",
            "  radial_smoothness: 1",
        ]
    return [
        "  # smoother functions of the distance, 2 for few frames: better far from them; 1 learns",
        "  # faster",
        f"  radial_smoothness: {2 if training <= FEW_FRAMES else 1}",
    ]


def _patience_lines(epochs: int, watched: bool) -> list[str]:
    """Early stopping, in long runs with something to judge by."""
    if not watched:
        return []
    return [
        "  # after so many epochs without a lower validation loss (overfitting) the run goes back",
        "  # to its best weights, lowers the learning rate and ends",
        f"  patience: {max(5, round(PATIENCE * epochs))}",
    ]


def _split_lines(
    with_splits: bool, splits: dict[str, int], total: int, keys: LabelKeys, streaming: bool
) -> list[str]:
    if with_splits:
        counts = ", ".join(f"{n} {c}" for n, c in splits.items())
        return [f"  split_key: {keys.split or 'split'}  # {counts}"]
    fraction = _valid_fraction(total)
    count = max(1, round(fraction * total))
    if streaming:
        count = min(count, DataConfig().evaluation_frames)
    comment = f"{count} frames" if fraction else "too few frames for one"
    return [f"  valid_fraction: {fraction:g}  # validation set: {comment}"]


def _is_streamed(data: Path, total: int) -> bool:
    return total > STREAM_FROM and data.is_file() and kind_of(data) == "store"


def _label_findings(found: Survey) -> list[str]:
    """Labels that no frame has, several names for one label, and what else reading brought up."""
    problems = found.problems
    lines = problems.reasons() + [f"{count} {text}" for text, count in problems.notes.items()]
    for name, why in (
        ("energy", "forces alone leave energies undetermined by a constant"),
        ("forces", "energies alone teach little: one number per frame"),
    ):
        if not found.labels[name]:
            lines.append(f"no frame has {name}{problems.candidates(name)}; {why}")
    for label, keys in problems.used.items():
        if len(keys) > 1:
            counts = ", ".join(f"{key!r} in {count}" for key, count in keys.items())
            lines.append(f"{label} is under different keys: {counts} frames")
        lines += [f"{label} is read from {k!r}{free_energy(k)}" for k in keys if free_energy(k)]
    return lines


def _key_lines(found: Survey) -> list[str]:
    """The keys of labels that have one name, which is not that of ASE."""
    return [
        f"  {label}_key: {_yaml(next(iter(keys)))}"
        for label, keys in found.problems.used.items()
        if len(keys) == 1 and label not in keys
    ]


def _energy_lines(species: list[str], frames: list[Frame], isolated: list[Frame]) -> list[str]:
    """E0 with what is known about them."""
    try:
        energies = find_atomic_energies("auto", species, frames, isolated)
    except TDNError as error:
        return [
            *_wrapped(f"ATTENTION: {error}"),
            "  atomic_energies: auto",
        ]
    origins = set(energies.origin.values())
    lines = ["  # E0 in eV, the energies of isolated atoms"]
    if origins == {"isolated atom"}:
        lines[0] += ", from frames of isolated atoms"
    elif origins == {"least squares"}:
        lines = _wrapped(
            "E0 in eV by least squares over the frames: good for training, but no energies of "
            "isolated atoms; give those where bonds are to break (auto: fit them again)"
        )
    else:
        fitted = [s for s, o in energies.origin.items() if o == "least squares"]
        lines[0] += f"; those of {', '.join(fitted)} by least squares"
    for note in energies.warnings(frames):
        lines += _wrapped(f"ATTENTION: {note}")
    values = ", ".join(f"{s}: {v:.6f}" for s, v in energies.values.items())
    return [*lines, f"  atomic_energies: {{{values}}}"]


def _label_lines(found: Survey, total: int) -> list[str]:
    lacking = {
        name: found.frames - found.labels[name]
        for name in ("energy", "forces")
        if 0 < found.labels[name] < found.frames
    }
    # isolated atoms often come without forces, and need none
    lacking = {n: c for n, c in lacking.items() if c > found.frames - total}
    if not lacking and not found.problems.total:
        return []
    why = [f"{count} frames have no {name}" for name, count in lacking.items()]
    if found.problems.total:
        why.append(f"{found.problems.total} frames cannot be read")
    return [f"  bad_frames: skip  # {', '.join(why)}"]


def _streaming_lines(data: Path, total: int) -> list[str]:
    if total <= STREAM_FROM:
        return []
    if _is_streamed(data, total):
        workers = max(1, min(4, (os.cpu_count() or 1) - 1))
        return [f"  num_workers: {workers}  # frames are read when needed, by these processes"]
    return _wrapped(
        f"{total} frames are read into memory; a database would be streamed: "
        f"tdn-data convert {data.name} -o {data.name.split('.')[0]}.lmdb"
    )


def _weight_lines(found: Survey, condensed: bool) -> list[str]:
    lines = []
    for name in ("energy", "forces", "stress"):
        if not found.labels[name]:
            lines.append(f"  {name}_weight: 0  # no frame has {name}")
    if found.labels["energy"] and found.labels["forces"]:
        final = CONDENSED_FINAL_ENERGY_WEIGHT if condensed else FINAL_ENERGY_WEIGHT
        if condensed:
            lines += [
                "  # energies of strained, molten and cut crystals hold what forces do not",
                f"  energy_weight: {CONDENSED_ENERGY_WEIGHT}",
            ]
        lines += [
            "  # weight at the end: forces teach most, energies follow once the learning rate is",
            "  # small",
            f"  final_energy_weight: {final}",
        ]
    return lines
