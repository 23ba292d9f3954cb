"""Properties of a crystal at 0 K: equation of state, lattice constants, elastic constants."""

from __future__ import annotations

import warnings

import ase
import ase.units
import numpy as np
from ase.calculators.calculator import Calculator
from ase.eos import EquationOfState
from ase.filters import FrechetCellFilter
from ase.optimize import BFGS

from tdn.system.errors import TDNError

from .figures import curve_figure
from .section import Pair, Section, comparing_columns

# lengths of the equation of state, relative
STRETCHES = np.linspace(0.96, 1.04, 9)
# strain of the finite differences; the error is of second order in it
STRAIN = 5e-3
# eV/angstrom
RELAXED, MOST_STEPS = 1e-3, 300
# eV/angstrom; atoms of a strained cell with smaller forces stay where they are
AT_REST = 1e-4
# angstrom, within which positions are the same by symmetry
SAME = 1e-3
# share of the largest constant, within which constants are those of a cubic crystal
NEARLY = 0.05
VOIGT = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))
NAMES = ("xx", "yy", "zz", "yz", "xz", "xy")


def relaxed(atoms: ase.Atoms, calculator: Calculator, cell: bool = True) -> ase.Atoms:
    """A copy at the minimum of the energy, with or without its cell.

    Raises
    ------
    TDNError
        If it is not found, or the calculator has no stress.
    """
    work = ase.Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
    work.calc = calculator
    target = FrechetCellFilter(work) if cell else work
    if not BFGS(target, logfile=None).run(fmax=RELAXED, steps=MOST_STEPS):
        raise TDNError(f"the structure does not relax within {MOST_STEPS} steps")
    return work


def relaxed_by_both(pair: Pair, atoms: ase.Atoms) -> dict[str, ase.Atoms]:
    """Name of each calculator -> its relaxed crystal.

    Raises
    ------
    TDNError
        With the name of the one that does not relax it.
    """
    found = {}
    for name, calculator in pair.named:
        try:
            found[name] = relaxed(atoms, calculator)
        except TDNError as error:
            raise TDNError(f"{name}: {error}") from None
    return found


def equation_of_state(pair: Pair, crystal: dict[str, ase.Atoms]) -> Section:
    """Energy against volume; volume, lengths and bulk modulus at the minimum.

    Birch-Murnaghan (`ase.eos`), relative positions fixed, volumes of +-12 % about the relaxed one
    of each calculator (`relaxed_by_both`).
    """
    section = Section(
        "Equation of state",
        "Energies of the crystal at nine volumes, relative positions fixed; the fit is that of "
        "Birch and Murnaghan.",
        comparing_columns(pair),
    )
    curves, fits = {}, []
    for name, calculator in pair.named:
        start = crystal[name]
        volumes, energies = [], []
        for stretch in STRETCHES:
            work = start.copy()
            work.set_cell(stretch * start.cell.array, scale_atoms=True)
            work.calc = calculator
            volumes.append(work.get_volume() / len(work))
            energies.append(work.get_potential_energy() / len(work))
        fit = EquationOfState(volumes, energies, eos="birchmurnaghan")
        volume, energy, modulus = fit.fit(warn=False)
        lengths = start.cell.lengths() * (volume * len(start) / start.get_volume()) ** (1 / 3)
        fits.append((volume, modulus / ase.units.GPa, lengths))
        curves[name] = (np.array(volumes), np.array(energies) - energy)
    section.compare("volume", "angstrom^3 per atom", (fits[0][0], fits[1][0]), 5)
    for axis, letter in enumerate("abc"):
        if axis and np.isclose(fits[0][2][axis], fits[0][2][0], rtol=1e-4):
            continue
        section.compare(
            f"lattice constant {letter}", "angstrom", (fits[0][2][axis], fits[1][2][axis]), 5
        )
    section.compare("bulk modulus", "GPa", (fits[0][1], fits[1][1]))
    section.figures.append(
        curve_figure(curves, "volume (Å³ per atom)", "energy above the minimum (eV per atom)")
    )
    return section


def elastic_constants(pair: Pair, atoms: ase.Atoms, crystal: dict[str, ase.Atoms]) -> Section:
    """Elastic constants from stresses of strained cells, atoms relaxed.

    Parameters
    ----------
    atoms : the crystal as given, whose symmetry tells which constants are independent
    crystal : name -> relaxed crystal, for both names of the pair
    """
    section = Section(
        "Elastic constants",
        f"Central differences of the stress at strains of {100 * STRAIN:g} %, with the atoms "
        "relaxed, about the relaxed crystal of each.",
        comparing_columns(pair),
    )
    matrices = [elastic_matrix(crystal[name], calculator) for name, calculator in pair.named]
    for name, values in _independent(atoms, matrices).items():
        section.compare(name, "GPa", values)
    return section


def elastic_matrix(atoms: ase.Atoms, calculator: Calculator) -> np.ndarray:
    """C_ij = d stress_i / d strain_j in Voigt's notation with engineering shears, [6, 6], GPa."""
    matrix = np.zeros((6, 6))
    for column, (i, j) in enumerate(VOIGT):
        stresses = []
        for sign in (1, -1):
            strain = np.zeros((3, 3))
            strain[i, j] += 0.5 * sign * STRAIN
            strain[j, i] += 0.5 * sign * STRAIN
            work = atoms.copy()
            work.set_cell(atoms.cell.array @ (np.eye(3) + strain), scale_atoms=True)
            work.calc = calculator
            if np.abs(work.get_forces()).max() > AT_REST:
                work = relaxed(work, calculator, cell=False)
            stresses.append(work.get_stress())
        matrix[:, column] = (stresses[0] - stresses[1]) / (2 * STRAIN)
    return 0.5 * (matrix + matrix.T) / ase.units.GPa


def is_cubic(atoms: ase.Atoms) -> bool:
    """Whether the cell is a cube."""
    lengths = atoms.cell.lengths()
    return bool(
        np.allclose(lengths, lengths[0], rtol=1e-3) and np.allclose(atoms.cell.angles(), 90)
    )


def cube_of(atoms: ase.Atoms) -> ase.Atoms:
    """The cube of a cubic crystal that is given by another cell; anything else as it is.

    Databases give primitive cells, in whose axes the three elastic constants of a cubic crystal
    become a dozen. It needs spglib, which comes with phonopy.
    """
    if is_cubic(atoms):
        return atoms
    try:
        import spglib
    except ImportError:
        return atoms
    cell = (atoms.cell.array, atoms.get_scaled_positions(), atoms.numbers)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # releases differ in how they say that there is none
        found = spglib.standardize_cell(cell, symprec=SAME)
    if found is None:
        return atoms
    lattice, places, numbers = found
    cube = ase.Atoms(numbers, cell=lattice, scaled_positions=places, pbc=True)
    return cube if is_cubic(cube) else atoms


def _of_a_cube(matrix: np.ndarray) -> tuple[float, float, float]:
    """C11, C12 and C44 as means of what symmetry makes equal in a cube."""
    m = matrix
    return m[:3, :3].trace() / 3, (m[0, 1] + m[0, 2] + m[1, 2]) / 3, m[3:, 3:].trace() / 3


def _cubic_matrix(c11: float, c12: float, c44: float) -> np.ndarray:
    """The elastic constants of a cube in its axes, [6, 6]."""
    matrix = np.diag([c11 - c12] * 3 + [c44] * 3)
    matrix[:3, :3] += c12
    return matrix


def _independent(atoms: ase.Atoms, matrices: list[np.ndarray]) -> dict[str, tuple[float, float]]:
    """Constants by name for both; three for cubic crystals, else all that are not about zero.

    A cell that is a cube does not make its crystal cubic, as in CuAu: the reference's constants
    must be those of a cube as well.
    """
    cubic = [_of_a_cube(m) for m in matrices]
    rest = matrices[0] - _cubic_matrix(*cubic[0])
    if is_cubic(atoms) and np.abs(rest).max() < NEARLY * np.abs(matrices[0]).max():
        return dict(zip(("C11", "C12", "C44"), zip(*cubic, strict=True), strict=True))
    largest = max(np.abs(m).max() for m in matrices)
    return {
        f"C{i + 1}{j + 1}": (matrices[0][i, j], matrices[1][i, j])
        for i in range(6)
        for j in range(i, 6)
        if abs(matrices[0][i, j]) > 0.02 * largest
    }
