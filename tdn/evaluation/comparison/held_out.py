"""Errors of the student on labeled frames, and what a committee's deviation says about them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import ase
import numpy as np
from ase.calculators.calculator import Calculator

from tdn.data.frames import Frame
from tdn.evaluation.calibration import calibrate

from .figures import calibration_figure, parity_figure
from .section import Section

# of the calibration; with fewer atoms than this in a bin its mean says little
BINS, FEWEST = 10, 5
# points of a figure, at most
POINTS = 20_000


@dataclass(frozen=True)
class Predictions:
    """What the student says about frames.

    Attributes
    ----------
    frames : with labels
    energy : [F], eV
    forces : one [N, 3] per frame, eV/angstrom
    spread : one [N] per frame, deviation of a committee in eV/angstrom; None without one
    """

    frames: Sequence[Frame]
    energy: np.ndarray
    forces: list[np.ndarray]
    spread: list[np.ndarray] | None


def predict(
    student: Calculator, frames: Sequence[Frame], committee: Calculator | None = None
) -> Predictions:
    """Evaluate frames; deviations are those of ``committee``, of the student if it is one."""
    energy, forces, spread = [], [], []
    for frame in frames:
        atoms = _plain(frame.atoms)
        atoms.calc = student
        energy.append(atoms.get_potential_energy())
        forces.append(atoms.get_forces())
        results = student.results
        if committee is not None:
            committee.calculate(atoms)
            results = committee.results
        if "forces_std" in results:
            spread.append(results["forces_std"].copy())
    return Predictions(frames, np.array(energy), forces, spread or None)


def _plain(atoms: ase.Atoms) -> ase.Atoms:
    return ase.Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)


def error_section(found: Predictions) -> Section:
    """Errors by kind: energy and forces, beside how large the forces are."""
    section = Section(
        "Held-out frames",
        f"{len(found.frames)} frames that were not trained on, with the reference's labels. "
        "Energies per atom; forces per component. Kinds of the reference's dynamics are of its own "
        "runs; the others of a distillation are of the student's runs.",
        [
            "",
            "frames",
            "energy MAE",
            "RMSE (meV/atom)",
            "force MAE",
            "RMSE (meV/Å)",
            "RMS force",
        ],
    )
    kinds: dict[str, list[int]] = {}
    for index, frame in enumerate(found.frames):
        kinds.setdefault(frame.config_type or "frames", []).append(index)
    everything = list(range(len(found.frames)))
    for name, chosen in [*sorted(kinds.items(), key=_in_words), ("all", everything)]:
        if name == "all" and len(kinds) == 1:
            name = "all frames"
        values = errors_of(found, chosen)
        section.values[name] = values
        section.rows.append(
            [
                name,
                str(len(chosen)),
                f"{values['energy_mae_meV_per_atom']:.2f}",
                f"{values['energy_rmse_meV_per_atom']:.2f}",
                f"{values['forces_mae_meV_per_A']:.1f}",
                f"{values['forces_rmse_meV_per_A']:.1f}",
                f"{values['rms_force_meV_per_A']:.0f}",
            ]
        )
    section.figures.append(_parity(found, kinds))
    return section


def _in_words(item: tuple[str, list[int]]) -> list[str | float]:
    """Key that sorts by words, then by numbers: 300 K before 1500 K, crystals before melts."""
    parts = re.split(r"(\d+(?:\.\d+)?)", item[0])
    return [float(part) if index % 2 else part for index, part in enumerate(parts)]


def errors_of(found: Predictions, chosen: Sequence[int]) -> dict[str, float]:
    """Errors of some frames."""
    energy = np.array(
        [(found.energy[i] - found.frames[i].energy) / len(found.frames[i].atoms) for i in chosen]
    )
    forces = np.concatenate([found.forces[i] - found.frames[i].forces for i in chosen])
    reference = np.concatenate([found.frames[i].forces for i in chosen])
    return {
        "energy_mae_meV_per_atom": 1e3 * float(np.abs(energy).mean()),
        "energy_rmse_meV_per_atom": 1e3 * float(np.sqrt((energy**2).mean())),
        "forces_mae_meV_per_A": 1e3 * float(np.abs(forces).mean()),
        "forces_rmse_meV_per_A": 1e3 * float(np.sqrt((forces**2).mean())),
        "rms_force_meV_per_A": 1e3 * float(np.sqrt((reference**2).mean())),
    }


def _parity(found: Predictions, kinds: dict[str, list[int]]) -> bytes:
    forces = {}
    for name, chosen in kinds.items():
        x = np.concatenate([found.frames[i].forces.ravel() for i in chosen])
        y = np.concatenate([found.forces[i].ravel() for i in chosen])
        step = -(-len(x) * len(kinds) // POINTS)
        forces[name] = (x[::step], y[::step])
    return parity_figure({"force components": forces}, "eV/Å")


def calibration_section(found: Predictions) -> Section:
    """Deviation of the committee against the error of the force, for all atoms."""
    deviation = np.concatenate(found.spread)
    error = np.concatenate(
        [
            np.linalg.norm(forces - frame.forces, axis=1)
            for forces, frame in zip(found.forces, found.frames, strict=True)
        ]
    )
    known = (deviation > 0) & (error > 0)
    deviation, error = deviation[known], error[known]
    order = np.argsort(deviation)
    bins = [
        (
            float(np.sqrt((deviation[part] ** 2).mean())),
            float(np.sqrt((error[part] ** 2).mean())),
        )
        for part in np.array_split(order, BINS)
        if len(part) >= FEWEST
    ]
    judged = calibrate(error, deviation, components=3)
    factor, rank = (judged.factor, judged.correlation) if judged else (np.nan, np.nan)
    section = Section(
        "Calibration",
        f"The deviation of the committee against the true error of the force, {len(error)} atoms "
        f"of the held-out frames. Errors are {factor:.2f} times the deviation (root mean "
        f"squares); rank correlation {rank:.2f}. Multiply the deviation by this factor for an "
        "estimate of the error.",
        ["deviation (meV/Å)", "error (meV/Å)"],
        [[f"{1e3 * x:.1f}", f"{1e3 * y:.1f}"] for x, y in bins],
        values={"error_over_deviation": factor, "rank_correlation": rank, "bins_eV_per_A": bins},
    )
    if bins:
        section.figures.append(calibration_figure(deviation, error, bins))
    return section
