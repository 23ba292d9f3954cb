"""How well the deviation of a committee predicts its true error.

The error of a force is taken as normally distributed, with the same deviation along x, y and z,
and likewise that of an energy. The deviation of the members then gives the width of that
distribution up to a factor, as members that were trained on the same frames agree on what they
lack. The factor makes mean squares equal,

.. math:: s^2 = \\sum_i |e_i|^2 / \\sum_i \\sigma_i^2 ,

and the calibration curve (Kuleshov et al., arXiv 1807.00263; Tran et al., arXiv 1912.10066) says
which share of errors lies within the bound that a share p should not exceed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.integrate import trapezoid
from scipy.special import gammaincinv
from torch import Tensor

from tdn.graph import Graph
from tdn.inference.compiled_model import over_members

from .errors import Evaluation, evaluate

# expected shares at which the curve is known
SHARES = np.linspace(0.0, 1.0, 101)
# components of one error: their number decides on the distribution of its size
COMPONENTS = {"energy": 1, "forces": 3}


@dataclass(frozen=True)
class Calibration:
    """How deviations compare with errors.

    Attributes
    ----------
    factor : root mean square of the errors over that of the deviations
    used : factor that the curve is for: a stored one, or ``factor``
    area : area between the curve and the diagonal, 0 (perfect) to 0.5
    area_as_is : the same for deviations without a factor
    correlation : Spearman's rank correlation of errors and deviations, NaN where one is constant
    observed : [101], share of errors within the bounds of the shares `SHARES`
    count : number of errors
    """

    factor: float
    used: float
    area: float
    area_as_is: float
    correlation: float
    observed: np.ndarray
    count: int


def calibrate(
    error: np.ndarray, deviation: np.ndarray, components: int, factor: float | None = None
) -> Calibration | None:
    """Compare sizes of errors with deviations; None where nothing can be said.

    Parameters
    ----------
    error : [M], sizes of errors (norms of vectors); NaN where there is no reference
    deviation : [M], root mean square of the members' distances from their mean, same unit; those
        of zero, of atoms without neighbors, say nothing
    components : of each error
    factor : judge this one instead of the best for these errors
    """
    from scipy.stats import spearmanr  # half a second, which only committees need

    known = np.isfinite(error) & (deviation > 0)
    error, deviation = error[known], deviation[known]
    if not len(error) or not error.any():
        return None
    best = float(np.sqrt((error**2).sum() / (deviation**2).sum()))
    used = best if factor is None else factor
    constant = len(error) < 2 or np.ptp(error) == 0 or np.ptp(deviation) == 0
    correlation = np.nan if constant else float(spearmanr(error, deviation).statistic)
    ratio = np.sort(error / deviation)
    observed, as_is = (_observed(ratio / s, components) for s in (used, 1.0))
    return Calibration(best, used, _area(observed), _area(as_is), correlation, observed, len(error))


def _observed(ratio: np.ndarray, components: int) -> np.ndarray:
    """Share of sorted errors, in units of their deviation, within each bound of `SHARES`."""
    # |e|^2 / (sigma^2 / k) of k normal components has a chi-square distribution
    bound = np.sqrt(2 * gammaincinv(components / 2, SHARES) / components)
    return np.searchsorted(ratio, bound, side="right") / len(ratio)


def _area(observed: np.ndarray) -> float:
    return float(trapezoid(np.abs(observed - SHARES), SHARES))


class _Recorder:
    """A committee as `evaluate` takes it, which keeps the deviations of every batch."""

    def __init__(self, committee: Callable[[Graph], dict[str, Tensor]]) -> None:
        self.committee = committee
        self.deviations: dict[str, list[Tensor]] = {name: [] for name in COMPONENTS}

    def __call__(self, graph: Graph) -> dict[str, Tensor]:
        results = self.committee(graph)
        for name, values in self.deviations.items():
            values.append(results[f"{name}_std"].detach().cpu().double())
        return results


def evaluate_committee(
    committee: Callable[[Graph], dict[str, Tensor]],
    graphs: Sequence[Graph],
    *args: Any,
    **kwargs: Any,
) -> tuple[Evaluation, dict[str, np.ndarray]]:
    """`evaluate` with a committee, and its deviations: energies [F] in eV, forces in eV/angstrom.

    Parameters
    ----------
    committee : gives ``energy_std`` and ``forces_std`` beside the usual results
    args, kwargs : of `evaluate`
    """
    recorder = _Recorder(committee)
    evaluation = evaluate(recorder, graphs, *args, **kwargs)
    return evaluation, {n: torch.cat(v).numpy() for n, v in recorder.deviations.items()}


def calibrations(
    evaluation: Evaluation,
    deviations: dict[str, np.ndarray],
    factors: dict[str, float] | None = None,
) -> dict[str, Calibration]:
    """Calibration of energies (of whole frames) and forces (of atoms), where there are labels.

    Parameters
    ----------
    deviations : from `evaluate_committee`
    factors : stored factors to judge; what they do not name gets the best one
    """
    predicted, reference = evaluation.predicted, evaluation.reference
    errors = {
        "energy": np.abs(predicted.energy - reference.energy),
        "forces": np.linalg.norm(predicted.forces - reference.forces, axis=1),
    }
    found = {
        name: calibrate(errors[name], deviations[name], k, (factors or {}).get(name))
        for name, k in COMPONENTS.items()
    }
    return {name: value for name, value in found.items() if value is not None}


def deviation_factors(
    members: Sequence[Callable[[Graph], dict[str, Tensor]]], graphs: Sequence[Graph]
) -> dict[str, float]:
    """Factors from deviations to errors of networks that make a committee, by quantity."""
    committee = _Committee(members)
    return {n: c.factor for n, c in calibrations(*evaluate_committee(committee, graphs)).items()}


@dataclass(frozen=True)
class _Committee:
    members: Sequence[Callable[[Graph], dict[str, Tensor]]]

    def __call__(self, graph: Graph) -> dict[str, Tensor]:
        return over_members([member(graph) for member in self.members])


def format_calibrations(found: dict[str, Calibration]) -> str:
    """Lines for people."""
    lines = []
    for name, c in found.items():
        stored = "" if c.used == c.factor else f" (stored: {c.used:.3g})"
        lines.append(
            f"{name:<7} error = {c.factor:.3g}{stored} times the deviation of the members; area "
            f"of the calibration curve {c.area:.3f} ({c.area_as_is:.3f} without the factor), rank "
            f"correlation {c.correlation:.2f}"
        )
    return "\n".join(lines)


def calibrations_to_json(found: dict[str, Calibration]) -> dict[str, dict]:
    """The same as plain values, with the curve."""
    return {
        name: {
            "factor": c.factor,
            "used": c.used,
            "area": c.area,
            "area_without_factor": c.area_as_is,
            "rank_correlation": None if np.isnan(c.correlation) else c.correlation,
            "expected": SHARES.tolist(),
            "observed": c.observed.tolist(),
            "count": c.count,
        }
        for name, c in found.items()
    }
