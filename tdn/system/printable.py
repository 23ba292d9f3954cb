"""Text from files on a terminal: escape sequences in it must not act, nor break a line."""

from __future__ import annotations


def printable(text: object, limit: int | None = 80) -> str:
    """Text of unknown origin on one line, with what a terminal might obey written as in Python.

    For names, keys and messages that come from a file. Line breaks, control characters, and
    characters that reverse or hide text become escapes as those of `ascii`.

    Parameters
    ----------
    text : is converted to a string
    limit : characters after which the rest is replaced by ``...``; None keeps all

    Examples
    --------
    >>> printable("a\\x1b[2J\\nb")
    'a\\\\x1b[2J\\\\nb'
    """
    text = str(text)
    shown = _escaped(text if limit is None else text[: limit + 1])
    return shown if limit is None or len(shown) <= limit else shown[:limit] + "..."


def printable_lines(text: object) -> str:
    """The same for a whole message, whose line breaks are meant."""
    return "\n".join(_escaped(line) for line in str(text).split("\n"))


def _escaped(text: str) -> str:
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
