"""Frames on which a potential is worst, and a file of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import ase.io
import numpy as np
from ase.calculators.singlepoint import SinglePointCalculator

from tdn.data import Frame
from tdn.system.atomic_files import atomic_write

from .errors import Evaluation, frame_errors


def worst_frames(evaluation: Evaluation, count: int) -> list[int]:
    """The frames with the largest errors of forces, else of energy, the worst first.

    Frames whose prediction is not finite come before all others; frames without labels never.
    """
    energy, forces = frame_errors(evaluation)
    reference = evaluation.reference
    known = np.isfinite(reference.forces).all(axis=1)
    with_forces = np.logical_and.reduceat(known, evaluation.starts[:-1])
    score = forces if with_forces.any() else energy
    labelled = with_forces if with_forces.any() else np.isfinite(reference.energy)
    score = np.where(np.isfinite(score), score, np.inf)
    order = np.argsort(-score, kind="stable")
    return [int(i) for i in order if labelled[i]][:count]


def write_frames(
    path: Path, frames: Sequence[Frame], evaluation: Evaluation, chosen: Sequence[int]
) -> None:
    """Write frames with their labels as ASE reads them, predictions beside as ``tdn_*``."""
    energy, forces = frame_errors(evaluation)
    written = []
    for index in chosen:
        frame = frames[index]
        atoms = frame.atoms.copy()
        labels = {"energy": frame.energy, "forces": frame.forces}
        atoms.calc = SinglePointCalculator(
            atoms, **{name: value for name, value in labels.items() if value is not None}
        )
        start, end = evaluation.starts[index : index + 2]
        atoms.arrays["tdn_forces"] = evaluation.predicted.forces[start:end]
        atoms.info |= {
            "tdn_energy": float(evaluation.predicted.energy[index]),
            "source": frame.source,
            "frame": frame.number,
        }
        if frame.energy is not None:
            atoms.info["energy_error_meV_per_atom"] = float(energy[index])
        if frame.forces is not None:
            atoms.info["force_rmse_meV_per_A"] = float(forces[index])
        if frame.config_type is not None:
            atoms.info["config_type"] = frame.config_type
        written.append(atoms)
    with atomic_write(path) as temporary:
        ase.io.write(temporary, written, format="extxyz")
