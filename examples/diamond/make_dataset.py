"""Make the diamond data set of this example: strained and rattled crystals, labelled with GFN1-xTB.

Each step is a subcommand with fixed seeds, and labelling goes on where it stopped::

    python make_dataset.py label           # GFN1-xTB -> work/labelled.xyz
    python make_dataset.py assemble        # with splits -> diamond.xyz.gz
    python make_dataset.py reference       # lattice and elastic constants -> reference.csv
    python make_dataset.py check           # labels against finite differences

Needs ase and tblite (``pip install ase tblite``).
"""

from __future__ import annotations

import argparse
import gzip
import io
import os
import sys
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # the cells are too small to gain from threads

import ase.io
import numpy as np
from ase import Atoms, units
from ase.build import bulk
from ase.calculators.calculator import CalculationFailed
from ase.calculators.singlepoint import SinglePointCalculator

from tdn.system.atomic_files import atomic_write
from tdn.system.command import run_main
from tdn.system.errors import TDNError

HERE = Path(__file__).resolve().parent
LATTICE = 3.54  # angstrom, near the minimum of GFN1-xTB
REPEATS = 2  # of the cubic cell: 64 atoms, since tblite has the Gamma point only
# (standard deviation of displacements in angstrom per direction, frames for train, valid, test);
# 0.05 is what a harmonic crystal has at room temperature, 0.14 near 3000 K
RATTLES = ((0.02, 12, 2, 3), (0.05, 18, 3, 5), (0.09, 18, 3, 5), (0.14, 12, 2, 3))
LARGEST_STRAIN = 0.05


def frames() -> list[Atoms]:
    """All configurations, each with a strain and displacements of its own."""
    rng = np.random.default_rng(1)
    result = []
    for sigma, *counts in RATTLES:
        for split, count in zip(("train", "valid", "test"), counts, strict=True):
            for k in range(count):
                atoms = bulk("C", "diamond", a=LATTICE, cubic=True) * REPEATS
                strain = rng.normal(scale=0.015, size=(3, 3))
                strain = (strain + strain.T) / 2 + np.eye(3) * rng.normal(scale=0.015)
                strain = np.clip(strain, -LARGEST_STRAIN, LARGEST_STRAIN)
                atoms.set_cell(atoms.cell.array @ (np.eye(3) + strain), scale_atoms=True)
                atoms.positions += rng.normal(scale=sigma, size=(len(atoms), 3))
                name = f"rattle{sigma:.2f}"
                atoms.info = {
                    "config_type": name,
                    "split": split,
                    "frame_id": f"{name}_{split}_{k:03d}",
                }
                result.append(atoms)
    return result


def gfn1_calculator():
    """GFN1-xTB (Grimme, Bannwarth, Shushkov, J. Chem. Theory Comput. 13, 1989 (2017))."""
    from tblite.ase import TBLite

    return TBLite(method="GFN1-xTB", accuracy=0.1, verbosity=0)


def label(work: Path) -> None:
    """Label all frames; append to ``labelled.xyz``, skipping what is there."""
    output = work / "labelled.xyz"
    done = set()
    if output.exists():
        done = {atoms.info["frame_id"] for atoms in ase.io.read(output, index=":")}
    for atoms in frames():
        if atoms.info["frame_id"] in done:
            continue
        calculator = gfn1_calculator()
        keys = ["energy", "forces", "stress"]
        try:
            calculator.calculate(atoms, keys)
        except CalculationFailed as error:
            print(f"{atoms.info['frame_id']}: left out, {error}", flush=True)
            continue
        labelled = atoms.copy()
        results = {key: calculator.results[key] for key in keys}
        labelled.calc = SinglePointCalculator(labelled, **results)
        text = io.StringIO()
        ase.io.write(text, labelled, format="extxyz")
        with output.open("a") as file:  # one write, so that no frame is ever cut in half
            file.write(text.getvalue())
        print(f"{atoms.info['frame_id']}: {results['energy'] / len(atoms):.4f} eV/atom", flush=True)


def labelled_frames(work: Path) -> list[Atoms]:
    path = work / "labelled.xyz"
    if not path.exists():
        raise TDNError(f"found no {path}; it is made by: make_dataset.py label")
    return ase.io.read(path, index=":")


def assemble(work: Path, output: Path) -> None:
    """All labelled frames in one compressed extended-XYZ file."""
    chosen = sorted(labelled_frames(work), key=lambda atoms: atoms.info["frame_id"])
    for atoms in chosen:
        del atoms.info["frame_id"]
    text = io.StringIO()
    ase.io.write(text, chosen, format="extxyz")
    with atomic_write(output) as temporary:
        temporary.write_bytes(gzip.compress(text.getvalue().encode(), mtime=0))
    splits = [atoms.info["split"] for atoms in chosen]
    counts = ", ".join(f"{splits.count(split)} {split}" for split in ("train", "valid", "test"))
    print(f"{output}: {len(chosen)} frames ({counts}), {output.stat().st_size / 1e6:.2f} MB")


def stress_of(strain: np.ndarray, lattice: float) -> np.ndarray:
    """Stress [3, 3] in GPa of the strained crystal, whose two sublattices are relaxed."""
    from ase.optimize import BFGS

    atoms = bulk("C", "diamond", a=lattice, cubic=True) * REPEATS
    atoms.set_cell(atoms.cell.array @ (np.eye(3) + strain), scale_atoms=True)
    atoms.calc = gfn1_calculator()
    BFGS(atoms, logfile=None).run(fmax=0.01, steps=30)
    return atoms.get_stress(voigt=False) / units.GPa


def reference(output: Path) -> None:
    """Lattice constant and cubic elastic constants by central differences of the stress."""
    low, high = 3.50, 3.60
    for _ in range(8):
        middle = 0.5 * (low + high)
        pressure = -np.trace(stress_of(np.zeros((3, 3)), middle)) / 3
        low, high = (middle, high) if pressure > 0 else (low, middle)
    lattice = 0.5 * (low + high)
    step = 0.005
    stretch, shear = np.zeros((3, 3)), np.zeros((3, 3))
    stretch[0, 0] = step
    shear[1, 2] = shear[2, 1] = 0.5 * step
    slope = (stress_of(stretch, lattice) - stress_of(-stretch, lattice)) / (2 * step)
    twist = (stress_of(shear, lattice) - stress_of(-shear, lattice)) / (2 * step)
    rows = [
        ("lattice", lattice),
        ("C11", slope[0, 0]),
        ("C12", 0.5 * (slope[1, 1] + slope[2, 2])),
        ("C44", twist[1, 2]),
    ]
    with atomic_write(output) as temporary:
        lines = [f"{name},{value:.4g}" for name, value in rows]
        temporary.write_text("quantity,value\n" + "\n".join(lines) + "\n")
    print(output.read_text())


def check(work: Path) -> None:
    """Finite differences of the energy against the forces and the stress of one labelled frame."""
    atoms = labelled_frames(work)[20]
    forces, stress = atoms.get_forces(), atoms.get_stress(voigt=False)
    rng = np.random.default_rng(0)

    def slope(deform, step: float) -> float:
        energies = []
        for sign in (1, -1):
            moved = atoms.copy()
            deform(moved, sign * step)
            moved.calc = gfn1_calculator()
            energies.append(moved.get_potential_energy())
        return (energies[0] - energies[1]) / (2 * step)

    print(f"net force {np.abs(forces.sum(axis=0)).max():.1e} eV/A")
    for _ in range(2):
        direction = rng.normal(size=forces.shape)
        direction /= np.linalg.norm(direction)
        numeric = -slope(lambda a, h, d=direction: a.set_positions(a.positions + h * d), 5e-3)
        print(f"force {np.sum(forces * direction):.6f}, numeric {numeric:.6f} eV/A")
    for i, j in ((0, 0), (1, 2)):
        strain = np.zeros((3, 3))
        strain[i, j] = strain[j, i] = 1.0 if i == j else 0.5
        numeric = slope(
            lambda a, h, e=strain: a.set_cell(a.cell @ (np.eye(3) + h * e), scale_atoms=True), 2e-3
        )
        numeric /= atoms.get_volume()
        print(f"stress {i}{j}: {stress[i, j]:.7f}, numeric {numeric:.7f} eV/A^3")


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--work", type=Path, default=Path("diamond-work"), help="scratch folder")
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("label", "assemble", "reference", "check"):
        commands.add_parser(name)
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    if arguments.command == "label":
        label(arguments.work)
    elif arguments.command == "assemble":
        assemble(arguments.work, HERE / "diamond.xyz.gz")
    elif arguments.command == "reference":
        reference(HERE / "reference.csv")
    else:
        check(arguments.work)


if __name__ == "__main__":
    sys.exit(run_main(_main, "make_dataset"))
