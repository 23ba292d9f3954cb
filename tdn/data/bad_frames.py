"""What happens while frames are read: none is passed over in silence."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from tdn.system.errors import TDNError
from tdn.system.printable import printable

# messages kept of each kind, and keys kept of frames without a label
MAX_MESSAGES, MAX_KEYS = 1000, 100


@dataclass
class Problems:
    """What was wrong with frames and how often, and where their labels were.

    Attributes
    ----------
    skip : whether a bad frame is left out; otherwise the first one is an error
    counts : how many frames per reason
    messages : per reason where each was and what exactly it was, at most `MAX_MESSAGES`
    notes : things worth knowing that are no mistakes, and how often
    used : per label (energy, forces, stress) the keys under which frames had it, and how often
    keys : all keys of frames that lack a label, each with the kind of its value: ``energy`` for a
        number, ``forces`` for a vector per atom, ``stress`` for six or nine numbers, or nothing
    """

    skip: bool = False
    counts: dict[str, int] = field(default_factory=dict)
    messages: dict[str, list[str]] = field(default_factory=dict)
    notes: dict[str, int] = field(default_factory=dict)
    used: dict[str, Counter] = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)

    def add(self, reason: str, message: str) -> None:
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
        self.counts[reason] = self.counts.get(reason, 0) + 1
        messages = self.messages.setdefault(reason, [])
        if len(messages) < MAX_MESSAGES:
            messages.append(printable(message, None))

    def note(self, text: str, count: int = 1) -> None:
        """Count something that is no mistake, e.g. records without the chosen stage."""
        self.notes[text] = self.notes.get(text, 0) + count

    @property
    def total(self) -> int:
        """How many frames were left out."""
        return sum(self.counts.values())

    def reasons(self) -> list[str]:
        """One line per reason for which frames were left out, the most frequent first."""
        reasons = sorted(self.counts.items(), key=lambda item: -item[1])
        return [f"{n} left out: {why} (first: {self.messages[why][0]})" for why, n in reasons]

    def remarks(self) -> list[str]:
        """One line per note, and per label that was under another name than ASE's."""
        lines = [f"{count} {text}" for text, count in self.notes.items()]
        for label, keys in self.used.items():
            lines += [
                f"{count} frames have their {label} under {key!r}{free_energy(key)}"
                for key, count in keys.items()
                if key != label
            ]
        return lines

    def lines(self) -> list[str]:
        """`reasons` and `remarks`."""
        return [*self.reasons(), *self.remarks()]

    def candidates(self, label: str) -> str:
        """The keys that could be a label that frames lack, as the end of a message."""
        names = [key for key, kind in self.keys.items() if kind == label]
        return f"; under other keys: {', '.join(map(repr, names))}" if names else ""


def free_energy(key: str) -> str:
    """What is to be said of a key that names a free energy."""
    if "free" not in key.lower():
        return ""
    return ": a free energy, used because there is no other; forces must be its derivatives"
