"""Which frames of the dynamics are worth a label."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase.calculators.calculator import Calculator

from tdn.config.distillation import RoundsConfig
from tdn.data.frames import Frame
from tdn.evaluation.comparison.held_out import predict
from tdn.evaluation.dynamics.plan import Sample, Trajectory

from .candidates import FAR_KINDS, Candidate
from .features import farthest_points, frame_features

# of the RMS force of the labels, where the configuration gives no bounds: the expected error from
# which a frame is labeled, and the deviation beyond which it is no matter
LOWER, UPPER = 0.06, 1.2
# of the error to the deviation; outside of these the validation frames are no guide
RATIOS = (1.0, 10.0)
# frames of a run that ended early which are labeled however much the networks agree
LAST_FRAMES = 2
# frames whose features are compared, at most
POOL = 1500


@dataclass(frozen=True)
class Bounds:
    """Deviations in eV/angstrom between which frames are labeled."""

    lower: float
    upper: float


def find_bounds(config: RoundsConfig, frames: Sequence[Frame], ratio: float = 1.0) -> Bounds:
    """From the configuration, or from the forces of the labels.

    Parameters
    ----------
    ratio : of the true error to the deviation
    """
    several = [frame for frame in frames if len(frame.atoms) > 1]
    usual = [frame for frame in several if frame.config_type not in FAR_KINDS] or several
    forces = np.concatenate([frame.forces for frame in usual])
    rms = float(np.sqrt((forces**2).sum(axis=1).mean()))
    lower = LOWER * rms / ratio if config.lower is None else config.lower
    upper = UPPER * rms if config.upper is None else config.upper
    return Bounds(lower, max(upper, 1.001 * lower))


def error_ratio(committee: Calculator, frames: Sequence[Frame]) -> float:
    """The true error of the committee's forces over its deviation, on the validation frames.

    Members that begin alike and learn from the same frames agree better than they are right. It is
    a ratio of medians over atoms: a few close contacts would decide over mean squares.
    """
    valid = [frame for frame in frames if frame.split == "valid" and len(frame.atoms) > 1]
    if not valid:
        return RATIOS[0]
    found = predict(committee, valid)
    errors = [
        np.linalg.norm(forces - frame.forces, axis=1)
        for forces, frame in zip(found.forces, valid, strict=True)
    ]
    error, deviation = np.median(np.concatenate(errors)), np.median(np.concatenate(found.spread))
    return float(np.clip(error / max(deviation, 1e-12), *RATIOS))


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
    """Choose frames that are unlike each other and what is labeled, and where networks disagree.

    The last sane frames of runs that ended early come first.

    Parameters
    ----------
    model : checkpoint whose features say what is alike
    known : labeled frames
    count : frames to choose, at most
    """
    samples = [sample for trajectory in trajectories for sample in trajectory.samples]
    certain: list[Sample] = []
    for trajectory in trajectories:
        if trajectory.broken is not None:
            certain += [s for s in trajectory.samples if s.deviation <= bounds.upper][-LAST_FRAMES:]
    certain = certain[: -(-count // 2)]
    taken = {id(sample) for sample in certain}
    candidates = _thinned(
        [s for s in samples if bounds.lower <= s.deviation <= bounds.upper and id(s) not in taken]
    )
    order: list[int] = []
    if candidates and len(certain) < count:
        before = [frame.atoms for frame in known if len(frame.atoms) > 1]
        before += [sample.atoms for sample in certain]
        features = frame_features(model, [*before, *(c.atoms for c in candidates)])
        order = farthest_points(
            features[: len(before)],
            features[len(before) :],
            count - len(certain),
            np.array([sample.deviation for sample in candidates]),
        )
    chosen = [Candidate(s.atoms, s.kind) for s in [*certain, *(candidates[i] for i in order)]]
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
