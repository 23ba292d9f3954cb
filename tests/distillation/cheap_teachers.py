"""Calculators with every kind of defect; tests copy this file to where a run starts."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
from ase.calculators.emt import EMT

COUNT = "calls.txt"


class Counting(EMT):
    """EMT that writes a line for every structure; ``folder`` holds the file."""

    def __init__(self, folder: str = "", **keys):
        super().__init__(**keys)
        self.folder = folder

    def calculate(self, *arguments, **keys):
        super().calculate(*arguments, **keys)
        with open(Path(self.folder) / COUNT, "a") as file:
            file.write(f"{self.atoms.get_volume():.6f} {self.atoms.positions.sum():.9f}\n")


class Nan(EMT):
    """Has no numbers for structures with less than ``fewest`` atoms."""

    def __init__(self, fewest: int = 0):
        super().__init__()
        self.fewest = fewest

    def calculate(self, *arguments, **keys):
        super().calculate(*arguments, **keys)
        if 1 < len(self.atoms) < self.fewest:
            self.results["forces"] = np.full((len(self.atoms), 3), np.nan)


class Unordered(EMT):
    """The first atom is special."""

    def calculate(self, *arguments, **keys):
        super().calculate(*arguments, **keys)
        self.results["energy"] += float(self.atoms.positions[0] @ [1.0, 2.0, 3.0])
        self.results["forces"][0] -= [1.0, 2.0, 3.0]


class NoForces(EMT):
    """Energies only."""

    implemented_properties = ["energy", "free_energy"]

    def calculate(self, *arguments, **keys):
        super().calculate(*arguments, **keys)
        del self.results["forces"]


class Dying(EMT):
    """Ends its process at the first structure of each size below, unless it did so before."""

    def __init__(self, folder: str = "", always: bool = False, size: int = 15, **keys):
        super().__init__(**keys)
        self.folder, self.always, self.size = folder, always, size

    def calculate(self, atoms=None, *arguments, **keys):
        mark = Path(self.folder) / "died"
        if len(atoms) == self.size and (self.always or not mark.exists()):
            mark.write_text("")
            os.kill(os.getpid(), signal.SIGKILL)
        super().calculate(atoms, *arguments, **keys)


class Talking(EMT):
    """Prints on standard output, as some programs do."""

    def calculate(self, *arguments, **keys):
        print("converged in 17 steps")
        os.write(1, b"and from C\n")
        super().calculate(*arguments, **keys)
