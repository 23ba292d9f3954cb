"""How a calculator is named: import path, arguments, and the Python that it runs in."""

from __future__ import annotations

import os
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tdn.system.errors import UsageError

_FORM = re.compile(r"\s*([A-Za-z_][\w.]*:[A-Za-z_]\w*)\s*(\{.*\})?\s*", re.DOTALL)


@dataclass(frozen=True)
class CalculatorSource:
    """An ASE calculator by its import path.

    Attributes
    ----------
    path : ``module:Name``, e.g. ``sevenn.calculator:SevenNetCalculator``
    arguments : of the constructor
    python : interpreter of the environment that has it; None: the one that runs this
    threads : for its process; None: as the environment says
    """

    path: str
    arguments: dict[str, Any] = field(default_factory=dict)
    python: str | None = None
    threads: int | None = None

    @property
    def interpreter(self) -> str:
        """The Python to start.

        Raises
        ------
        UsageError
            If there is no such program.
        """
        if self.python is None:
            return sys.executable
        found = Path(self.python).expanduser()
        if not os.access(found, os.X_OK) or found.is_dir():
            raise UsageError(
                f"teacher.python {self.python} is no program; expected the interpreter of an "
                "environment, such as /path/to/venv/bin/python"
            )
        return str(found.absolute())  # not resolved: a link of a venv says which venv it is


def is_import_path(text: str) -> bool:
    """Whether a text names a calculator by import path, and no file."""
    return _FORM.fullmatch(text) is not None and not Path(text).exists()


def parse_calculator(text: str, python: str | None = None) -> CalculatorSource:
    """``module:Name``, with arguments as a YAML mapping behind it: ``module:Name {key: value}``.

    Raises
    ------
    UsageError
        If it is not understood.
    """
    found = _FORM.fullmatch(text)
    try:
        arguments = yaml.safe_load(found[2] or "{}") if found else None
    except yaml.YAMLError:
        arguments = None
    if found is None or not isinstance(arguments, dict):
        raise UsageError(
            f"calculator '{text}' is not understood; expected module:Name, as in "
            "sevenn.calculator:SevenNetCalculator or tblite.ase:TBLite {method: GFN2-xTB}"
        )
    return CalculatorSource(found[1], arguments, python)
