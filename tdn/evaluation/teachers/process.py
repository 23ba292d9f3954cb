"""A calculator in a process of its own: started, asked, started again when it dies."""

from __future__ import annotations

import contextlib
import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ase
import numpy as np

from tdn.system.errors import TDNError, UsageError
from tdn.system.printable import printable
from tdn.system.programs import end_with_parent, environment_with, last_error

from .source import CalculatorSource

WORKER = Path(__file__).with_name("worker.py")


class WorkerDied(TDNError):
    """The process of a calculator ended instead of answering."""


class NoForces(TDNError):
    """A calculator has energies alone."""


@dataclass(frozen=True)
class Label:
    """What a calculator says about a structure.

    Attributes
    ----------
    energy : eV
    forces : [N, 3], eV/angstrom
    stress : [3, 3] in eV/angstrom^3 with the sign of ASE, None where there is none
    seconds : that it took
    """

    energy: float
    forces: np.ndarray
    stress: np.ndarray | None
    seconds: float

    @property
    def finite(self) -> bool:
        """Whether everything is a number."""
        parts = (self.energy, self.forces, 0.0 if self.stress is None else self.stress)
        return all(bool(np.isfinite(part).all()) for part in parts)


class CalculatorProcess:
    """One worker with its calculator; it starts with the first structure.

    Parameters
    ----------
    source : the calculator
    folder : where it runs and leaves ``worker.log``; its modules may lie in the current folder

    Attributes
    ----------
    name, version : of the calculator, once it has been started
    """

    def __init__(self, source: CalculatorSource, folder: Path) -> None:
        self.source = source
        self.folder = folder
        self.name, self.version = source.path, "unknown"
        self._process: subprocess.Popen | None = None
        self._closed = False

    def start(self) -> None:
        """Start the process and make the calculator.

        Raises
        ------
        UsageError
            If the calculator cannot be imported or refuses its arguments.
        TDNError
            If it fails otherwise.
        """
        if self._closed:
            raise TDNError(f"the worker of {self.name} was ended")
        self.folder.mkdir(parents=True, exist_ok=True)
        with open(self.folder / "worker.log", "ab") as log:
            self._process = subprocess.Popen(
                [self.source.interpreter, str(WORKER)],
                cwd=self.folder,
                env=environment_with(self.source.threads),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                preexec_fn=end_with_parent,
            )
        request = {
            "op": "load",
            "calculator": self.source.path,
            "arguments": self.source.arguments,
            "path": [str(Path.cwd())],
        }
        answer = self._ask(request)
        if "error" in answer:
            self.close()
            where = f" (in {self.source.python})" if self.source.python else ""
            error = UsageError if answer["kind"] == "usage" else TDNError
            raise error(
                f"teacher {self.source.path}{where}: {printable(answer['error'], 300)}; expected "
                "module:Name of an ASE calculator that this Python can import, and its arguments"
            )
        self.name, self.version = answer["name"], answer["version"]

    def label(self, atoms: ase.Atoms) -> Label:
        """Energy, forces and stress of a structure.

        Raises
        ------
        WorkerDied
            If the process ended; the next call starts another.
        TDNError
            If the calculator fails on this structure, or has no forces.
        """
        if self._process is None:
            self.start()
        answer = self._ask(
            {
                "op": "label",
                "numbers": atoms.numbers.tolist(),
                "positions": atoms.positions.tolist(),
                "cell": atoms.cell.array.tolist(),
                "pbc": atoms.pbc.tolist(),
            }
        )
        if "error" in answer:
            raise TDNError(f"{self.name} fails: {printable(answer['error'], 300)}")
        if answer["forces"] is None:
            raise NoForces(f"{self.name} gives no forces; choose a calculator that does")
        stress = answer["stress"]
        return Label(
            energy=answer["energy"],
            forces=np.array(answer["forces"], dtype=float).reshape(-1, 3),
            stress=None if stress is None else _full_stress(stress),
            seconds=answer["seconds"],
        )

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        process = self._process
        try:
            process.stdin.write(json.dumps(request) + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except OSError:
            line = ""
        except ValueError:  # closed by another thread
            line = ""
        if not line.endswith("\n"):
            code = process.wait()
            _close_pipes(process)
            self._process = None
            reason = last_error(self.folder / "worker.log")
            raise WorkerDied(f"the worker of {self.name} died (exit code {code}): {reason}")
        return json.loads(line)

    def close(self) -> None:
        """End the process for good; another thread may be waiting for its answer."""
        self._closed = True
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            _close_pipes(process)


def _close_pipes(process: subprocess.Popen) -> None:
    for pipe in (process.stdin, process.stdout):
        with contextlib.suppress(OSError):  # what was not sent yet
            pipe.close()


def _full_stress(voigt: list[float]) -> np.ndarray:
    xx, yy, zz, yz, xz, xy = voigt
    return np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])
