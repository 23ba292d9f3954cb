"""Collect the pages of the site: those of the repository as they are, and those made from code.

    python docs/site/assemble.py build/site

Pages keep their place in the tree, so that their links work here and in a browser of the repository
alike. Options of commands come from their parsers, configuration keys from the schema.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

from tdn.config.distillation import distill_defaults_yaml
from tdn.config.yaml_file import defaults_yaml
from tdn.system.overview import commands

ROOT = Path(__file__).parents[2]
SITE = ROOT / "docs" / "site"
PAGES = (
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "docs/*.md",
    "lammps_plugin/doc/*.md",
    "examples/*/*.md",
)
LINK = re.compile(r"\]\(([^)#\s]+)[^)]*\)")


def main() -> None:
    """Fill a folder with the configuration of MkDocs and all pages."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, help="is made anew")
    folder = parser.parse_args().folder
    shutil.rmtree(folder, ignore_errors=True)
    pages = folder / "pages"
    pages.mkdir(parents=True)
    for name in ("mkdocs.yml", "docstrings.py"):
        shutil.copy(SITE / name, folder)
    shutil.copy(SITE / "style.css", pages)
    for pattern in PAGES:
        for path in sorted(ROOT.glob(pattern)):
            copy_page(path, pages)
    for path in sorted((ROOT / "docs" / "tutorials").glob("*.py")):
        target = pages / path.relative_to(ROOT).with_suffix(".ipynb")
        target.parent.mkdir(parents=True, exist_ok=True)
        notebook = [sys.executable, "-m", "jupytext", "--to", "ipynb", "--quiet", "--output"]
        subprocess.run([*notebook, str(target), str(path)], check=True)
    reference = pages / "docs" / "reference"
    reference.mkdir()
    (reference / "commands.md").write_text(commands_page())
    (reference / "configuration.md").write_text(configuration_page())
    shutil.copy(SITE / "python.md", reference)


def copy_page(path: Path, pages: Path) -> None:
    """Copy a page with the files of the repository that it links to.

    A link to a folder leads to the page that describes it; where there is none, the site shows a
    list of its files.
    """
    target = pages / path.relative_to(ROOT)
    target.parent.mkdir(parents=True, exist_ok=True)
    text = path.read_text()

    def resolved(match: re.Match) -> str:
        link = match.group(1)
        linked = (path.parent / link).resolve()
        if "://" in link or not linked.is_relative_to(ROOT) or not linked.exists():
            return match.group(0)
        if linked.is_dir():
            page = "README.md" if (linked / "README.md").is_file() else "files.md"
            if page == "files.md":
                list_files(linked, pages)
            return match.group(0).replace(link, f"{link.rstrip('/')}/{page}")
        if linked.suffix != ".md":
            copy = pages / linked.relative_to(ROOT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(linked, copy)
        return match.group(0)

    target.write_text(LINK.sub(resolved, text))


def list_files(folder: Path, pages: Path) -> None:
    """A page with the files of a folder, which are copied beside it."""
    target = pages / folder.relative_to(ROOT)
    target.mkdir(parents=True, exist_ok=True)
    files = sorted(path for path in folder.iterdir() if path.is_file())
    for path in files:
        shutil.copy(path, target)
    rows = [f"- [{path.name}]({path.name})" for path in files]
    (target / "files.md").write_text("\n".join([f"# {folder.relative_to(ROOT)}", "", *rows, ""]))


def commands_page() -> str:
    """Every command with all of its options."""
    parts = ["# Commands", "", "Exit codes: 0 success, 1 a failure, 2 wrong usage.", ""]
    for point in commands():
        parser = import_module(point.module).parser()
        # 80 columns, whatever terminal builds the site
        parser.formatter_class = _fixed_width(parser.formatter_class)
        parts += [f"## {point.name}", "", *_block(parser)]
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                for name, child in action.choices.items():
                    child.formatter_class = _fixed_width(child.formatter_class)
                    parts += [f"### {point.name} {name}", "", *_block(child)]
    return "\n".join(parts)


def _fixed_width(formatter: type[argparse.HelpFormatter]) -> type[argparse.HelpFormatter]:
    class Formatter(formatter):
        def __init__(self, prog: str) -> None:
            super().__init__(prog, width=88)

    return Formatter


def _block(parser: argparse.ArgumentParser) -> list[str]:
    return ["```text", parser.format_help().rstrip(), "```", ""]


def configuration_page() -> str:
    """Every key of both configurations with its default and meaning, a table for each section."""
    return "\n".join(
        [
            "# Configuration keys",
            "",
            "Keys that a file does not name keep these defaults. `section.key=value` on the",
            "command line replaces one.",
            "",
            "## tdn-train",
            "",
            "`tdn-train --init FRAMES` writes a configuration that fits the data, `tdn-train",
            "--defaults` prints all keys. [Training](../training.md) explains them.",
            "",
            *_sections(defaults_yaml()),
            "## tdn-distill",
            "",
            "`tdn-distill --init STRUCTURE` writes one, `tdn-distill --defaults` prints all keys.",
            "[Distillation](../distillation.md) explains them.",
            "",
            *_sections(distill_defaults_yaml()),
        ]
    )


def _sections(defaults: str) -> Iterator[str]:
    """Defaults with comments, as ``--defaults`` prints them, as tables."""
    for section in re.split(r"\n(?=# )", defaults.strip()):
        meaning, title, *keys = section.splitlines()
        yield from (f"### {title.rstrip(':')}", "", meaning.removeprefix("# "), "")
        yield from ("| key | default | meaning |", "| --- | --- | --- |")
        for line in keys:
            key, default, comment = re.fullmatch(r"  (\w+): (.*?)  # (.*)", line).groups()
            escaped = re.sub(r"([|*])", r"\\\1", comment)
            yield f"| `{key}` | `{default}` | {escaped} |"
        yield ""


if __name__ == "__main__":
    main()
