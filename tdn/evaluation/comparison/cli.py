"""``tdn-eval compare``: any two calculators, with a report."""

from __future__ import annotations

import argparse
import os
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from tdn.system.atomic_files import check_writable
from tdn.system.errors import TDNError, UsageError

if TYPE_CHECKING:
    import ase
    from ase.calculators.calculator import Calculator

    from tdn.data.frames import Frame

EPILOG = """\
REFERENCE and STUDENT are files of TDN (model.pt, model.tdn.pth) or ASE calculators as module:Name
with arguments as a YAML mapping, as in "tblite.ase:TBLite {method: GFN2-xTB}". STRUCTURES is any
file that ASE reads: small cells that are periodic in three directions are compared as crystals,
and dynamics start from the first structure.

  tdn-eval compare sevenn.calculator:SevenNetCalculator model.tdn.pth nacl.cif -o comparison
  tdn-eval compare large.pt small.tdn.pth cell.xyz --frames test.xyz --temperature 300 900
"""
# atoms of a crystal whose properties at 0 K are computed, at most
LARGEST_CRYSTAL = 40
# atoms that dynamics begin with, at least
ATOMS = 64
EVERY = 10


def add_parser(commands: argparse._SubParsersAction) -> None:
    """The options of the command."""
    parser = commands.add_parser(
        "compare",
        help="two calculators: errors, crystals, dynamics, speed; a report",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("reference", metavar="REFERENCE", help="calculator that is right")
    parser.add_argument("student", metavar="STUDENT", help="calculator that is to be judged")
    parser.add_argument("frames", metavar="STRUCTURES", help="any file that ASE reads")
    parser.add_argument(
        "-o", "--output", metavar="DIR", default="comparison", help="folder of the report"
    )
    parser.add_argument(
        "--frames",
        dest="held_out",
        metavar="FILE",
        help="frames for errors; those without labels are computed by REFERENCE",
    )
    parser.add_argument(
        "--training", metavar="FILE", help="frames that STUDENT was trained on: what it has seen"
    )
    parser.add_argument("--committee", metavar="FILE", help="committee of STUDENT: calibration")
    parser.add_argument(
        "--temperature", type=float, nargs="+", default=[], help="of dynamics, in K (none)"
    )
    parser.add_argument("--steps", type=int, default=500, help="of dynamics (500)")
    parser.add_argument("--timestep", type=float, help="in fs (by the lightest atom)")
    parser.add_argument("--python", metavar="PYTHON", help="interpreter for module:Name")
    parser.add_argument("--threads", type=int, help="of LAMMPS and module:Name (all cores)")
    parser.add_argument(
        "--no-crystals", dest="crystals", action="store_false", help="leave out properties at 0 K"
    )


def run(arguments: argparse.Namespace) -> int:
    """Carry it out."""
    if arguments.threads is not None and arguments.threads < 1:
        raise UsageError(f"--threads {arguments.threads}: expected at least 1")
    if any(not value > 0 for value in arguments.temperature):
        raise UsageError("--temperature: expected positive numbers, in K")
    if arguments.timestep is not None and not arguments.timestep > 0:
        raise UsageError(f"--timestep {arguments.timestep:g}: expected a positive number")
    if arguments.temperature and arguments.steps < 4 * EVERY:
        raise UsageError(f"--steps {arguments.steps}: expected at least {4 * EVERY}")
    folder = Path(arguments.output)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TDNError(f"--output {folder} cannot be used: {error.strerror}") from None
    check_writable(folder / "report.html")

    from tdn.data import read_frames
    from tdn.evaluation.teachers.calculator import ExternalCalculator, calculator_named

    threads = arguments.threads or len(os.sched_getaffinity(0))
    structures = [frame.atoms for frame in read_frames(arguments.frames)]
    calculators: list[Calculator] = []
    with TemporaryDirectory() as work:
        try:
            for text in (arguments.reference, arguments.student):
                place = Path(work) / str(len(calculators))
                calculators.append(calculator_named(text, place, arguments.python, threads))
            return _compare(arguments, folder, structures, calculators, threads)
        finally:
            for calculator in calculators:
                if isinstance(calculator, ExternalCalculator):
                    calculator.close()


def _compare(
    arguments: argparse.Namespace,
    folder: Path,
    structures: list[ase.Atoms],
    calculators: list[Calculator],
    threads: int,
) -> int:
    from tdn.data import read_frames
    from tdn.data.supercell import supercell
    from tdn.evaluation.dynamics.plan import sensible_timestep
    from tdn.evaluation.teachers.source import is_import_path
    from tdn.inference.calculator import TDNCalculator
    from tdn.inference.compiled_model import is_compiled_file

    from .compare import Subjects, compare
    from .dynamics import Case
    from .report import as_text, write_report
    from .section import Pair

    pair = Pair(calculators[0], calculators[1], ("reference", "student"))
    first = structures[0]
    start = supercell(first, ATOMS)
    compiled = not is_import_path(arguments.student) and is_compiled_file(arguments.student)
    subjects = Subjects(
        crystals=crystals_among(structures) if arguments.crystals else {},
        frames=_labeled(arguments.held_out, pair.reference) if arguments.held_out else [],
        cases=[
            Case(
                name=f"{temperature:g} K",
                start=start,
                temperature=temperature,
                timestep=arguments.timestep or sensible_timestep(start),
                equilibration=arguments.steps // 4,
                steps=arguments.steps,
                every=EVERY,
            )
            for temperature in arguments.temperature
        ],
        atoms=start,
        model=Path(arguments.student) if compiled else None,
        committee=TDNCalculator(arguments.committee) if arguments.committee else None,
        training=read_frames(arguments.training) if arguments.training else [],
        threads=threads,
    )
    sections = compare(pair, subjects, lambda title: print(f"{title} ...", flush=True))
    title = f"{Path(arguments.student).name} against {Path(arguments.reference).name}"
    summary = (
        f"Reference: {arguments.reference}. Student: {arguments.student}. Structures: "
        f"{Path(arguments.frames).name}."
    )
    write_report(folder, title, summary, sections)
    print(as_text(sections))
    print(f"\nreport: {folder / 'report.html'}, numbers: {folder / 'report.json'}")
    return 0


def crystals_among(structures: list[ase.Atoms]) -> dict[str, ase.Atoms]:
    """Small cells that are periodic in three directions, by their formula and place.

    Those of cubic crystals are cubes where that is no larger than it may be.
    """
    from tdn.data.vacuum import is_bulk

    from .crystal import cube_of

    found = {}
    for number, atoms in enumerate(structures, start=1):
        if is_bulk(atoms) and len(atoms) <= LARGEST_CRYSTAL:
            cube = cube_of(atoms)
            chosen = cube if len(cube) <= LARGEST_CRYSTAL else atoms
            place = f" ({number})" if len(structures) > 1 else ""
            found[chosen.get_chemical_formula() + place] = chosen
    return found


def _labeled(path: str, reference: Calculator) -> list[Frame]:
    """Frames with energies and forces, from the file or from the reference."""
    from tdn.data import read_frames

    frames = []
    for frame in read_frames(path):
        if frame.energy is None or frame.forces is None:
            atoms = frame.atoms.copy()
            atoms.calc = reference
            frame = replace(frame, energy=atoms.get_potential_energy(), forces=atoms.get_forces())
        frames.append(frame)
    return frames
