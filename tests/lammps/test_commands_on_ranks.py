"""Commands that move atoms, cells and domains do on several ranks what they do on one.

Every number of ranks is one launch of LAMMPS, which goes through all commands with ``clear``
between them. Whatever a command has done, its last frame must have the energy and the forces of the
closed form; where nothing is drawn at random per rank, it must be the frame of one rank too.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from .conftest import LammpsRunner, Structure, run_script, setup, thermo_rows
from .test_settings import lattice
from .toy import closed_form

CRYSTAL = lattice(repeats=2)  # 64 atoms in a cube of 8 angstrom
SLAB = replace(CRYSTAL, cell=np.diag([8.0, 8.0, 24.0]))  # in the lower third of the cell
START = """\
pair_coeff * * toy2.tdn.pth H O
neighbor 0.6 bin
neigh_modify every 5 delay 0 check yes
timestep 0.0005
thermo 10
thermo_style custom step pe etotal press vol atoms {column}
thermo_modify format float %.17g
"""
COLUMNS = ("step", "pe", "etotal", "press", "vol", "atoms")
DYNAMICS = "velocity all create 1500 5 loop geom mom yes\nfix 1 all nve\n"
EVERYWHERE = "region all block INF INF INF INF INF INF\n"


@dataclass(frozen=True)
class Command:
    """What follows after reading the atoms."""

    script: str
    slab: bool = False  # with boundary p p f
    before: str = ""
    column: str = ""  # more columns of the output
    same: tuple[str, ...] = ("pe", "etotal", "press", "vol", "atoms")  # as on one rank


COMMANDS = {
    # so few iterations that their choices do not depend on rounding
    "minimize": Command("minimize 0 0 10 100\n"),
    "box/relax": Command(
        "fix 1 all box/relax aniso 0 vmax 0.005\nmin_modify line quadratic\nminimize 0 0 10 100\n"
    ),
    "npt": Command(
        "velocity all create 600 5 loop geom\nfix 1 all npt temp 600 600 0.05 aniso 0 0 0.2\n"
        "run 40\n"
    ),
    "deposit": Command(
        DYNAMICS + "region top block 0 8 0 8 10 12\n"
        "fix 2 all deposit 4 1 10 77 region top near 1.0 vz -50 -50\nrun 40\n",
        slab=True,
    ),
    # which atoms go is drawn from the atoms in the order of the ranks
    "evaporate": Command(
        DYNAMICS + EVERYWHERE + "fix 2 all evaporate 10 2 all 49892\nrun 40\n",
        slab=True,
        same=("atoms",),
    ),
    "balance shift": Command(
        DYNAMICS + "fix 2 all balance 10 1.0 shift z 20 1.01\nrun 40\n",
        slab=True,
        column="f_2 f_2[3]",
    ),
    "balance rcb": Command(
        DYNAMICS + "fix 2 all balance 10 1.0 rcb\nrun 40\n",
        slab=True,
        before="comm_style tiled\n",
        column="f_2 f_2[3]",
    ),
    "rerun": Command(
        DYNAMICS + "dump 1 all custom 10 rerun.{ranks} id type x y z\n"
        "dump_modify 1 format float %.17g\nrun 40\nundump 1\n"
        "rerun rerun.{ranks} dump x y z box yes\n",
        same=("pe",),
    ),
}


@dataclass
class Outcome:
    """Output of a command: thermodynamics, and the last frame sorted by id."""

    rows: np.ndarray  # `COLUMNS`
    frame: Structure
    forces: np.ndarray


def read_frame(path: Path) -> tuple[Structure, np.ndarray]:
    """The atoms of a dump with id type x y z fx fy fz, and their forces."""
    lines = path.read_text().splitlines()
    low, high = np.array([line.split() for line in lines[5:8]], dtype=float).T
    table = np.loadtxt(lines[9:])
    species = table[:, 1].astype(int) - 1
    structure = Structure(species, table[:, 2:5], np.diag(high - low), table[:, 0].astype(int))
    return structure, table[:, 5:8]


@pytest.fixture(scope="module")
def outcomes(
    plugin: Path, models: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[int], dict[str, Outcome]]:
    """Function that gives the outcomes of all commands on a number of ranks."""
    folder = tmp_path_factory.mktemp("commands")
    CRYSTAL.write(folder / "crystal.data")
    SLAB.write(folder / "slab.data")
    known: dict[int, dict[str, Outcome]] = {}

    def run(ranks: int) -> dict[str, Outcome]:
        if ranks in known:
            return known[ranks]
        script = ""
        for k, command in enumerate(COMMANDS.values()):
            begin = setup(CRYSTAL, "slab.data" if command.slab else "crystal.data")
            if command.slab:
                begin = begin.replace("p p p", "p p f")
            work = command.script.replace("{ranks}", str(ranks))
            # a fix that the output names must exist before
            start = START.format(column="")
            if command.column:
                work = work.replace("run", START.format(column=command.column) + "run")
            script += f"clear\nprint 'COMMAND'\n{command.before}{begin}{start}{work}"
            script += f"write_dump all custom frame.{ranks}.{k} id type x y z fx fy fz "
            script += "modify sort id format float %.17g\n"
        output = run_script(script, folder, models, ranks=ranks, time_limit=600)
        parts = re.split(r"^COMMAND$", output, flags=re.MULTILINE)[1:]
        known[ranks] = {
            name: Outcome(np.array(thermo_rows(part)), *read_frame(folder / f"frame.{ranks}.{k}"))
            for k, (name, part) in enumerate(zip(COMMANDS, parts, strict=True))
        }
        return known[ranks]

    return run


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_last_frame_is_the_closed_form(
    outcomes: Callable[[int], dict[str, Outcome]], name: str, ranks: int
) -> None:
    found = outcomes(ranks)[name]
    frame = found.frame
    want = closed_form(frame.species, frame.positions, frame.cell, layers=2)
    assert found.rows[-1, 1] == pytest.approx(want["energy"].sum(), rel=1e-9)
    # forces are sums of terms of some eV/A, also where they vanish in the sum
    np.testing.assert_allclose(found.forces, want["forces"], rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("ranks", [2, 3])
def test_as_on_one_rank(
    outcomes: Callable[[int], dict[str, Outcome]], name: str, ranks: int
) -> None:
    for column in COMMANDS[name].same:
        found, want = (outcomes(n)[name].rows[:, COLUMNS.index(column)] for n in (ranks, 1))
        assert found[-1] == pytest.approx(want[-1], rel=0, abs=1e-9 * np.abs(want).max()), column


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_commands_do_their_work(outcomes: Callable[[int], dict[str, Outcome]], ranks: int) -> None:
    found = outcomes(ranks)
    for name in ("minimize", "box/relax"):
        rows = found[name].rows
        assert rows[-1, 1] < rows[0, 1] - 1.0
    for name in ("box/relax", "npt"):
        volume = found[name].rows[:, 4]
        assert abs(volume[-1] / volume[0] - 1) > 1e-3
    assert len(found["deposit"].forces) == 64 + 4
    assert len(found["evaporate"].forces) == 64 - 2 * 4
    for name in ("balance shift", "balance rcb"):
        now, before = found[name].rows[:, 6:].T  # before the last time that atoms were shared out
        assert now.max() < 1.2 and (before[0] > 1.8 or ranks == 1)
    run, rerun = found["rerun"].rows[:5], found["rerun"].rows[5:]
    np.testing.assert_allclose(rerun[:, 1], run[:, 1], rtol=1e-12)


OVERLAY = {
    "tdn": ("", "* * tdn toy2.tdn.pth H O"),
    "coul/dsf": ("0.1 4.5", "* * coul/dsf"),
    "lj/cut": ("5.0", "* * lj/cut 0.01 2.0"),
    "dispersion/d3": ("bj pbe 9.0 6.0", "* * dispersion/d3 H O"),
    "zbl": ("1.0 2.0", "1 1 zbl 1 1", "2 2 zbl 8 8", "1 2 zbl 1 8"),
}
CHARGES = "set type 1 charge 0.41\nset type 2 charge -0.41\n"


def overlay(*names: str) -> str:
    """Commands of a hybrid style with these parts."""
    styles = " ".join(f"{name} {OVERLAY[name][0]}" for name in names)
    coefficients = [f"pair_coeff {line}\n" for name in names for line in OVERLAY[name][1:]]
    return f"pair_style hybrid/overlay {styles}\n" + "".join(coefficients)


def charged(structure: Structure, name: str) -> str:
    """Commands that read atoms and give them charges."""
    begin = setup(structure, name, style="none").replace("atomic", "hybrid atomic charge")
    return begin.replace(f"read_data {name}", f"read_data {name}.charged") + CHARGES


def write_charged(structure: Structure, path: Path) -> None:
    structure.write(path)
    head, atoms = path.read_text().split("Atoms # atomic\n\n")
    rows = "".join(f"{line} 0.0\n" for line in atoms.splitlines())
    Path(f"{path}.charged").write_text(f"{head}Atoms # hybrid\n\n{rows}")


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_overlay_is_the_sum_of_its_parts(lmp: LammpsRunner, tmp_path: Path, ranks: int) -> None:
    """Energy, pressure and forces of the network with electrostatics, dispersion and repulsion."""
    write_charged(CRYSTAL, tmp_path / "data")
    cases = [(name,) for name in OVERLAY] + [tuple(OVERLAY)]
    script = ""
    for k, names in enumerate(cases):
        script += "clear\n" + charged(CRYSTAL, "data") + overlay(*names)
        script += "compute virial all pressure NULL virial\n"
        script += "thermo_style custom step pe c_virial[*]\nthermo_modify format float %.17g\n"
        script += f"run 0\nwrite_dump all custom {k}.dump id type x y z fx fy fz "
        script += "modify sort id format float %.17g\n"
    rows = np.array(thermo_rows(lmp(script, ranks=ranks)))[:, 1:]
    forces = np.array([read_frame(tmp_path / f"{k}.dump")[1] for k in range(len(cases))])
    for values in (rows, forces):
        assert np.all(np.abs(values[:-1].reshape(len(OVERLAY), -1)).max(axis=1) > 1e-3)
        total = values[:-1].sum(axis=0)
        atol = 1e-9 * np.abs(values[:-1]).max()
        np.testing.assert_allclose(values[-1], total, rtol=0, atol=atol)
    want = closed_form(CRYSTAL.species, CRYSTAL.positions, CRYSTAL.cell, layers=2)
    assert rows[0, 0] == pytest.approx(want["energy"].sum(), rel=1e-9)
    np.testing.assert_allclose(forces[0], want["forces"], rtol=0, atol=1e-9)


@pytest.mark.parametrize("ranks", [(1, 2), (2, 3), (3, 1)], ids=str)
@pytest.mark.parametrize("style", ["alone", "hybrid"])
def test_restart_goes_on(
    lmp: LammpsRunner, tmp_path: Path, style: str, ranks: tuple[int, int]
) -> None:
    """Written on some ranks and read on others: the trajectory is that of a run without a stop."""
    write_charged(CRYSTAL, tmp_path / "data")
    pair = overlay("tdn", "coul/dsf", "zbl") if style == "hybrid" else "pair_style tdn\n"
    start = START.format(column="")
    if style == "hybrid":
        start = start.replace("pair_coeff * * toy2.tdn.pth H O\n", "")
    begin = charged(CRYSTAL, "data") + pair + start
    first = begin + DYNAMICS + "run 20\nwrite_restart state\nrun 20\n"
    whole = np.array(thermo_rows(lmp(first, ranks=ranks[0])))[-1, 1:5]
    again = "read_restart state\n" + pair + start + "fix 1 all nve\nrun 20\n"
    rows = np.array(thermo_rows(lmp(again, ranks=ranks[1])))
    assert list(rows[:, 0]) == [20, 30, 40]
    np.testing.assert_allclose(rows[-1, 1:5], whole, rtol=1e-9)
