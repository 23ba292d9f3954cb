"""Figures of a run: learning curve and parity plots."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from tdn.evaluation.errors import Evaluation, errors
from tdn.system.atomic_files import atomic_write

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


def learning_curve(path: Path, rows: Sequence[dict[str, float]]) -> None:
    """Loss, and errors on the validation frames, over the epochs.

    Parameters
    ----------
    rows : of ``log.csv``
    """
    figure = Figure(figsize=(9.0, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)

    def draw(axes: Axes, name: str, label: str, color: str) -> bool:
        points = [(r["epoch"], r[name]) for r in rows if r.get(name, 0) > 0]
        if points:
            epochs, values = zip(*points, strict=True)
            # one point alone makes no visible line
            marker = "o" if len(points) < 10 else None
            axes.plot(epochs, values, color=color, label=label, lw=1.6, marker=marker, ms=3.5)
        return bool(points)

    drawn = [
        draw(left, "train_loss", "training", COLORS[0]),
        draw(left, "valid_loss", "validation", COLORS[1]),
    ]
    left.set_ylabel("loss")
    quantities = (
        ("energy", "energy (meV/atom)"),
        ("forces", "forces (meV/Å)"),
        ("stress", "stress (meV/Å³)"),
    )
    shown = [
        draw(right, f"valid_{quantity}_rmse", label, color)
        for (quantity, label), color in zip(quantities, COLORS, strict=False)
    ]
    right.set_ylabel("validation RMSE")
    for axes, present in ((left, any(drawn)), (right, any(shown))):
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        clean_axes(axes)
        if present:
            axes.set_yscale("log")
            axes.yaxis.set_minor_locator(LogLocator(subs=(2, 5)))
            axes.yaxis.set_minor_formatter(NullFormatter())
            axes.legend(frameon=False)
    save_figure(figure, path)


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
