"""Extension of griffe: what stands behind a colon in our docstrings is a description, not a type.

Entries are ``name : description``, with further lines indented. Types stand in annotations; an
attribute may also be ``name : type`` with its description below, as numpydoc has it.
"""

from __future__ import annotations

import re
from typing import Any

import griffe

ENTRY = re.compile(r"(\*{0,2}\w+(?:, \*{0,2}\w+)*) : (.+)")


class Descriptions(griffe.Extension):
    """Puts each description on a line of its own before the docstring is parsed."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Change the docstring of a module, class, function or attribute."""
        if obj.docstring is not None:
            lines = obj.docstring.value.splitlines()
            obj.docstring.value = "\n".join(with_descriptions_below(lines))


def with_descriptions_below(lines: list[str]) -> list[str]:
    """Lines in which no description stands where numpydoc expects a type."""
    changed, section = [], ""
    for line, below in zip(lines, [*lines[1:], ""], strict=True):
        if re.fullmatch("-{3,}", below):
            section = line
        entry = ENTRY.fullmatch(line)
        is_type = entry and re.match("    [A-Z]", below) and len(entry[2].split()) <= 3
        if entry and section in ("Parameters", "Attributes") and not is_type:
            changed += [entry[1], f"    {entry[2]}"]
        else:
            changed.append(line)
    return changed
