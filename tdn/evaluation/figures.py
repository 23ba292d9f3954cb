"""Figures of evaluations: parity, cumulative errors, calibration, stability, a bond scan."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from tdn.system.atomic_files import atomic_write

from .bond_scan import Scan
from .calibration import SHARES, Calibration
from .errors import Evaluation, errors, frame_errors
from .stability import Stage

COLORS = ("#0b5d8a", "#d1603d", "#5b8c5a", "#7d5ba6")
GRID = {"color": "#d9d9d9", "linewidth": 0.6}


def save_figure(figure: Figure, path: Path) -> None:
    """Write a PNG."""
    FigureCanvasAgg(figure)
    with atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=150, format="png")


def clean_axes(axes: Axes) -> None:
    """Few lines and a light grid."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(True, **GRID)
    axes.set_axisbelow(True)


def parity(path: Path, evaluations: dict[str, Evaluation]) -> None:
    """Predicted against reference energies, forces and stresses, with the errors.

    Parameters
    ----------
    evaluations : name of the set -> its evaluation; sets without a label are left out of a panel
    """
    panels = {
        "energy": ("energy", "eV/atom", "meV/atom"),
        "forces": ("force components", "eV/Å", "meV/Å"),
        "stress": ("stress components", "meV/Å³", "meV/Å³"),
    }
    points = {name: _points(evaluations, name) for name in panels}
    panels = {name: texts for name, texts in panels.items() if points[name]}
    if not panels:
        return
    figure = Figure(figsize=(3.9 * len(panels), 4.0), layout="constrained")
    row = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, (name, (title, unit, error_unit)) in zip(row, panels.items(), strict=True):
        everything = np.concatenate([np.concatenate(pair) for pair in points[name].values()])
        low, high = float(everything.min()), float(everything.max())
        margin = 0.05 * (high - low) or 1.0
        line = (low - margin, high + margin)
        axes.plot(line, line, color="#555555", lw=0.9, zorder=1)
        for (label, (reference, predicted)), color in zip(
            points[name].items(), COLORS, strict=False
        ):
            error = errors(evaluations[label])[name]
            alpha = float(np.clip(300 / len(reference), 0.08, 0.8))
            axes.scatter(reference, predicted, s=9, alpha=alpha, color=color, lw=0, zorder=2)
            text = f"{label}: MAE {error.mae:.3g}, RMSE {error.rmse:.3g} {error_unit}"
            axes.scatter([], [], s=20, color=color, label=text)
        axes.set(xlim=line, ylim=line, aspect="equal", title=title)
        axes.set_xlabel(f"reference ({unit})")
        axes.set_ylabel(f"predicted ({unit})")
        axes.ticklabel_format(useOffset=False)
        axes.locator_params(nbins=5)
        clean_axes(axes)
        axes.legend(frameon=False, fontsize=7.5, loc="upper left", handletextpad=0.2, borderpad=0.1)
    save_figure(figure, path)


def _points(
    evaluations: dict[str, Evaluation], name: str
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Reference and predicted values of one quantity per set, where both are known."""
    found = {}
    for label, evaluation in evaluations.items():
        reference = getattr(evaluation.reference, name)
        predicted = getattr(evaluation.predicted, name)
        if name == "energy":
            reference, predicted = (
                reference / evaluation.num_atoms,
                predicted / evaluation.num_atoms,
            )
        elif name == "stress":
            reference, predicted = 1e3 * reference, 1e3 * predicted
        known = np.isfinite(reference) & np.isfinite(predicted)
        if known.any():
            found[label] = (reference[known], predicted[known])
    return found


def calibration_curves(path: Path, found: dict[str, Calibration]) -> None:
    """Observed against expected share of errors within the bounds that a committee gives."""
    figure = Figure(figsize=(4.4, 4.2), layout="constrained")
    axes = figure.subplots()
    axes.plot((0, 1), (0, 1), color="#555555", lw=0.9)
    for (name, one), color in zip(found.items(), COLORS, strict=False):
        label = f"{name}: {one.used:.3g} times the deviation, area {one.area:.3f}"
        axes.plot(SHARES, one.observed, color=color, label=label)
    axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    axes.set(xlabel="expected share of errors", ylabel="observed share")
    clean_axes(axes)
    axes.legend(frameon=False, fontsize=7.5, loc="lower right")
    save_figure(figure, path)


def cumulative_errors(path: Path, evaluation: Evaluation, symbols: Sequence[str]) -> bool:
    """Share of frames and atoms whose error is below a value; False if nothing has a label.

    Parameters
    ----------
    symbols : chemical symbol of each species
    """
    energy, _ = frame_errors(evaluation)
    force = 1e3 * np.linalg.norm(
        evaluation.predicted.forces - evaluation.reference.forces, axis=1
    )  # [sum of N]
    curves = [
        ("energy of a frame", "error (meV/atom)", {"all frames": energy}),
        (
            "force on an atom",
            "norm of the error (meV/Å)",
            {
                "all atoms": force,
                **{symbols[s]: force[evaluation.species == s] for s in set(evaluation.species)},
            },
        ),
    ]
    curves = [
        (title, label, {n: v[np.isfinite(v)] for n, v in values.items()})
        for title, label, values in curves
    ]
    curves = [(t, label, v) for t, label, v in curves if len(next(iter(v.values())))]
    if not curves:
        return False
    figure = Figure(figsize=(4.6 * len(curves), 3.8), layout="constrained")
    row = figure.subplots(1, len(curves), squeeze=False)[0]
    for axes, (title, label, values) in zip(row, curves, strict=True):
        for number, (name, found) in enumerate(values.items()):
            if not len(found):
                continue
            # an error of exactly zero has no place on a logarithmic axis
            x = np.maximum(np.sort(found), 1e-6)
            share = np.arange(1, len(x) + 1) / len(x)
            color = "#222222" if number == 0 else COLORS[(number - 1) % len(COLORS)]
            axes.step(x, share, where="post", color=color, lw=1.6, label=name)
        axes.set(xscale="log", ylim=(0, 1.02), title=title, xlabel=label, ylabel="share below")
        clean_axes(axes)
        if len(values) > 1:
            axes.legend(frameon=False, fontsize=8)
    save_figure(figure, path)
    return True


def stability(path: Path, stages: Sequence[Stage]) -> None:
    """Temperature of all stages and the total energy of NVE over time."""
    figure = Figure(figsize=(9.0, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    start = 0.0
    for stage, color in zip(stages, COLORS, strict=False):
        time = np.array(stage.time)
        left.plot(start + time, stage.temperature, color=color, lw=1.0, label=stage.name)
        if stage.broken:
            left.axvline(start + stage.lifetime, color="#b00020", lw=1.0, ls="--")
        start += stage.lifetime
        if stage.name == "NVE":
            energy = 1e3 * (np.array(stage.energy) - stage.energy[0]) / stage.num_atoms
            right.plot(time, energy, color=color, lw=1.0)
            right.set_title(f"drift {stage.drift:+.3g} meV/atom/ps", fontsize=9)
    left.set(xlabel="time (ps)", ylabel="temperature (K)")
    right.set(xlabel="time in NVE (ps)", ylabel="change of total energy (meV/atom)")
    left.legend(frameon=False)
    for axes in (left, right):
        clean_axes(axes)
    save_figure(figure, path)


def bond_scan(path: Path, scan: Scan, r_max: float) -> None:
    """Energy, force and second difference along the scan, with the cutoff marked."""
    figure = Figure(figsize=(12.0, 3.4), layout="constrained")
    panels = (
        ("energy (eV)", scan.distance, scan.energy),
        ("force on the moving atom (eV/Å)", scan.distance, scan.force),
        ("second difference of energy (eV/Å²)", scan.distance[1:-1], scan.curvature),
    )
    for axes, (label, x, y), color in zip(figure.subplots(1, 3), panels, COLORS, strict=False):
        axes.plot(x, y, color=color, lw=1.4)
        axes.axvline(r_max, color="#888888", lw=0.8, ls="--")
        axes.set(xlabel="distance (Å)", ylabel=label)
        axes.ticklabel_format(useOffset=False)
        clean_axes(axes)
    save_figure(figure, path)
