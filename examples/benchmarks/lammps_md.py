"""Molecular dynamics in LAMMPS: microseconds per atom and step, and where they go.

    python examples/benchmarks/lammps_md.py -o lammps_md.png

Each network runs as the file that tdn-export writes ("fused"), as one with ``--no-fused``
("plain") and as one with plain PyTorch instead of the compiled operators ("reference"); the default
network on water also as machine code ("aotinductor"). Once as one rank with threads, once as
several ranks with one thread each.
"""

from __future__ import annotations

import sys
from pathlib import Path

from lammps_runs import SECTIONS, Loop, run_dynamics
from measure import Table, figure, files, machine, number_text, parser, positive, require_compiled
from models import AOTINDUCTOR, FUSED, PLAIN, REFERENCE, compiled_file, describe

from tdn.system.command import run_main

# network, material, atoms, forms of the file
CASES = [
    ("default", "water", 1536, (FUSED, AOTINDUCTOR, PLAIN, REFERENCE)),
    ("default", "water", 192, (FUSED, PLAIN)),
    ("default", "copper", 4000, (FUSED, PLAIN)),
    ("small", "water", 1536, (FUSED, PLAIN, REFERENCE)),
    ("small", "water", 192, (FUSED, PLAIN)),
    ("nano", "water", 1536, (FUSED,)),
]
QUICK = [("small", "water", 96, (FUSED, REFERENCE))]
# atoms times steps of one timed run, by form: some seconds each
WORK = {FUSED: 60_000, AOTINDUCTOR: 60_000, PLAIN: 15_000, REFERENCE: 4_000}


def layouts(cores: int) -> list[tuple[int, int]]:
    """Ranks and threads: all cores as threads of one rank, and as ranks of one thread."""
    return [(1, cores), (cores, 1)] if cores > 1 else [(1, 1)]


def steps_of(form: str, num_atoms: int, quick: bool) -> int:
    """Length of a timed run."""
    return 2 if quick else max(2, WORK[form] // num_atoms)


def draw(path: Path | None, rows: list[tuple[str, Loop]]) -> None:
    """Bars of the fused files, split into LAMMPS's sections."""
    with figure(path, height=1.2 + 0.45 * len(rows)) as axes:
        if axes is None:
            return
        left = [0.0] * len(rows)
        for section in SECTIONS:
            widths = [loop.sections[section] for _, loop in rows]
            axes.barh(range(len(rows)), widths, left=left, label=section)
            left = [a + b for a, b in zip(left, widths)]
        for position, (_, loop) in enumerate(rows):
            axes.text(
                left[position], position, f" {number_text(loop.total)}", va="center", fontsize=8
            )
        axes.set_yticks(range(len(rows)), [title for title, _ in rows], fontsize=8)
        axes.invert_yaxis()
        axes.set_xlabel("microseconds per atom and step in LAMMPS")
        axes.margins(x=0.1)
        axes.legend(fontsize=8, frameon=False, ncol=4, loc="lower left", bbox_to_anchor=(0, 1))


def _main() -> int:
    command = parser(__doc__)
    command.add_argument("--cores", type=positive, default=2, help="threads or ranks (default 2)")
    command.add_argument("--repeats", type=positive, default=3, help="timed runs; the best counts")
    command.add_argument(
        "--no-aotinductor", action="store_true", help="leave out what compiles for minutes"
    )
    arguments = command.parse_args()
    require_compiled()
    print(machine())
    cases = QUICK if arguments.quick else CASES
    for name in dict.fromkeys(case[0] for case in cases):
        print(describe(name))
    print("\nmicroseconds per atom and step, best of some runs; 300 K, 0.2 fs, skin 1 angstrom\n")
    table = Table(
        {"network, box, ranks x threads": 44, "file": 11, "total": 7}
        | {section: 7 for section in SECTIONS}
        | {"steps": 5, "rebuilds": 8, "slower": 6}
    )
    rows = []
    with files(arguments.files) as folder:
        for name, material, num_atoms, forms in cases:
            for ranks, threads in layouts(arguments.cores):
                title = f"{name}, {material} {num_atoms}, {ranks} x {threads}"
                fused = None
                for form in forms:
                    if form == AOTINDUCTOR and arguments.no_aotinductor:
                        continue
                    steps = steps_of(form, num_atoms, arguments.quick)
                    loop = run_dynamics(
                        folder,
                        compiled_file(name, material, folder, form),
                        material,
                        num_atoms,
                        steps=steps,
                        runs=1 if arguments.quick else arguments.repeats,
                        ranks=ranks,
                        threads=threads,
                    )
                    if fused is None:
                        fused = loop
                        rows.append((title, loop))
                    parts = [loop.sections[section] for section in SECTIONS]
                    slower = loop.total / fused.total
                    table.row(title, form, loop.total, *parts, steps, loop.rebuilds, slower)
    draw(arguments.output, rows)
    return 0


if __name__ == "__main__":
    sys.exit(run_main(_main, "lammps_md.py"))
