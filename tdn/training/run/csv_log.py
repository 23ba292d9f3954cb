"""``log.csv``: one row per epoch."""

from __future__ import annotations

import csv
from pathlib import Path

from tdn.system.atomic_files import atomic_write

COLUMNS = (
    "epoch",
    "step",
    "learning_rate",
    "train_loss",
    "train_energy_loss",
    "train_forces_loss",
    "train_stress_loss",
    "valid_loss",
    "valid_energy_mae",
    "valid_energy_rmse",
    "valid_forces_mae",
    "valid_forces_rmse",
    "valid_stress_mae",
    "valid_stress_rmse",
    "seconds",
)


class Log:
    """Appends rows to a CSV file; a run that goes on drops the rows after its starting point.

    Errors are in meV/atom, meV/angstrom and meV/angstrom^3; empty where not known.

    Parameters
    ----------
    path : of the file
    epoch : finished epochs; 0 starts a new file
    """

    def __init__(self, path: Path, epoch: int) -> None:
        self.path = path
        rows = [row for row in read_log(path) if row["epoch"] <= epoch] if path.exists() else []
        with atomic_write(path) as temporary, open(temporary, "w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(self._text(row) for row in rows)

    @staticmethod
    def _text(row: dict[str, float | None]) -> dict[str, str]:
        formats = {"epoch": ".0f", "step": ".0f"}
        known = {name: row[name] for name in COLUMNS if row.get(name) is not None}
        return {name: format(value, formats.get(name, ".8g")) for name, value in known.items()}

    def append(self, row: dict[str, float | None]) -> None:
        """Write one row."""
        with open(self.path, "a", newline="") as file:
            csv.DictWriter(file, COLUMNS).writerow(self._text(row))

    def close(self) -> None:
        """Nothing is left open between rows."""


def read_log(path: Path) -> list[dict[str, float]]:
    """Rows of the file with the values that are there; a last line cut short is left out."""
    with open(path, newline="") as file:
        rows = [row for row in csv.DictReader(file) if None not in row.values()]
    return [{name: float(text) for name, text in row.items() if text} for row in rows]
