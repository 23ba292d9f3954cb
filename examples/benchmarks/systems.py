"""The structures of the benchmarks: liquid water and crystalline copper of any size."""

from __future__ import annotations

from pathlib import Path

import ase
import ase.io
from ase.build import bulk

from tdn.system.errors import UsageError

WATER = Path(__file__).parents[1] / "water" / "water.xyz.gz"
LATTICE_CONSTANT = 3.615  # angstrom, of copper
SPECIES = {"water": ("H", "O"), "copper": ("Cu",)}


def repetitions(count: int) -> tuple[int, int, int]:
    """Three factors of a number, as equal as they can be."""
    triples = (
        (count // (b * c), b, c)
        for c in range(1, round(count ** (1 / 3)) + 1)
        if count % c == 0
        for b in range(c, round((count // c) ** 0.5) + 1)
        if (count // c) % b == 0
    )
    return min(triples, key=lambda t: (t[0] - t[2], t))


def system(material: str, num_atoms: int) -> ase.Atoms:
    """A periodic box.

    Parameters
    ----------
    material : ``water`` is a liquid of 96 atoms at 300 K from the demo's data (1 g/cm^3), repeated;
        ``copper`` a face-centred cubic crystal whose atoms are displaced by 0.05 angstrom
    num_atoms : a multiple of 96 or 4

    Raises
    ------
    UsageError
        If the number does not fit.
    """
    if material == "water":
        frames = ase.io.read(WATER, ":")
        unit = next(f for f in frames if f.info["config_type"] == "n32_d1.00_T300")
    else:
        unit = bulk("Cu", "fcc", a=LATTICE_CONSTANT, cubic=True)
    unit.calc = None
    cells, rest = divmod(num_atoms, len(unit))
    if rest or cells < 1:
        raise UsageError(f"{num_atoms} atoms of {material}: expected a multiple of {len(unit)}")
    atoms = unit * repetitions(cells)
    if material == "copper":
        atoms.rattle(0.05, seed=1)
    return ase.Atoms(atoms.symbols, atoms.positions, cell=atoms.cell, pbc=True)


def write_data(path: Path, material: str, num_atoms: int) -> None:
    """Write a box as a data file for LAMMPS."""
    ase.io.write(
        path,
        system(material, num_atoms),
        format="lammps-data",
        specorder=list(SPECIES[material]),
        masses=True,
    )
