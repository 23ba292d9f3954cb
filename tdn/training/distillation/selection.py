"""Which frames of the dynamics are worth a label."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tdn.config.distillation import RoundsConfig
from tdn.data.frames import Frame
from tdn.evaluation.dynamics.plan import Sample, Trajectory

from .features import farthest_points, frame_features
from .seeds import Candidate

# of the RMS force of the labels, where the configuration gives no bounds. A network that is right
# to a few percent has smaller deviations than the first; beyond the second a frame is no matter.
LOWER, UPPER = 0.06, 1.2
# frames of a run that ended early which are candidates however much the networks agree
LAST_FRAMES = 2
# frames whose features are compared, at most
POOL = 1500


@dataclass(frozen=True)
class Bounds:
    """Deviations in eV/angstrom between which frames are labeled."""

    lower: float
    upper: float


def find_bounds(config: RoundsConfig, frames: Sequence[Frame]) -> Bounds:
    """From the configuration, or from the forces of the labels."""
    forces = np.concatenate([frame.forces for frame in frames if len(frame.atoms) > 1])
    rms = float(np.sqrt((forces**2).sum(axis=1).mean()))
    lower = LOWER * rms if config.lower is None else config.lower
    upper = UPPER * rms if config.upper is None else config.upper
    return Bounds(lower, max(upper, 1.001 * lower))


@dataclass(frozen=True)
class Selection:
    """What a round of dynamics brought.

    Attributes
    ----------
    chosen : frames to label
    total : samples
    above : samples whose deviation is above the lower bound
    beyond : of these, those above the upper bound
    broken : runs that ended early, with the reason
    worst : largest deviation of each kind
    """

    chosen: list[Candidate]
    total: int
    above: int
    beyond: int
    broken: dict[str, str]
    worst: dict[str, float]

    @property
    def share(self) -> float:
        """Part of the samples that is above the lower bound; one for runs that ended early."""
        if self.broken or not self.total:
            return 1.0
        return self.above / self.total


def select(
    trajectories: Sequence[Trajectory],
    bounds: Bounds,
    model: Path,
    known: Sequence[Frame],
    count: int,
) -> Selection:
    """Choose frames by deviation, then those that are unlike each other and what is labeled.

    Parameters
    ----------
    model : checkpoint whose features say what is alike
    known : labeled frames
    count : frames to choose, at most
    """
    samples = [sample for trajectory in trajectories for sample in trajectory.samples]
    candidates = [s for s in samples if bounds.lower <= s.deviation <= bounds.upper]
    for trajectory in trajectories:
        if trajectory.broken is not None:
            sane = [s for s in trajectory.samples if s.deviation <= bounds.upper]
            candidates += [s for s in sane[-LAST_FRAMES:] if s.deviation < bounds.lower]
    candidates = _thinned(candidates)
    chosen: list[Candidate] = []
    if candidates:
        several = [frame.atoms for frame in known if len(frame.atoms) > 1]
        features = frame_features(model, [*several, *(c.atoms for c in candidates)])
        order = farthest_points(features[: len(several)], features[len(several) :], count)
        chosen = [Candidate(candidates[i].atoms, candidates[i].kind) for i in order]
    worst: dict[str, float] = {}
    for sample in samples:
        worst[sample.kind] = max(worst.get(sample.kind, 0.0), sample.deviation)
    return Selection(
        chosen=chosen,
        total=len(samples),
        above=sum(s.deviation >= bounds.lower for s in samples),
        beyond=sum(not s.deviation <= bounds.upper for s in samples),
        broken={t.plan.name: t.broken for t in trajectories if t.broken is not None},
        worst=worst,
    )


def _thinned(candidates: list[Sample]) -> list[Sample]:
    step = -(-len(candidates) // POOL)
    return candidates[::step] if step > 1 else candidates
