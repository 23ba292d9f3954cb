"""Errors of a potential against reference frames."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from tdn.graph import Graph, collate
from tdn.network.potential import stress_of_virial, virial_of_stress
from tdn.system.printable import printable
from tdn.system.ranks import Ranks

UNITS = {"energy": "meV/atom", "forces": "meV/A", "stress": "meV/A^3"}


@dataclass
class Values:
    """Energies, forces and virials of many frames; NaN where a value is not known.

    Attributes
    ----------
    energy : [F], eV
    forces : [sum of N, 3], eV/angstrom
    virial : [F, 3, 3], eV
    volume : [F], angstrom^3, zero without a cell
    """

    energy: np.ndarray
    forces: np.ndarray
    virial: np.ndarray
    volume: np.ndarray

    @property
    def stress(self) -> np.ndarray:
        """[F, 3, 3], eV/angstrom^3; NaN without a volume."""
        return stress_of_virial(*map(torch.from_numpy, (self.virial, self.volume))).numpy()


@dataclass
class Evaluation:
    """Predicted and reference values of many frames.

    Attributes
    ----------
    predicted, reference : values of all frames
    num_atoms : int [F]
    species : int [sum of N], species of each atom
    weight : [F], weights in the loss; None: one each
    """

    predicted: Values
    reference: Values
    num_atoms: np.ndarray
    species: np.ndarray
    weight: np.ndarray | None = None

    @property
    def starts(self) -> np.ndarray:
        """Where the atoms of each frame begin, and their total number; int [F + 1]."""
        return np.concatenate([[0], np.cumsum(self.num_atoms)])


@dataclass(frozen=True)
class Errors:
    """Mean absolute and root mean square error of one quantity over its components."""

    mae: float
    rmse: float
    count: int


def evaluate(
    potential: Callable[[Graph], dict[str, torch.Tensor]],
    graphs: Sequence[Graph],
    batch_size: int = 16,
    device: str | torch.device = "cpu",
    progress: bool = False,
    ranks: Ranks | None = None,
) -> Evaluation:
    """Evaluate graphs with reference values (NaN where there are none).

    Parameters
    ----------
    potential : `tdn.network.potential.Potential`
    progress : show a bar on a terminal
    ranks : share the batches with other ranks, all of which call this; each gets all values
    """
    ranks = ranks or Ranks()
    starts = range(0, len(graphs), batch_size)
    mine = starts[ranks.rank :: ranks.size]
    quiet = not (progress and ranks.main and sys.stderr.isatty())
    num_atoms = torch.zeros(len(graphs), dtype=torch.float64)
    parts = []
    for start in tqdm(mine, desc="evaluating", unit="batch", disable=quiet, leave=False):
        batch = collate([graphs[i] for i in range(start, min(start + batch_size, len(graphs)))])
        result = potential(batch.to(device))
        num_atoms[start : start + batch.num_graphs] = batch.atoms_per_graph.double()
        # one row of numbers per frame, and one per atom
        values = {n: result[n].detach().cpu().double() for n in ("energy", "forces", "virial")}
        label = virial_of_stress(batch.stress, batch.volume)
        weight = torch.ones_like(batch.energy) if batch.weight is None else batch.weight
        frames = [values["energy"], batch.energy, batch.volume, weight]
        virials = [values["virial"].flatten(1), label.flatten(1)]
        atoms = [values["forces"], batch.forces, batch.species.double()[:, None]]
        parts.append((start, torch.cat([torch.stack(frames, 1), *virials], 1), torch.cat(atoms, 1)))
    ranks.sum(num_atoms)
    # every rank fills in its rows and leaves zeros elsewhere, so the sum is exact
    counts = num_atoms.long()
    first = torch.cat([counts.new_zeros(1), counts.cumsum(0)]).tolist()
    by_frame = torch.zeros(len(graphs), 22, dtype=torch.float64)
    by_atom = torch.zeros(first[-1], 7, dtype=torch.float64)
    for start, frames, atoms in parts:
        by_frame[start : start + len(frames)] = frames
        by_atom[first[start] : first[start] + len(atoms)] = atoms
    frames, atoms = ranks.sum(by_frame).numpy(), ranks.sum(by_atom).numpy()
    energies, volume, virials = frames[:, :2].T, frames[:, 2], frames[:, 4:].reshape(-1, 2, 3, 3)
    return Evaluation(
        predicted=Values(energies[0], atoms[:, :3], virials[:, 0], volume),
        reference=Values(energies[1], atoms[:, 3:6], virials[:, 1], volume),
        num_atoms=counts.numpy(),
        species=atoms[:, 6].astype(int),
        weight=frames[:, 3],
    )


def join_evaluations(parts: Sequence[Any]) -> Any:
    """One `Evaluation` (or `Values`) with the frames of several concatenated."""
    if parts[0] is None:
        return None
    if not dataclasses.is_dataclass(parts[0]):
        return np.concatenate(parts)
    names = [field.name for field in dataclasses.fields(parts[0])]
    return type(parts[0])(*(join_evaluations([getattr(p, n) for p in parts]) for n in names))


def _errors(predicted: np.ndarray, reference: np.ndarray) -> Errors | None:
    # only a missing reference excuses: a prediction that is NaN makes the error NaN
    labelled = np.isfinite(reference)
    known = 1e3 * (predicted - reference)[labelled]
    if not known.size:
        return None
    with np.errstate(over="ignore"):  # weights that have blown up
        rmse = float(np.sqrt((known**2).mean()))
    return Errors(float(np.abs(known).mean()), rmse, known.size)


def errors(
    evaluation: Evaluation, frames: np.ndarray | None = None, species: int | None = None
) -> dict[str, Errors | None]:
    """Errors in meV/atom, meV/angstrom and meV/angstrom^3; None without reference values.

    Forces and stresses count per component.

    Parameters
    ----------
    frames : bool [F], frames to look at; all by default
    species : atoms to look at (then only ``forces`` is meaningful and returned)
    """
    predicted, reference = evaluation.predicted, evaluation.reference
    frames = np.ones(len(evaluation.num_atoms), bool) if frames is None else frames
    atoms = np.repeat(frames, evaluation.num_atoms)
    if species is not None:
        atoms = atoms & (evaluation.species == species)
    forces = _errors(predicted.forces[atoms], reference.forces[atoms])
    if species is not None:
        return {"forces": forces}
    counts = evaluation.num_atoms[frames]
    stress = predicted.stress
    return {
        "energy": _errors(predicted.energy[frames] / counts, reference.energy[frames] / counts),
        "forces": forces,
        "stress": None  # of networks with direct forces
        if np.isnan(stress).all()
        else _errors(stress[frames], reference.stress[frames]),
    }


def frame_errors(evaluation: Evaluation) -> tuple[np.ndarray, np.ndarray]:
    """Errors of each frame, NaN without labels.

    Returns
    -------
    energy : [F], absolute error in meV/atom
    forces : [F], root mean square over components in meV/angstrom
    """
    predicted, reference = evaluation.predicted, evaluation.reference
    energy = 1e3 * np.abs(predicted.energy - reference.energy) / evaluation.num_atoms
    square = ((predicted.forces - reference.forces) ** 2).mean(axis=1)
    mean = np.add.reduceat(square, evaluation.starts[:-1]) / evaluation.num_atoms
    return energy, 1e3 * np.sqrt(mean)


def error_tables(
    evaluation: Evaluation, config_types: Sequence[str | None], symbols: Sequence[str]
) -> dict[str, dict]:
    """Errors of all frames, per configuration type and, for forces, per element.

    Parameters
    ----------
    config_types : of each frame
    symbols : chemical symbol of each species

    Returns
    -------
    dict
        ``all``: errors; ``config_types``: name -> errors (empty if no frame carries one);
        ``elements``: symbol -> errors.
    """
    names = np.array([t if t is not None else "(none)" for t in config_types], dtype=object)
    groups = sorted(set(names)) if any(t is not None for t in config_types) else []
    present = sorted(set(evaluation.species.tolist()))
    return {
        "all": errors(evaluation),
        "config_types": {name: errors(evaluation, names == name) for name in groups},
        "elements": {symbols[i]: errors(evaluation, species=i) for i in present},
    }


def tables_to_json(tables: dict[str, dict]) -> dict[str, dict]:
    """The same as plain values, with units."""

    def plain(row: dict[str, Errors | None]) -> dict[str, dict]:
        return {
            name: {"mae": e.mae, "rmse": e.rmse, "count": e.count, "unit": UNITS[name]}
            for name, e in row.items()
            if e is not None
        }

    return {
        name: plain(part) if name == "all" else {key: plain(row) for key, row in part.items()}
        for name, part in tables.items()
    }


def format_rows(rows: dict[str, dict[str, Errors | None]]) -> str:
    """A text table: one line per row, MAE and RMSE of each quantity.

    Parameters
    ----------
    rows : name -> errors; names may come from a file
    """
    quantities = [q for q in UNITS if any(row.get(q) is not None for row in rows.values())]
    names = [printable(name) for name in rows]
    width = max([len(name) for name in names] + [8])
    head, units = f"{'':{width}}", f"{'':{width}}"
    for quantity in quantities:
        head += f"  {f'{quantity} ({UNITS[quantity]})':>21}"
        units += f"  {'MAE':>10} {'RMSE':>10}"
    lines = [head, units]
    for name, row in zip(names, rows.values(), strict=True):
        line = f"{name:{width}}"
        for quantity in quantities:
            e = row.get(quantity)
            line += f"  {'-':>10} {'-':>10}" if e is None else f"  {e.mae:10.3f} {e.rmse:10.3f}"
        lines.append(line)
    return "\n".join(line.rstrip() for line in lines)
