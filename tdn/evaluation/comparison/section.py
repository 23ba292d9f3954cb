"""Pieces of a report: text, a table, figures, and the same numbers for programs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ase.calculators.calculator import Calculator, PropertyNotImplementedError

from tdn.system.errors import TDNError


@dataclass
class Pair:
    """The two calculators and what they are called.

    Attributes
    ----------
    reference, student : calculators; the first one is taken for the truth
    names : of both, in this order
    """

    reference: Calculator
    student: Calculator
    names: tuple[str, str]

    @property
    def both(self) -> tuple[Calculator, Calculator]:
        return self.reference, self.student

    @property
    def named(self) -> tuple[tuple[str, Calculator], ...]:
        """Name and calculator of both."""
        return tuple(zip(self.names, self.both, strict=True))


@dataclass
class Section:
    """One part of a report.

    Attributes
    ----------
    title : its heading
    text : what was done, in a sentence or two
    columns, rows : of a table; numbers are already text
    figures : PNG, as bytes
    values : the numbers, with units in their names
    """

    title: str
    text: str = ""
    columns: list[str] = field(default_factory=list)
    rows: list[list[str]] = field(default_factory=list)
    figures: list[bytes] = field(default_factory=list)
    values: dict[str, Any] = field(default_factory=dict)

    def compare(self, name: str, unit: str, values: tuple[float, float], digits: int = 4) -> None:
        """A row with both values and their difference in percent."""
        reference, student = values
        change = 100 * (student - reference) / abs(reference) if reference else float("nan")
        shown = f"{reference:.{digits}g}", f"{student:.{digits}g}"
        self.rows.append([f"{name} ({unit})" if unit else name, *shown, f"{change:+.2f} %"])
        self.values[name] = {
            "unit": unit,
            "reference": reference,
            "student": student,
            "difference_percent": change,
        }


def guarded(title: str, make: Callable[[], Section]) -> Section:
    """A section, or one that says why it is missing."""
    try:
        return make()
    except (TDNError, PropertyNotImplementedError) as error:
        return Section(title, f"Not available: {error}", values={"missing": str(error)})


def comparing_columns(pair: Pair) -> list[str]:
    """Headings for `Section.compare`."""
    return ["", *pair.names, "difference"]
