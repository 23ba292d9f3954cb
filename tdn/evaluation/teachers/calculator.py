"""Any calculator for ASE: a model of TDN by its file, another one by its import path."""

from __future__ import annotations

from pathlib import Path

import ase
from ase.calculators.calculator import Calculator, PropertyNotImplementedError, all_changes
from ase.stress import full_3x3_to_voigt_6_stress

from tdn.inference.calculator import TDNCalculator
from tdn.system.errors import TDNError

from .process import CalculatorProcess
from .source import CalculatorSource, is_import_path, parse_calculator


class ExternalCalculator(Calculator):
    """ASE calculator whose work is done by a `CalculatorProcess`.

    Parameters
    ----------
    source : the calculator
    folder : where its process runs

    Raises
    ------
    TDNError
        When calculating, if it fails or gives numbers that are not finite.
    """

    implemented_properties = ["energy", "free_energy", "forces", "stress"]

    def __init__(self, source: CalculatorSource, folder: Path) -> None:
        super().__init__()
        self.process = CalculatorProcess(source, folder)

    def calculate(
        self,
        atoms: ase.Atoms | None = None,
        properties: list[str] | tuple[str, ...] = ("energy",),
        system_changes: list[str] = all_changes,
    ) -> None:
        """Fill ``self.results``; called by ASE."""
        super().calculate(atoms, properties, system_changes)
        label = self.process.label(self.atoms)
        if not label.finite:
            raise TDNError(f"{self.process.name} gives NaN or infinity")
        self.results = {
            "energy": label.energy,
            "free_energy": label.energy,
            "forces": label.forces,
        }
        if label.stress is not None:
            self.results["stress"] = full_3x3_to_voigt_6_stress(label.stress)
        elif "stress" in properties:
            raise PropertyNotImplementedError(f"{self.process.name} gives no stress")

    def close(self) -> None:
        """End the process."""
        self.process.close()


def calculator_named(
    text: str, folder: Path, python: str | None = None, threads: int | None = None
) -> Calculator:
    """A calculator from what a user writes: a file of TDN, or an import path.

    Parameters
    ----------
    text : ``model.pt``, ``model.tdn.pth`` or ``module:Name {key: value}``
    folder : where the process of an imported calculator runs
    python, threads : of that process

    Raises
    ------
    TDNError
        If it cannot be made.
    """
    if not is_import_path(text):
        return TDNCalculator(text)
    source = parse_calculator(text, python)
    calculator = ExternalCalculator(
        CalculatorSource(source.path, source.arguments, python, threads), folder
    )
    calculator.process.start()
    return calculator
