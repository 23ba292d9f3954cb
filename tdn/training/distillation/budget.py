"""Time: what was used, what things cost, and how many rounds and steps fit into the rest."""

from __future__ import annotations

import json
import time
from pathlib import Path

from tdn.system.atomic_files import write_json

# parts of the whole for the last training, and for held-out frames and the report; rounds have the
# rest
FINAL_SHARE, REPORT_SHARE = 0.35, 0.15
ROUNDS_SHARE = 1 - FINAL_SHARE - REPORT_SHARE
# part that the seeds' labels may take
SEEDS_SHARE = 0.15
# parts of a round; the rest is for starting programs, compiling and selecting
TRAINING_PART, DYNAMICS_PART, LABELS_PART = 0.5, 0.2, 0.2
# a network that learned for fewer steps is not worth exploring with: rather fewer rounds
STEPS_OF_A_ROUND = 500
FEWEST_ROUNDS = 2
# seconds per atom, frame of the batch and step, before anything was measured (docs/training.md)
FIRST_GUESS = 2.5e-4
# seconds of a step of the committee's dynamics, of those of a training step of all members per
# frame of its batch
DYNAMICS_GUESS = 0.1
FEWEST_STEPS, FEWEST_FRAMES = 100, 8
# seconds that the teacher's dynamics in the report may take without a budget, if labels took less
UNPLANNED_REPORT = 900.0
# seconds between writes
WRITE_EVERY = 5.0


class Budget:
    """The clock of a run; what earlier, interrupted attempts used counts as well.

    Parameters
    ----------
    path : file that remembers
    total : seconds, None: unlimited
    max_rounds : rounds at most
    """

    def __init__(self, path: Path, total: float | None, max_rounds: int = 1) -> None:
        self.path, self.total, self.max_rounds = path, total, max_rounds
        stored = json.loads(path.read_text()) if path.exists() else {}
        self._earlier = float(stored.get("used", 0.0))
        self.costs: dict[str, float] = stored.get("costs", {})
        # of steps that were not measured yet
        self.guesses: dict[str, float] = {}
        self._start = self._written = time.monotonic()

    def guess(self, atoms: float, batch: int, members: float) -> None:
        """Say what a step will take, by what is usual.

        Parameters
        ----------
        atoms : of a frame
        batch : frames of a batch
        members : of the committee, for each core
        """
        step = FIRST_GUESS * atoms * batch * members
        self.guesses = {"training step": step, "dynamics step": DYNAMICS_GUESS * step / batch}

    def cost(self, name: str) -> float:
        """Seconds of one of something, measured or guessed."""
        return self.costs.get(name, self.guesses.get(name, 0.0))

    @property
    def used(self) -> float:
        """Seconds so far."""
        return self._earlier + time.monotonic() - self._start

    @property
    def left(self) -> float:
        """Seconds; infinite without a budget."""
        return float("inf") if self.total is None else self.total - self.used

    def write(self, always: bool = True) -> None:
        """Remember; with ``always=False`` only every few seconds."""
        if always or time.monotonic() - self._written > WRITE_EVERY:
            self._written = time.monotonic()
            write_json(self.path, {"used": self.used, "costs": self.costs})

    def measured(self, name: str, seconds: float, count: int) -> None:
        """Seconds for ``count`` of something; the newest value counts."""
        if count > 0:
            self.costs[name] = seconds / count
        self.write()

    def seeds(self, wanted: int, seconds_per_label: float) -> int:
        """How many of the seeds to label."""
        if self.total is None:
            return wanted
        return max(10, min(wanted, int(SEEDS_SHARE * self.total / max(seconds_per_label, 1e-9))))

    @property
    def round_seconds(self) -> float:
        """What a round may take.

        Many short rounds find more than a few long ones: what a network visits is no matter before
        it has learned from its first mistakes.
        """
        whole = ROUNDS_SHARE * self.total
        shortest = STEPS_OF_A_ROUND * self.cost("training step") / TRAINING_PART
        return whole / max(FEWEST_ROUNDS, min(self.max_rounds, int(whole / shortest)))

    def round_steps(self, wanted: int) -> int:
        """Steps of the optimizer in a round."""
        if self.total is None:
            return wanted
        allowed = TRAINING_PART * self.round_seconds / self.cost("training step")
        return max(FEWEST_STEPS, min(wanted, int(allowed)))

    def dynamics_steps(self, wanted: int, runs: int) -> int:
        """Steps of each of some runs of a round."""
        if self.total is None:
            return wanted
        allowed = DYNAMICS_PART * self.round_seconds / (runs * self.cost("dynamics step"))
        return max(FEWEST_STEPS, min(wanted, int(allowed)))

    def frames(self, wanted: int) -> int:
        """Labels of a round; the seeds' labels were measured before."""
        if self.total is None:
            return wanted
        allowed = LABELS_PART * self.round_seconds / max(self.cost("label"), 1e-9)
        return min(wanted, max(FEWEST_FRAMES, int(allowed)))

    def another_round(self) -> bool:
        """Whether a round like the last one fits before the last training."""
        if self.total is None:
            return True
        after = (FINAL_SHARE + REPORT_SHARE) * self.total
        return self.left - self.cost("round") > after

    def final_steps(self, wanted: int) -> int:
        """Steps of the last training: all that the time before the report allows."""
        if self.total is None:
            return wanted
        time_left = self.left - REPORT_SHARE * self.total
        return max(FEWEST_STEPS, int(time_left / self.cost("training step")))

    def report_seconds(self, labeling: float) -> float:
        """What the teacher's own dynamics may take.

        Parameters
        ----------
        labeling : seconds that all labels took, a measure of what a user is ready to spend
        """
        if self.total is None:
            return max(labeling, UNPLANNED_REPORT)
        return 0.5 * max(self.left, 0.0)
