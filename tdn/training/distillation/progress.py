"""What a user sees: a line for each stage, and a bar with the time left on a terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tqdm import tqdm

from tdn.system.printable import printable_lines
from tdn.training.run.display import format_time

# seconds between lines of a long stage where there is no terminal
LINE_EVERY = 30.0


class Bar:
    """How far a stage is; where there is no terminal, a line now and then."""

    def __init__(self, title: str, total: int, unit: str) -> None:
        self.title, self.total, self.unit = title, total, unit
        self.done = 0
        self.start = time.monotonic()
        self._said = self.start
        self._bar = tqdm(
            total=total,
            desc=title,
            unit=unit,
            file=sys.stdout,
            disable=not sys.stdout.isatty(),
            dynamic_ncols=True,
            leave=False,
            bar_format="{desc} {percentage:3.0f}%|{bar:20}| {n_fmt}/{total_fmt} {unit}, "
            "{remaining} left",
        )

    def move_to(self, done: int) -> None:
        """So many are done."""
        self._bar.update(max(0, min(done, self.total) - self.done))
        self.done = max(self.done, min(done, self.total))
        now = time.monotonic()
        if self._bar.disable and self.done and now - self._said > LINE_EVERY:
            self._said = now
            left = (now - self.start) / self.done * (self.total - self.done)
            say(f"  {self.title}: {self.done}/{self.total} {self.unit}, {format_time(left)} left")

    def advance(self, count: int = 1) -> None:
        """So many more are done."""
        self.move_to(self.done + count)

    def close(self) -> None:
        """Leave the terminal as it was."""
        self._bar.close()


@contextmanager
def stage(title: str, total: int, unit: str) -> Iterator[Bar]:
    """A stage with its bar."""
    bar = Bar(title, max(total, 1), unit)
    try:
        yield bar
    finally:
        bar.close()


def say(text: str) -> None:
    """A line above the bar."""
    tqdm.write(printable_lines(text))
    sys.stdout.flush()


def warn(text: str) -> None:
    """A line on standard error."""
    tqdm.write(f"warning: {printable_lines(text)}", file=sys.stderr)
