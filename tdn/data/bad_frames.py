"""Frames that cannot be used: each is counted with its reason, none is passed over in silence."""

from __future__ import annotations

from dataclasses import dataclass, field

from tdn.system.errors import TDNError
from tdn.system.printable import printable


@dataclass
class Problems:
    """What was wrong with frames and how often.

    Attributes
    ----------
    skip : whether a bad frame is left out; otherwise the first one is an error
    counts : how many frames per reason
    first : where the first of each kind was, and what exactly it was
    notes : things worth knowing that are no mistakes, and how often
    """

    skip: bool = False
    counts: dict[str, int] = field(default_factory=dict)
    first: dict[str, str] = field(default_factory=dict)
    notes: dict[str, int] = field(default_factory=dict)

    def add(self, reason: str, message: str, count: int = 1) -> None:
        """Count a bad frame.

        Parameters
        ----------
        reason : what frames with the same problem share, e.g. "no forces"
        message : where it was and what it was, on one line; parts of it may come from the file

        Raises
        ------
        TDNError
            With the message, unless bad frames are to be skipped.
        """
        if not self.skip:
            raise TDNError(printable(message, None))
        self.counts[reason] = self.counts.get(reason, 0) + count
        self.first.setdefault(reason, printable(message, None))

    def note(self, text: str) -> None:
        """Count something that is no mistake, e.g. records without the chosen stage."""
        self.notes[text] = self.notes.get(text, 0) + 1

    @property
    def total(self) -> int:
        """How many frames were left out."""
        return sum(self.counts.values())

    def lines(self) -> list[str]:
        """One line per reason and note."""
        reasons = sorted(self.counts.items(), key=lambda item: -item[1])
        return [
            *(f"{n} left out: {reason} (first: {self.first[reason]})" for reason, n in reasons),
            *(f"{n} {text}" for text, n in self.notes.items()),
        ]
