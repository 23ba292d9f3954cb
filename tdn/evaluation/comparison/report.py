"""Sections to a page and a file of numbers."""

from __future__ import annotations

import base64
import math
import platform
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import jinja2

from tdn.system.atomic_files import atomic_write, write_json
from tdn.system.version import __version__

from .section import Section

# characters of a cell on a terminal
WIDEST = 60
TEMPLATE = Path(__file__).with_name("report.html.j2")


def write_report(folder: Path, title: str, summary: str, sections: Sequence[Section]) -> None:
    """``report.html``, which needs no other file, and ``report.json``."""
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    environment.filters["base64"] = lambda data: base64.b64encode(data).decode()
    footer = (
        f"TDN {__version__}, {datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC, "
        f"{platform.machine()}, Python {platform.python_version()}"
    )
    text = environment.from_string(TEMPLATE.read_text()).render(
        title=title, summary=summary, sections=sections, footer=footer
    )
    with atomic_write(folder / "report.html") as temporary:
        temporary.write_text(text)
    values = {section.title: section.values for section in sections}
    write_json(folder / "report.json", _plain({"title": title, "sections": values}))


def _plain(value: Any) -> Any:
    """Numbers that JSON knows."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if hasattr(value, "item"):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def as_text(sections: Sequence[Section]) -> str:
    """The tables for a terminal."""
    lines = []
    for section in sections:
        lines += ["", section.title]
        if not section.rows and section.text:
            lines.append(f"  {section.text}")
        rows = [section.columns, *section.rows] if section.columns else section.rows
        rows = [
            [cell if len(cell) <= WIDEST else cell[:WIDEST] + "..." for cell in r] for r in rows
        ]
        if not rows:
            continue
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        for row in rows:
            first, *rest = (
                cell.ljust(w) if i == 0 else cell.rjust(w)
                for i, (cell, w) in enumerate(zip(row, widths, strict=True))
            )
            lines.append("  " + "  ".join([first, *rest]).rstrip())
    return "\n".join(lines[1:])
