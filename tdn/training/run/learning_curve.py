"""Figure of a run: losses and errors over the epochs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from tdn.evaluation.figures import COLORS, clean_axes, save_figure


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
