"""What a user sees while a run goes on: a bar on a terminal, lines elsewhere."""

from __future__ import annotations

import sys
import time

from tqdm import tqdm

from tdn.evaluation.errors import Errors
from tdn.system.printable import printable_lines

from .resume import Progress

SHORT = {"energy": ("E", "meV/atom"), "forces": ("F", "meV/A"), "stress": ("S", "meV/A^3")}


def format_time(seconds: float) -> str:
    """Hours, minutes and seconds."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes:02d}:{seconds:02d}"


class Display:
    """Progress of a run on standard output.

    Parameters
    ----------
    quiet : show warnings only
    silent : not even these, for ranks beside the first
    """

    def __init__(self, quiet: bool = False, silent: bool = False) -> None:
        self.quiet = quiet
        self.silent = silent
        self._bar = tqdm(disable=True)
        self._epochs = self._steps_per_epoch = self._first_step = 0
        self._start = 0.0

    @property
    def _total(self) -> int:
        """Steps of the run."""
        return self._epochs * self._steps_per_epoch

    def start(self, epochs: int, steps_per_epoch: int, progress: Progress) -> None:
        """Begin with a run of ``epochs`` in all."""
        self._epochs, self._steps_per_epoch = epochs, steps_per_epoch
        self._start, self._first_step = time.monotonic(), progress.step
        self._bar = tqdm(
            total=self._total,
            initial=progress.step,
            desc=f"epoch {progress.epoch + 1}/{epochs}",
            unit="batch",
            file=sys.stdout,
            disable=self.quiet or not sys.stdout.isatty(),
            dynamic_ncols=True,
            bar_format="{desc} {percentage:3.0f}%|{bar:20}| {remaining} left{postfix}",
        )

    def end_early(self, epochs: int) -> None:
        """The run ends after ``epochs`` in all instead."""
        self._epochs = epochs
        self._bar.total = self._total

    def step(self) -> None:
        """One batch is done."""
        self._bar.update()

    def epoch(
        self, progress: Progress, row: dict[str, float | None], found: dict[str, Errors | None]
    ) -> None:
        """One epoch is done; ``found`` holds the errors on the validation frames."""
        if self.quiet:
            return
        rmse = "  ".join(
            f"{SHORT[name][0]} {error.rmse:.4g} {SHORT[name][1]}"
            for name, error in found.items()
            if error is not None
        )
        text = f"validation RMSE {rmse}" if rmse else f"training loss {row['train_loss']:.4g}"
        if not self._bar.disable:
            self._bar.set_description(
                f"epoch {min(progress.epoch + 1, self._epochs)}/{self._epochs}",
                refresh=False,
            )
            if found or not self._bar.postfix:
                self._bar.set_postfix_str(text.replace("validation RMSE ", "RMSE "), refresh=False)
            if progress.epoch % max(1, self._epochs // 20) != 0:
                return
        done = max(1, progress.step - self._first_step)
        left = (time.monotonic() - self._start) / done * (self._total - progress.step)
        mark = " *" if progress.best_epoch == progress.epoch else ""
        tqdm.write(
            f"epoch {progress.epoch:>{len(str(self._epochs))}}/{self._epochs}  "
            f"loss {row['train_loss']:.4g}  {text}  lr {row['learning_rate']:.1e}  "
            f"{format_time(progress.seconds)} ({format_time(left)} left){mark}"
        )
        sys.stdout.flush()

    def warn(self, text: str) -> None:
        """A line on standard error, above the bar if there is one."""
        if not self.silent:
            tqdm.write(f"warning: {printable_lines(text)}", file=sys.stderr)

    def close(self) -> None:
        """Leave the terminal as it was."""
        self._bar.close()
