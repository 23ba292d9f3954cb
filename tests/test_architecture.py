"""The import rules of docs/architecture.md, and the size of the top folder."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = {"tdn": "tdn", "tdn_export": "export", "tdn_lammps": "lammps_plugin"}
PAGE = ROOT / "docs" / "architecture.md"


def modules() -> dict[str, Path]:
    """Every module of the three packages by its dotted name."""
    found = {}
    for name, folder in PACKAGES.items():
        for path in (ROOT / folder).rglob("*.py"):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            parts = parts[:-1] if parts[-1] == "__init__" else parts
            found[".".join((name, *parts))] = path
    return found


def imports_of(name: str, path: Path, known: set[str]) -> set[str]:
    """The modules that one imports, inside functions as well."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            source = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                source = ".".join([*above, source] if source else above)
            for alias in node.names:
                whole = f"{source}.{alias.name}"
                found.add(whole if whole in known else source)
    return (found & known) - {name}


def graph_of_imports() -> dict[str, set[str]]:
    found = modules()
    graph = {name: imports_of(name, path, set(found)) for name, path in found.items()}
    del graph["tdn"]  # names of the public interface, imported when they are asked for
    return graph


def part_of(module: str) -> str:
    """Row of the table: the folder or file below tdn/, or one of the other packages."""
    parts = module.split(".")
    return parts[1] if parts[0] == "tdn" and len(parts) > 1 else parts[0]


def allowed_edges() -> dict[str, set[str]]:
    """The table of the page: each part and what it may import."""
    rows = re.findall(r"^\| `(\w+)` \|([^|]*)\|", PAGE.read_text(), flags=re.MULTILINE)
    return {name: set(re.findall(r"`(\w+)`", cell)) for name, cell in rows}


def violations(graph: dict[str, set[str]], allowed: dict[str, set[str]]) -> list[str]:
    """Imports that the table does not allow."""
    return [
        f"{module} imports {target}"
        for module, targets in sorted(graph.items())
        for target in sorted(targets)
        if part_of(module) != part_of(target)
        and part_of(target) not in allowed.get(part_of(module), set())
    ]


def circle(graph: dict[str, set[str]]) -> list[str]:
    """Some circle, as a list of names that begins and ends with the same one; empty if none."""
    done: set[str] = set()

    def visit(name: str, trail: list[str]) -> Iterator[list[str]]:
        if name in trail:
            yield [*trail[trail.index(name) :], name]
        elif name not in done:
            for target in sorted(graph.get(name, ())):
                yield from visit(target, [*trail, name])
            done.add(name)

    for start in sorted(graph):
        for found in visit(start, []):
            return found
    return []


def test_imports_follow_the_table():
    assert violations(graph_of_imports(), allowed_edges()) == []


def test_the_table_names_every_part_and_points_one_way():
    allowed = allowed_edges()
    assert set(allowed) == {part_of(name) for name in graph_of_imports()}
    assert circle(allowed) == []


def test_no_circle_among_modules():
    assert circle(graph_of_imports()) == []


@pytest.mark.parametrize(
    "module, target", [("tdn.ops.loading", "tdn.network.base"), ("tdn.data.frames", "tdn.training")]
)
def test_an_import_upwards_is_found(module, target):
    graph = graph_of_imports()
    graph[module] = graph[module] | {target}
    assert violations(graph, allowed_edges()) == [f"{module} imports {target}"]


def test_a_circle_is_found():
    graph = graph_of_imports()
    graph["tdn.system.errors"] = {"tdn.system.command"}
    assert set(circle(graph)) == {"tdn.system.errors", "tdn.system.command"}


def test_the_top_folder_stays_small():
    markers = {"__init__.py", "py.typed", "__pycache__"}  # of every package
    entries = [path for path in (ROOT / "tdn").iterdir() if path.name not in markers]
    assert len(entries) <= 12, sorted(path.name for path in entries)


def test_every_folder_is_installed():
    folders = {name.rpartition(".")[0] for name in modules()} | set(PACKAGES)
    packages = re.search(r"packages = \[(.*?)\]", (ROOT / "pyproject.toml").read_text(), re.DOTALL)
    assert set(re.findall(r'"([\w.]+)"', packages[1])) == {
        name for name in folders if name and (modules()[name].name == "__init__.py")
    }
