"""Figures of a report as PNG in memory."""

from __future__ import annotations

import math
from io import BytesIO

import numpy as np
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from tdn.evaluation.figures import COLORS, clean_axes

Curve = tuple[np.ndarray, np.ndarray]
COLUMNS = 4  # of panels side by side


def as_png(figure: Figure) -> bytes:
    """The bytes of a file."""
    FigureCanvasAgg(figure)
    buffer = BytesIO()
    figure.savefig(buffer, dpi=110, format="png")
    return buffer.getvalue()


def curve_figure(curves: dict[str, Curve], x: str, y: str) -> bytes:
    """Curves in one panel, the first as points."""
    figure = Figure(figsize=(5.2, 3.6), layout="constrained")
    _panel(figure.subplots(), curves, x, y)
    return as_png(figure)


def curves_figure(panels: dict[str, dict[str, Curve]], labels: dict[str, tuple[str, str]]) -> bytes:
    """A panel for each name, with its labels of the axes, as many rows as a page needs."""
    columns = min(len(panels), COLUMNS)
    rows = math.ceil(len(panels) / columns)
    figure = Figure(figsize=(3.7 * columns, 3.3 * rows), layout="constrained")
    places = figure.subplots(rows, columns, squeeze=False).flat
    for (name, curves), axes in zip(panels.items(), places, strict=False):
        _panel(axes, curves, *labels[name])
        axes.set_title(name, fontsize=10)
    for axes in places:  # those that are left
        axes.set_axis_off()
    return as_png(figure)


def _panel(axes, curves: dict[str, Curve], x: str, y: str) -> None:
    for index, (name, (xs, ys)) in enumerate(curves.items()):
        style = {"marker": "o", "ms": 3.2, "lw": 0} if index == 0 else {"lw": 1.5}
        axes.plot(xs, ys, color=COLORS[index], label=name, **style)
    axes.set(xlabel=x, ylabel=y)
    axes.legend(frameon=False, fontsize=8)
    clean_axes(axes)


def parity_figure(panels: dict[str, dict[str, Curve]], unit: str) -> bytes:
    """Reference against student, one panel, one color for each kind; narrow ones in front."""
    figure = Figure(figsize=(6.4 * len(panels), 3.8), layout="constrained")
    row = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, (title, kinds) in zip(row, panels.items(), strict=True):
        values = np.concatenate([np.concatenate(pair) for pair in kinds.values()])
        line = values.min(), values.max()
        axes.plot(line, line, color="#555555", lw=0.9, zorder=1)
        colors = COLORS if len(kinds) <= len(COLORS) else colormaps["tab20"].colors
        widths = [np.abs(x).max() for x, _ in kinds.values()]
        for index, (name, (x, y)) in enumerate(kinds.items()):
            axes.plot(
                x,
                y,
                ".",
                ms=2.5,
                alpha=0.6,
                color=colors[index % len(colors)],
                label=name,
                zorder=2 + sum(width > widths[index] for width in widths) / len(widths),
            )
        axes.set(xlabel=f"reference ({unit})", ylabel=f"student ({unit})", title=title)
        axes.legend(
            frameon=False, fontsize=8, markerscale=3, loc="upper left", bbox_to_anchor=(1.0, 1.0)
        )
        clean_axes(axes)
    return as_png(figure)


def calibration_figure(deviation: np.ndarray, error: np.ndarray, bins: list[Curve]) -> bytes:
    """Errors of forces against deviations, both logarithmic, with the RMS of bins."""
    figure = Figure(figsize=(5.2, 4.0), layout="constrained")
    axes = figure.subplots()
    axes.loglog(deviation, error, ".", ms=2, alpha=0.35, color=COLORS[0], label="atoms")
    x, y = (np.array(part) for part in zip(*bins, strict=True))
    axes.loglog(x, y, "o-", ms=4, color=COLORS[1], label="root mean square of bins")
    line = np.array([deviation.min(), deviation.max()])
    axes.loglog(line, line, "--", lw=0.9, color="#555555", label="equal")
    axes.set(xlabel="deviation of the committee (eV/Å)", ylabel="error of the force (eV/Å)")
    axes.legend(frameon=False, fontsize=8)
    clean_axes(axes)
    return as_png(figure)
