"""Blocks of code on README and the other pages."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    [
        ROOT / "README.md",
        ROOT / "CHANGELOG.md",
        ROOT / "CONTRIBUTING.md",
        *ROOT.glob("docs/*.md"),
        *ROOT.glob("lammps_plugin/doc/*.md"),
        *ROOT.glob("examples/*/*.md"),
    ]
)
FENCED = re.compile(
    r"^(?:<!-- not run: (?P<reason>.+) -->\n)?```(?P<language>.*)\n(?P<text>(?:.*\n)*?)```$", re.M
)


@dataclass(frozen=True)
class Block:
    """One of them.

    Attributes
    ----------
    page : path below the root of the repository
    language : what stands behind the three backticks
    text : its lines
    reason : why no test runs it, from the comment above; "" for what a test runs
    """

    page: str
    language: str
    text: str
    reason: str


def blocks(page: Path) -> list[Block]:
    """All blocks of a page, in order."""
    name = page.relative_to(ROOT).as_posix()
    return [
        Block(name, match["language"], match["text"], match["reason"] or "")
        for match in FENCED.finditer(page.read_text())
    ]


def blocks_to_run(language: str) -> list[Block]:
    """Those of all pages that tests run."""
    return [
        block
        for page in PAGES
        for block in blocks(page)
        if block.language == language and not block.reason
    ]


def indented(page: Path) -> list[str]:
    """First lines of blocks that are indented instead of fenced."""
    prose = FENCED.sub("", page.read_text())
    return re.findall(r"(?:\A|\n\n)(    (?! *[-*] ).*)", prose)
