"""The figure of ``tdn-data stats``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from tdn.system.atomic_files import atomic_write

from .summary import Summary

COLOR = "#0b5d8a"


def summary_figure(path: str | Path, summary: Summary) -> None:
    """Six panels: elements, sizes, energies, forces, largest forces, neighbours."""
    figure = Figure(figsize=(12.0, 7.0), layout="constrained")
    axes = figure.subplots(2, 3)
    found = summary.survey
    elements = sorted(found.elements.items(), key=lambda item: -item[1][0])[:20]
    axis = axes[0, 0]
    axis.bar([symbol for symbol, _ in elements], [counts[0] for _, counts in elements], color=COLOR)
    axis.set(xlabel="element", ylabel="atoms", title=f"{found.frames} frames, {found.atoms} atoms")
    if elements and elements[0][1][0] > 50 * elements[-1][1][0]:
        axis.set_yscale("log")
    sizes = np.array([len(f.atoms) for f in found.sample])
    _histogram(axes[0, 1], sizes, "atoms per frame", "frames")
    _histogram(axes[0, 2], summary.residual, "energy per atom minus E0 (eV)", "frames")
    _histogram(axes[1, 0], summary.forces, "force component (eV/Å)", "components")
    largest = np.log10(np.maximum(summary.largest, 1e-6))
    _histogram(axes[1, 1], largest, "log10 of the largest force component (eV/Å)", "frames")
    neighbors = summary.neighbors
    _histogram(axes[1, 2], neighbors, f"neighbors within {summary.cutoff:g} Å", "atoms")
    for axis in axes.flat:
        axis.spines[["top", "right"]].set_visible(False)
    FigureCanvasAgg(figure)
    with atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=150, format="png")


def _histogram(axis: Axes, values: np.ndarray, label: str, what: str) -> None:
    axis.set(xlabel=label, ylabel=what)
    if not len(values):
        axis.text(0.5, 0.5, "none", ha="center", transform=axis.transAxes)
        return
    whole = np.issubdtype(values.dtype, np.integer)
    bins = 60
    if whole and np.ptp(values) < 60:
        bins = np.arange(values.min(), values.max() + 2) - 0.5
    axis.hist(values, bins=bins, color=COLOR)
    axis.set_yscale("log")
