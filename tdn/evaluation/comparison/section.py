"""Pieces of a report: text, a table, figures, and the same numbers for programs."""

from __future__ import annotations

import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from ase.calculators.calculator import Calculator, PropertyNotImplementedError

from tdn.system.errors import TDNError
from tdn.system.printable import printable

Made = TypeVar("Made")
# characters of the message of an error that nobody foresaw
LONGEST_REASON = 200


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


def guarded(title: str, make: Callable[[], Made]) -> Made | Section:
    """What ``make`` returns, or a section that says why it is missing.

    One failure does not lose a report. What a calculator cannot do, and what a user can mend, is a
    `TDNError`. Anything else may be a defect of a library or of TDN: the line then names the kind
    of error and its place, a warning repeats it, and ``report.json`` has the whole traceback.
    """
    try:
        return make()
    except (TDNError, PropertyNotImplementedError) as error:
        return _missing(title, str(error))
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        kind = f"{type(error).__name__} in {Path(place.filename).name}, line {place.lineno}"
        section = _missing(title, f"{kind}: {printable(error, LONGEST_REASON)}")
        section.values["traceback"] = "".join(traceback.format_exception(error))
        warnings.warn(
            f"the report lacks '{title}': {section.values['missing']} (all of it in report.json)",
            stacklevel=2,
        )
        return section


def _missing(title: str, reason: str) -> Section:
    """A section that only says why it is missing."""
    return Section(title, f"Not available: {reason}", values={"missing": reason})


def comparing_columns(pair: Pair) -> list[str]:
    """Headings for `Section.compare`."""
    return ["", *pair.names, "difference"]
