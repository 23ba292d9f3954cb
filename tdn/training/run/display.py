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
        self._bar: tqdm | None = None
        self._max_epochs = 0
        self._start = 0.0
        self._first_step = 0
        self._total = 0

    def start(self, max_epochs: int, steps_per_epoch: int, progress: Progress) -> None:
        """Begin with a run of ``max_epochs`` in all."""
        self._max_epochs = max_epochs
        self._total = max_epochs * steps_per_epoch
        self._start, self._first_step = time.monotonic(), progress.step
        if not self.quiet and sys.stdout.isatty():
            self._bar = tqdm(
                total=self._total,
                initial=progress.step,
                desc=f"epoch {progress.epoch + 1}/{max_epochs}",
                unit="batch",
                file=sys.stdout,
                dynamic_ncols=True,
                bar_format="{desc} {percentage:3.0f}%|{bar:20}| {remaining} left{postfix}",
            )

    def step(self) -> None:
        """One batch is done."""
        if self._bar is not None:
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
        if self._bar is not None:
            self._bar.set_description(
                f"epoch {min(progress.epoch + 1, self._max_epochs)}/{self._max_epochs}",
                refresh=False,
            )
            if found or not self._bar.postfix:
                self._bar.set_postfix_str(text.replace("validation RMSE ", "RMSE "), refresh=False)
            if progress.epoch % max(1, self._max_epochs // 20) != 0:
                return
        done = max(1, progress.step - self._first_step)
        left = (time.monotonic() - self._start) / done * (self._total - progress.step)
        mark = " *" if progress.best_epoch == progress.epoch else ""
        line = (
            f"epoch {progress.epoch:>{len(str(self._max_epochs))}}/{self._max_epochs}  "
            f"loss {row['train_loss']:.4g}  {text}  lr {row['learning_rate']:.1e}  "
            f"{format_time(progress.seconds)} ({format_time(left)} left){mark}"
        )
        self.say(line)

    def say(self, text: str) -> None:
        """A line for the user, above the bar if there is one."""
        if self.quiet:
            return
        if self._bar is not None:
            self._bar.write(text, file=sys.stdout)
        else:
            print(text, flush=True)

    def warn(self, text: str) -> None:
        """A line on standard error."""
        if self.silent:
            return
        line = f"warning: {printable_lines(text)}"
        if self._bar is not None:
            self._bar.write(line, file=sys.stderr)
        else:
            print(line, file=sys.stderr, flush=True)

    def close(self) -> None:
        """Leave the terminal as it was."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
