"""Fields of configurations with their limits, and dataclasses made of what YAML gives."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import math
import types
import typing
from dataclasses import field
from typing import Any

from tdn.system.errors import UsageError
from tdn.system.printable import printable


def option(
    default: Any,
    text: str,
    choices: tuple = (),
    minimum: float | None = None,
    maximum: float | None = None,
) -> Any:
    """A field with its documentation and limits beside it."""
    limits = {"choices": choices, "minimum": minimum, "maximum": maximum}
    return field(default=default, metadata={"help": text, **limits})


def nearest_key(key: str, valid: list[str]) -> str:
    """What a user may have meant by ``key``, for a message."""
    near = difflib.get_close_matches(key, valid, n=1, cutoff=0.5)
    return f"did you mean '{near[0]}'?" if near else f"valid keys: {', '.join(valid)}"


def _convert(value: Any, annotation: Any, where: str) -> Any:
    """Check a YAML value against a type annotation; lists become tuples, ints become floats."""
    origin = typing.get_origin(annotation)
    arguments = typing.get_args(annotation)
    if origin in (types.UnionType, typing.Union):
        problems = []
        for choice in arguments:
            try:
                return _convert(value, choice, where)
            except UsageError as error:
                problems.append((choice, error))
        # the choice that is built like the value says best what is wrong
        same = (e for c, e in problems if isinstance(value, typing.get_origin(c) or c))
        raise next(same, problems[0][1])
    if annotation is types.NoneType:
        if value is None:
            return None
    elif annotation is float:
        number = None
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            number = float(value)
        elif isinstance(value, str):  # YAML 1.1 reads 1e-3 (without a dot) as a string
            with contextlib.suppress(ValueError):
                number = float(value)
        if number is not None:
            if not math.isfinite(number):
                raise UsageError(f"{where} = {value!r}: expected a finite number")
            return number
    elif annotation is int:
        if isinstance(value, int) and not isinstance(value, bool):
            return value
    elif origin is tuple:
        if isinstance(value, (list, tuple)):
            return tuple(_convert(item, arguments[0], where) for item in value)
    elif annotation is Any:
        return value
    elif origin is dict:
        if isinstance(value, dict):
            return {
                str(k): _convert(v, arguments[1], f"{where}.{printable(k)}")
                for k, v in value.items()
            }
    elif isinstance(value, annotation):
        return value
    expected = getattr(annotation, "__name__", str(annotation))
    if origin is tuple:
        expected = f"list of {arguments[0].__name__}"
    found = "nothing" if value is None else type(value).__name__
    raise UsageError(f"{where} = {printable(repr(value))}: expected {expected}, found {found}")


def section_from_dict(cls: type, values: Any, name: str) -> Any:
    """Build the dataclass of a section from its keys; ``name`` is what messages call it.

    Raises
    ------
    UsageError
        For an unknown key (naming the nearest), a value of the wrong type or one outside its
        limits.
    """
    if values is None:
        values = {}
    if not isinstance(values, dict):
        found = printable(repr(values))
        raise UsageError(f"section '{name}': expected key: value lines, found {found}")
    hints = typing.get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls)}
    converted = {}
    for key, value in values.items():
        if key not in fields:
            near = nearest_key(str(key), list(fields))
            raise UsageError(f"unknown key '{name}.{printable(key)}'; {near}")
        value = _convert(value, hints[key], f"{name}.{key}")
        limits = fields[key].metadata
        if limits["choices"] and value not in limits["choices"]:
            raise UsageError(
                f"{name}.{key} = {printable(repr(value))}: expected one of "
                f"{', '.join(limits['choices'])}"
            )
        minimum = limits["minimum"]
        if minimum is not None and value is not None and value < minimum:
            raise UsageError(f"{name}.{key} = {value!r}: expected at least {minimum:g}")
        maximum = limits["maximum"]
        if maximum is not None and value is not None and value > maximum:
            raise UsageError(f"{name}.{key} = {value!r}: expected at most {maximum:g}")
        converted[key] = value
    return cls(**converted)
