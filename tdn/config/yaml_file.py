"""Configuration files: YAML with ``key=value`` overrides."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import yaml

from tdn.system.errors import UsageError
from tdn.system.printable import printable

from .schema import SECTIONS, Config, TrainConfig, config_from_dict

PATH_KEYS = {
    "data": ("train", "valid", "test", "isolated_atoms"),
    "train": ("run_dir", "init_from"),
}


class _UniqueKeyLoader(yaml.SafeLoader):
    """YAML's safe loader, which rejects duplicate keys."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for index, key in enumerate(keys):
            if key in keys[:index]:
                raise yaml.YAMLError(
                    f"key '{key}' is given twice (line {node.start_mark.line + 1}+)"
                )
        return super().construct_mapping(node, deep)


def load_config(path: str | Path, overrides: tuple[str, ...] | list[str] = ()) -> Config:
    """Read a YAML file and apply ``section.key=value`` overrides.

    Relative paths in the ``data`` section, ``train.run_dir`` and ``train.init_from`` are taken
    relative to the folder of the file, those in overrides relative to the current folder.

    Raises
    ------
    UsageError
        If the file is missing, is no YAML, or anything in it is not understood.
    """
    path = Path(path)
    values = read_yaml(path, SECTIONS)
    if values.get("train") is None:
        values["train"] = {}
    if isinstance(values["train"], dict):
        values["train"].setdefault("run_dir", TrainConfig.run_dir)
    change_paths(values, lambda name: path.parent / name.expanduser())
    for override in overrides:
        apply_override(values, override)
    return config_from_dict(values)


def read_yaml(path: Path, sections: Iterable[str]) -> dict[str, Any]:
    """A YAML file with sections, without looking into them.

    Raises
    ------
    UsageError
        If the file is missing or no YAML.
    """
    if not path.is_file():
        raise UsageError(f"configuration file {path} not found; give the path of a YAML file")
    try:
        values = yaml.load(path.read_text(), Loader=_UniqueKeyLoader) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = printable(" ".join(str(error).split()), 300)
        raise UsageError(f"configuration file {path} is not valid YAML: {reason}") from error
    if not isinstance(values, dict):
        *names, last = sections
        expected = f"{', '.join(names)} and {last}"
        raise UsageError(f"configuration file {path}: expected sections {expected}")
    return values


def change_paths(values: dict[str, Any], change: Callable[[Path], Path]) -> None:
    """Replace every path in the sections of a configuration, those of ``data.heads`` included."""
    data = values.get("data")
    levels = data.get("heads") if isinstance(data, dict) else None
    parts = [(section, values.get(section)) for section in ("data", "train")]
    parts += [("data", level) for level in levels.values()] if isinstance(levels, dict) else []
    for section, part in parts:
        for key in PATH_KEYS[section]:
            if isinstance(part, dict) and key in part:
                part[key] = _each(part[key], change)


def _each(value: Any, change: Callable[[Path], Path]) -> Any:
    """A path, or each path of a list, changed; anything else as it is."""
    if isinstance(value, list):
        return [_each(item, change) for item in value]
    return str(change(Path(value))) if isinstance(value, str) else value


def apply_override(values: dict[str, Any], override: str) -> None:
    """Set one value of nested dictionaries from ``section.key=value``.

    Keys that hold keys go on: ``student.model.r_max=5``.

    Raises
    ------
    UsageError
        If the text is not understood.
    """
    key, separator, text = override.partition("=")
    *parents, last = key.strip().split(".")
    if not separator or not parents or not all((*parents, last)):
        raise UsageError(f"override '{override}': expected section.key=value, e.g. train.seed=1")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UsageError(f"override '{override}': '{text}' is not a YAML value") from error
    section = values
    for depth, name in enumerate(parents, start=1):
        if section.get(name) is None:
            section[name] = {}
        section = section[name]
        if not isinstance(section, dict):
            place = ".".join(parents[:depth])
            raise UsageError(f"section '{place}': expected key: value lines, found {section!r}")
    if last in PATH_KEYS.get(parents[0], ()):
        value = _each(value, Path.expanduser)
    section[last] = value


def defaults_yaml() -> str:
    """All keys with their defaults and their help as comments, a valid configuration file."""
    return sections_yaml(SECTIONS)


def sections_yaml(sections: dict[str, type]) -> str:
    """Sections that are described by dataclasses, as `defaults_yaml` writes them."""
    lines = []
    for name, cls in sections.items():
        lines += [f"# {(cls.__doc__ or '').splitlines()[0]}", f"{name}:"]
        for option in dataclasses.fields(cls):
            value = list(option.default) if isinstance(option.default, tuple) else option.default
            text = yaml.safe_dump(value, default_flow_style=True).removesuffix("...\n").strip()
            comment = option.metadata["help"]
            if option.metadata["choices"] and len(option.metadata["choices"]) > 1:
                comment += f" ({' | '.join(option.metadata['choices'])})"
            lines.append(f"  {option.name}: {text}  # {comment}")
        lines.append("")
    return "\n".join(lines)
