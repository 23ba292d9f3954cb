"""Time: what was used, what things cost, and how many rounds and steps fit into the rest."""

from __future__ import annotations

import json
import time
from pathlib import Path

from tdn.system.atomic_files import write_json

# parts of the whole that are kept for the last training, and for held-out frames and the report
FINAL_SHARE, REPORT_SHARE = 0.35, 0.2
# part that the seeds' labels may take
SEEDS_SHARE = 0.2
# seconds per atom, frame of the batch and step, before anything was measured (docs/training.md)
FIRST_GUESS = 2.5e-4
FEWEST_STEPS = 100
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
    """

    def __init__(self, path: Path, total: float | None) -> None:
        self.path, self.total = path, total
        stored = json.loads(path.read_text()) if path.exists() else {}
        self._earlier = float(stored.get("used", 0.0))
        self.costs: dict[str, float] = stored.get("costs", {})
        self._start = self._written = time.monotonic()

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

    def round_steps(self, wanted: int, guess: float) -> int:
        """Steps of the optimizer in a round.

        Parameters
        ----------
        guess : seconds of a step of all members, if none was measured
        """
        if self.total is None:
            return wanted
        cost = self.costs.get("training step", guess)
        most = 0.5 * (1 - FINAL_SHARE - REPORT_SHARE) * self.total / cost
        return max(FEWEST_STEPS, min(wanted, int(most)))

    def another_round(self) -> bool:
        """Whether a round like the last one fits before the last training."""
        if self.total is None:
            return True
        after = (FINAL_SHARE + REPORT_SHARE) * self.total
        return self.left - self.costs.get("round", 0.0) > after

    def final_steps(self, wanted: int, guess: float) -> int:
        """Steps of the last training: all that the time before the report allows."""
        if self.total is None:
            return wanted
        cost = self.costs.get("training step", guess)
        time_left = self.left - REPORT_SHARE * self.total
        return max(FEWEST_STEPS, int(time_left / cost))

    def report_seconds(self, labeling: float) -> float:
        """What the teacher's own dynamics may take.

        Parameters
        ----------
        labeling : seconds that all labels took, a measure of what a user is ready to spend
        """
        if self.total is None:
            return max(labeling, UNPLANNED_REPORT)
        return 0.5 * max(self.left, 0.0)
