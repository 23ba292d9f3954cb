"""Radial distribution and mean square displacement in dynamics of both."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement

import ase
import numpy as np
from ase.data import atomic_numbers
from ase.neighborlist import neighbor_list

from tdn.data.vacuum import is_bulk
from tdn.evaluation.dynamics.in_ase import run_in_ase
from tdn.evaluation.dynamics.plan import Plan, Segment, Trajectory

from .figures import curves_figure
from .section import Pair, Section

# of g(r), angstrom
BIN, FARTHEST = 0.1, 8.0


@dataclass(frozen=True)
class Case:
    """Dynamics to compare.

    Attributes
    ----------
    name : such as ``melt 1500 K``
    start : where both begin
    temperature : K
    timestep : fs
    equilibration, steps : of each run; only the latter is sampled
    """

    name: str
    start: ase.Atoms
    temperature: float
    timestep: float
    equilibration: int
    steps: int
    every: int = 10

    @property
    def plan(self) -> Plan:
        """The run of one calculator, at constant volume."""
        segments = (
            Segment(None, self.temperature, self.temperature, self.equilibration),
            Segment(self.name, self.temperature, self.temperature, self.steps),
        )
        return Plan(self.name, self.start, segments, self.timestep, self.every, seed=11)


def radial_distribution(
    samples: Sequence[ase.Atoms], first: str, second: str, bulk: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Distances at the centers of bins, and g(r) of two elements, averaged over samples.

    It ends where a sphere no longer fits into the cell, at `FARTHEST` at most. Without ``bulk``
    there is no density to divide by, as for molecules, layers and slabs: then it is the number of
    pairs per atom and angstrom.
    """
    cell = samples[0].cell
    if bulk:
        heights = 1 / np.linalg.norm(cell.reciprocal().array, axis=1)
        farthest = min(FARTHEST, 0.5 * heights.min())
    else:
        farthest = FARTHEST
    edges = np.arange(0.0, farthest + 1e-9, BIN)
    counts = np.zeros(len(edges) - 1)
    numbers = samples[0].numbers
    a, b = (int((numbers == atomic_numbers[s]).sum()) for s in (first, second))
    for atoms in samples:
        i, j, d = neighbor_list("ijd", atoms, edges[-1])
        chosen = (numbers[i] == atomic_numbers[first]) & (numbers[j] == atomic_numbers[second])
        counts += np.histogram(d[chosen], edges)[0]
    centers = 0.5 * (edges[1:] + edges[:-1])
    counts /= len(samples) * a
    if not bulk:
        return centers, counts / BIN
    shells = 4 / 3 * np.pi * (edges[1:] ** 3 - edges[:-1] ** 3)
    density = (b - (first == second)) / float(np.mean([s.get_volume() for s in samples]))
    return centers, counts / (density * shells)


def mean_square_displacement(samples: Sequence[ase.Atoms]) -> np.ndarray:
    """From the first sample on, without the motion of the whole, [T] in angstrom^2."""
    positions = np.array([atoms.positions for atoms in samples])
    masses = samples[0].get_masses()
    centers = np.einsum("tnx,n->tx", positions, masses) / masses.sum()
    moved = positions - positions[0] - (centers - centers[0])[:, None]
    return (moved**2).sum(axis=2).mean(axis=1)


def compare_dynamics(
    pair: Pair, case: Case, watch: Callable[[int], None] = lambda steps: None
) -> tuple[Section, Trajectory]:
    """g(r) and mean square displacement of both, and the reference's trajectory.

    The difference of two g(r) means something only beside the scatter of one: that of the two
    halves of the reference's run, divided by two for the mean of both halves.
    """
    text = (
        f"{case.steps * case.timestep * 1e-3:g} ps at {case.temperature:g} K and constant volume "
        f"({len(case.start)} atoms) after {case.equilibration * case.timestep * 1e-3:g} ps, the "
        "same start and thermostat for both."
    )
    section = Section(
        f"Dynamics: {case.name}", text, ["", "difference", "scatter of the reference"]
    )
    runs = []
    for calculator in pair.both:
        runs.append(run_in_ase(case.plan, calculator, watch))
    for name, run in zip(pair.names, runs, strict=True):
        if run.broken:
            section.text += f" {name} ended early: {run.broken}."
            section.values[f"{name}_broken"] = run.broken
    if min(len(run.samples) for run in runs) < 4:
        return section, runs[0]
    samples = [[sample.atoms for sample in run.samples] for run in runs]
    half = len(samples[0]) // 2
    curves = {}
    bulk = is_bulk(case.start)  # for all of them, as their curves are compared
    quantity = "g(r)" if bulk else "pairs per atom and Å"
    elements = sorted(set(case.start.symbols))
    for first, second in combinations_with_replacement(elements, 2):
        if first == second and list(case.start.symbols).count(first) < 2:
            continue
        r, reference = radial_distribution(samples[0], first, second, bulk)
        student = radial_distribution(samples[1], first, second, bulk)[1]
        halves = [
            radial_distribution(part, first, second, bulk)[1]
            for part in (samples[0][:half], samples[0][half:])
        ]
        difference = float(np.sqrt(np.mean((student - reference) ** 2)))
        scatter = float(np.sqrt(np.mean((halves[0] - halves[1]) ** 2))) / 2
        name = f"{first}-{second}"
        section.rows.append([f"{quantity} {name}, RMS", f"{difference:.3f}", f"{scatter:.3f}"])
        section.values[f"g {name}"] = {
            "rms_difference": difference,
            "rms_scatter": scatter,
            "peak_reference": float(reference.max()),
            "r": r.round(4).tolist(),
            "reference": reference.round(5).tolist(),
            "student": student.round(5).tolist(),
        }
        curves[name] = {pair.names[0]: (r, reference), pair.names[1]: (r, student)}
    time = 1e-3 * case.timestep * case.every
    displacements = [mean_square_displacement(each) for each in samples]
    curves["mean square displacement"] = {
        name: (time * np.arange(len(values)), values)
        for name, values in zip(pair.names, displacements, strict=True)
    }
    last = [float(values[len(values) // 2 :].mean()) for values in displacements]
    section.values["mean_square_displacement_A2"] = dict(zip(pair.names, last, strict=True))
    section.text += (
        f" Mean square displacement in the second half: {last[0]:.3g} and {last[1]:.3g} Å²."
    )
    section.figures.append(
        curves_figure(
            curves,
            {name: ("r (Å)", quantity) for name in curves if "-" in name}
            | {"mean square displacement": ("time (ps)", "Å²")},
        )
    )
    return section, runs[0]
