"""What is in a set of frames: counts of everything, distributions from a bounded sample."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import atomic_numbers

from tdn.data.bad_frames import Problems
from tdn.data.database.store import FrameStore
from tdn.data.database.writer import SMALLEST_CUTOFF
from tdn.data.dataset.permutation import choose
from tdn.data.frames import Frame, LabelKeys
from tdn.data.graphs import build_graphs
from tdn.data.readers.any_file import iterate_frames, kind_of
from tdn.data.statistics import (
    contradicting_energies,
    count_elements,
    is_isolated_atom,
    isolated_energies,
    least_squares_energies,
)
from tdn.graph import Graph
from tdn.system.errors import TDNError
from tdn.system.printable import printable

# frames that distributions and checks look at, those whose neighbours are counted, and successive
# frames that are compared with one another
SAMPLE_FRAMES = 20_000
SAMPLE_GRAPHS = 200
RUN_FRAMES = 1000
# a frame is an outlier beyond this many robust standard deviations
OUTLIER = 8.0
SHOWN_OUTLIERS = 10


@dataclass
class Survey:
    """Counts over all frames, and a random sample of them.

    Attributes
    ----------
    frames, atoms : totals
    elements : symbol -> atoms and frames
    formulas : frames of each composition; of the sample only where all were not read
    labels : frames with energy, forces, stress
    periodicity : frames per kind
    sample : random frames in their order
    run : frames that follow one another
    isolated : frames of single atoms without near images
    problems : what could not be read
    """

    frames: int = 0
    atoms: int = 0
    elements: dict[str, list[int]] = field(default_factory=dict)
    formulas: Counter = field(default_factory=Counter)
    config_types: Counter = field(default_factory=Counter)
    splits: Counter = field(default_factory=Counter)
    labels: dict[str, int] = field(default_factory=lambda: {"energy": 0, "forces": 0, "stress": 0})
    periodicity: Counter = field(default_factory=Counter)
    sample: list[Frame] = field(default_factory=list)
    run: list[Frame] = field(default_factory=list)
    isolated: list[Frame] = field(default_factory=list)
    problems: Problems = field(default_factory=lambda: Problems(skip=True))

    def e0_warnings(self, cutoff: float) -> list[str]:
        """What is wrong with the energies of isolated atoms among the frames."""
        try:
            energies = isolated_energies([f for f in self.isolated if is_isolated_atom(f, cutoff)])
        except TDNError as error:
            return [str(error)]
        rest = [f for f in self.sample if not is_isolated_atom(f, cutoff)]
        found = contradicting_energies(rest, energies)
        return [found] if found else []


def survey(
    path: str | Path, keys: LabelKeys | None = None, stage: str = "1st", complete: bool = True
) -> Survey:
    """Look through a file.

    Parameters
    ----------
    complete : read every frame of a large database too, not only its metadata and a sample

    Raises
    ------
    TDNError
        If it cannot be read at all.
    """
    path = Path(path)
    result = Survey()
    if not complete and path.is_file() and kind_of(path) == "store":
        store = FrameStore(path)
        if len(store) > SAMPLE_FRAMES:
            return _from_metadata(store, result)
    generator = random.Random(0)
    chosen: list[tuple[int, Frame]] = []
    for number, frame in enumerate(iterate_frames(path, keys, result.problems, stage)):
        _count(result, frame)
        if number < RUN_FRAMES:
            result.run.append(frame)
        if len(chosen) < SAMPLE_FRAMES:
            chosen.append((number, frame))
        elif (place := generator.randrange(number + 1)) < SAMPLE_FRAMES:
            chosen[place] = (number, frame)
    result.sample = [frame for _, frame in sorted(chosen, key=lambda item: item[0])]
    return result


def _count(result: Survey, frame: Frame) -> None:
    atoms = frame.atoms
    result.frames += 1
    result.atoms += len(atoms)
    for symbol, count in Counter(atoms.get_chemical_symbols()).items():
        entry = result.elements.setdefault(symbol, [0, 0])
        entry[0] += count
        entry[1] += 1
    if len(result.formulas) < SAMPLE_FRAMES:
        result.formulas[atoms.get_chemical_formula()] += 1
    for name in result.labels:
        result.labels[name] += getattr(frame, name) is not None
    result.periodicity["".join("abc"[i] for i in range(3) if atoms.pbc[i]) or "none"] += 1
    if frame.config_type is not None and len(result.config_types) < 1000:
        result.config_types[frame.config_type] += 1
    if frame.split is not None:
        result.splits[frame.split] += 1
    if len(result.isolated) < 1000 and is_isolated_atom(frame, SMALLEST_CUTOFF):
        result.isolated.append(frame)


def _from_metadata(store: FrameStore, result: Survey) -> Survey:
    metadata = store.metadata
    sample = [store.frame(int(i)) for i in choose(len(store), SAMPLE_FRAMES, 0)]
    for frame in sample:
        _count(result, frame)
    result.frames, result.atoms = len(store), metadata["atoms"]
    result.elements = {s: [e["atoms"], e["frames"]] for s, e in metadata["elements"].items()}
    result.labels = dict(metadata["labels"])
    result.periodicity = Counter(metadata["periodicity"])
    result.splits = Counter(metadata["splits"])
    result.sample = sample
    result.isolated = [store.frame(i) for i in metadata["single_atoms"][:1000]]
    result.run = [store.frame(i) for i in range(min(RUN_FRAMES, len(store)))]
    return result


@dataclass
class Summary:
    """Distributions of a survey's sample; energies in eV, lengths in angstrom.

    Attributes
    ----------
    residual : energy per atom minus that of the best E0, of the frames in ``labeled``
    forces : components of all forces
    largest : largest force component of each frame with forces
    net : norm of the sum of the forces per atom of each of them
    neighbors : neighbours of each atom of some frames within ``cutoff``
    graphs : of those frames
    order : the sample, those frames first
    """

    survey: Survey
    cutoff: float
    e0: dict[str, float]
    labeled: list[Frame]
    residual: np.ndarray
    with_forces: list[Frame]
    forces: np.ndarray
    largest: np.ndarray
    net: np.ndarray
    neighbors: np.ndarray
    graphs: list[Graph]
    order: list[Frame]

    def outliers(self) -> list[tuple[Frame, str]]:
        """Frames far from the others, the farthest first."""
        found = []
        for frame, value, score in zip(
            self.labeled, self.residual, _scores(self.residual), strict=True
        ):
            if score > OUTLIER:
                found.append((score, frame, f"energy {value:+.3f} eV per atom off"))
        scores = _scores(np.log(np.maximum(self.largest, 1e-3)))
        for frame, value, score in zip(self.with_forces, self.largest, scores, strict=True):
            if score > OUTLIER and value > np.median(self.largest):
                found.append((score, frame, f"force up to {value:.3g} eV/A"))
        found.sort(key=lambda item: -item[0])
        return [(frame, text) for _, frame, text in found]


def _scores(values: np.ndarray) -> np.ndarray:
    """Distances from the median in robust standard deviations."""
    if len(values) < 10:
        return np.zeros(len(values))
    middle = np.median(values)
    spread = 1.4826 * np.median(np.abs(values - middle))
    return np.abs(values - middle) / max(spread, 1e-6)


def summarize(found: Survey, cutoff: float) -> Summary:
    """Distributions of the sample of a survey."""
    sample = found.sample
    labeled = [f for f in sample if f.energy is not None and np.isfinite(f.energy)]
    symbols = sorted({s for f in labeled for s in f.atoms.symbols}, key=atomic_numbers.get)
    residual, e0 = np.zeros(0), {}
    if labeled:
        counts = count_elements(labeled, symbols)
        energies = np.array([f.energy for f in labeled])
        values, _ = least_squares_energies(counts, energies)
        residual = (energies - counts @ values) / counts.sum(axis=1)
        e0 = dict(zip(symbols, map(float, values), strict=True))
    with_forces = [f for f in sample if f.forces is not None and np.isfinite(f.forces).all()]
    stride = max(1, len(with_forces) // 2000)
    positions = range(0, len(sample), max(1, len(sample) // SAMPLE_GRAPHS))[:SAMPLE_GRAPHS]
    chosen = [sample[i] for i in positions]
    numbers = sorted({int(n) for f in chosen for n in f.atoms.numbers})
    graphs = build_graphs(chosen, numbers, cutoff)
    neighbors = [np.bincount(g.edge_index[0].numpy(), minlength=g.num_atoms) for g in graphs]
    return Summary(
        survey=found,
        cutoff=cutoff,
        e0=e0,
        labeled=labeled,
        residual=residual,
        with_forces=with_forces,
        forces=np.concatenate([f.forces.ravel() for f in with_forces[::stride]] or [np.zeros(0)]),
        largest=np.array([np.abs(f.forces).max() for f in with_forces]),
        net=np.array([np.linalg.norm(f.forces.sum(axis=0)) / len(f.forces) for f in with_forces]),
        neighbors=np.concatenate(neighbors or [np.zeros(0, int)]),
        graphs=graphs,
        order=[*chosen, *(f for i, f in enumerate(sample) if i not in positions)],
    )


def label_lines(found: Survey) -> list[str]:
    """A line for each label that some or all frames lack, or that is not finite."""
    lines = []
    for name in ("energy", "forces"):
        missing = found.frames - found.labels[name]
        if missing:
            lines.append(
                f"{missing} of {found.frames} frames have no {name}"
                f"{found.problems.candidates(name)}"
            )
        bad = [
            frame
            for frame in found.sample
            if getattr(frame, name) is not None and not np.isfinite(getattr(frame, name)).all()
        ]
        if bad:
            lines.append(
                f"{name} of {len(bad)} frames contain NaN or infinity (first: {bad[0].where})"
            )
    return lines


def _distribution(values: np.ndarray) -> dict[str, float] | None:
    if not len(values):
        return None
    quantiles = np.quantile(values, [0.0, 0.05, 0.5, 0.95, 1.0])
    names = ("min", "5%", "median", "95%", "max")
    return {"mean": float(values.mean()), "std": float(values.std())} | dict(
        zip(names, map(float, quantiles), strict=True)
    )


def summary_to_json(summary: Summary) -> dict[str, Any]:
    """The summary as plain values: eV and angstrom."""
    found = summary.survey
    sizes = np.array([len(f.atoms) for f in found.sample])
    return {
        "frames": found.frames,
        "atoms": found.atoms,
        "sample": len(found.sample),
        "elements": {s: {"atoms": a, "frames": f} for s, (a, f) in sorted(found.elements.items())},
        "compositions": dict(found.formulas.most_common(50)),
        "config_types": dict(found.config_types.most_common(50)),
        "splits": dict(found.splits),
        "labels": found.labels,
        "periodicity": dict(found.periodicity),
        "left_out": found.problems.counts,
        "atoms_per_frame": _distribution(sizes),
        "E0": summary.e0,
        "energy_per_atom_minus_E0": _distribution(summary.residual),
        "force_component": _distribution(summary.forces),
        "largest_force": _distribution(summary.largest),
        "net_force_per_atom": _distribution(summary.net),
        "neighbors_per_atom": _distribution(summary.neighbors),
        "cutoff": summary.cutoff,
        "outliers": [
            {"frame": f.where, "why": text} for f, text in summary.outliers()[:SHOWN_OUTLIERS]
        ],
    }


def summary_lines(summary: Summary) -> list[str]:
    """The summary for people."""
    values = summary_to_json(summary)

    def row(name: str, key: str, unit: str) -> list[str]:
        numbers = values[key]
        if numbers is None:
            return []
        shown = " ".join(f"{numbers[k]:11.4g}" for k in ("min", "5%", "median", "95%", "max"))
        return [f"{name:34}{shown}  {unit}"]

    def counts(items: dict[str, Any], limit: int = 8) -> str:
        shown = ", ".join(f"{printable(n)} {count}" for n, count in list(items.items())[:limit])
        return shown + (f" and {len(items) - limit} more" if len(items) > limit else "")

    elements = {s: e["atoms"] for s, e in values["elements"].items()}
    lines = [
        f"{values['frames']} frames, {values['atoms']} atoms",
        f"elements (atoms): {counts(elements, 20)}",
        f"compositions (frames): {counts(values['compositions'])}",
        f"labels (frames): {counts(values['labels'])}",
        f"periodic directions (frames): {counts(values['periodicity'])}",
    ]
    if values["config_types"]:
        lines.append(f"config types (frames): {counts(values['config_types'])}")
    if values["splits"]:
        lines.append(f"splits (frames): {counts(values['splits'])}")
    if values["sample"] < values["frames"]:
        lines.append(f"distributions are those of {values['sample']} random frames")
    lines += [
        f"{'':34}{'min':>11} {'5%':>11} {'median':>11} {'95%':>11} {'max':>11}",
        *row("atoms per frame", "atoms_per_frame", ""),
        *row("energy per atom minus E0", "energy_per_atom_minus_E0", "eV"),
        *row("force component", "force_component", "eV/A"),
        *row("largest force component of a frame", "largest_force", "eV/A"),
        *row("net force per atom", "net_force_per_atom", "eV/A"),
        *row(f"neighbors within {summary.cutoff:g} A", "neighbors_per_atom", ""),
    ]
    if summary.e0:
        e0 = ", ".join(f"{s} {v:.4f}" for s, v in summary.e0.items())
        lines.append(f"E0 by least squares (eV): {e0}")
    outliers = summary.outliers()
    if outliers:
        lines.append(f"{len(outliers)} outliers:")
        lines += [f"  {frame.where}: {text}" for frame, text in outliers[:SHOWN_OUTLIERS]]
    return lines
