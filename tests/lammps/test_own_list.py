"""Pairs that the model finds by itself: those of LAMMPS's neighbor list, and the same results."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import forks
import numpy as np
import pytest
from shared_files import SharedFiles

from .conftest import LammpsRunner, Structure, only_error, run_command, setup, thermo_rows
from .test_closed_form import random_structure
from .test_matrix import CELLS
from .test_parallel import FIELDS, slab
from .test_special import script, water, write_data  # noqa: F401

NETWORK = "l1"
MODEL = "l1_1.tdn.pth"
FOUND = "TDN neighbor list: found by the model on cpu"

# compares with the list of LAMMPS, for the positions of atoms and images that this has
COMPARE = """
import ctypes
import os
import numpy as np
import torch
import tdn.ops
import tdn_lammps

lmp = tdn_lammps.lammps(cmdargs=["-screen", "none", "-log", "none"])
for name in NAMES:
    lmp.command("clear")
    lmp.file(f"in.{name}")
    lmp.command("run 0")
    centers, rows = lmp.extract_global("nlocal"), lmp.extract_global("nghost")
    rows += centers
    pairs = set()
    if centers:
        atoms = lmp.numpy.get_neighlist(lmp.find_pair_neighlist("tdn"))
        pairs = {(i, int(j)) for i, neighbors in atoms for j in neighbors}
    x = torch.zeros(rows, 3, dtype=torch.float64)
    if rows:
        x[:] = torch.from_numpy(np.array(lmp.numpy.extract_atom("x", nelem=rows, dim=3)))
    ptr, other, _ = torch.ops.tdn.find_pairs(x, centers, 4.0 + SKIN)
    center = torch.repeat_interleave(torch.arange(centers), ptr.diff())
    found = list(zip(center.tolist(), other.tolist()))
    assert len(found) == len(pairs) and set(found) == pairs, (name, len(found), len(pairs))
    with open(f"{name}.{os.environ['PMI_RANK']}", "w") as file:
        file.write(str(len(found)))
lmp.close()
lmp.finalize()
ctypes.CDLL(None).exit(0)  # MPI ends in what is to run at the end, which `forks` leaves out
"""


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_same_pairs(plugin: Path, models: Path, tmp_path: Path, ranks: int) -> None:
    """In all cells, with a skin; together the ranks have both directions of every pair."""
    from tdn_lammps.runtime import find_program

    skin = 0.7
    for name, structure in CELLS.items():
        structure.write(tmp_path / f"{name}.data")
        script = setup(structure, f"{name}.data", "tdn neighbors lammps")
        script += "pair_coeff * * toy1.tdn.pth H O\n"
        (tmp_path / f"in.{name}").write_text(script + f"neighbor {skin} bin\n")
    code = COMPARE.replace("NAMES", repr(list(CELLS))).replace("SKIN", repr(skin))
    (tmp_path / "compare.py").write_text(code)
    command = [find_program("mpiexec"), "-n", str(ranks), forks.python(), "compare.py"]
    run_command(command, tmp_path, LAMMPS_POTENTIALS=str(models))
    for name in CELLS:
        counts = [int((tmp_path / f"{name}.{rank}").read_text()) for rank in range(ranks)]
        assert sum(counts) > 0 and sum(counts) % 2 == 0


def cases() -> list[Structure]:
    return [*CELLS.values(), slab()]


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_same_results(measure: Callable, shared_files: SharedFiles, ranks: int) -> None:
    """Sums are in another order, and nothing else is."""
    shared_files.export(NETWORK)
    results = [
        measure(cases(), MODEL, style=f"tdn neighbors {neighbors}", ranks=ranks, before="newton on")
        for neighbors in ("lammps", "own")
    ]
    for want, found in zip(*results, strict=True):
        assert found.energy == pytest.approx(want.energy, rel=1e-13)
        for name in FIELDS:
            scale = np.abs(getattr(want, name)).max()
            np.testing.assert_allclose(
                getattr(found, name), getattr(want, name), rtol=0, atol=1e-12 * scale, err_msg=name
            )


DYNAMICS = """\
neighbor 0.2 bin
neigh_modify every 1 delay 0 check yes
velocity all create 2500 5 loop geom mom yes
fix 1 all nve/limit 0.02
timestep 0.0005
thermo 20
thermo_style custom step pe etotal press
thermo_modify format float %.17g
run 60
"""


@pytest.mark.parametrize("ranks", [1, 2])
def test_list_follows_the_atoms(
    lmp: LammpsRunner, shared_files: SharedFiles, tmp_path: Path, ranks: int
) -> None:
    """Through rebuilds as often as LAMMPS wants them, and through a second run."""
    shared_files.export(NETWORK)
    structure = random_structure(3, 60, np.diag([12.0, 9.5, 10.0]), distance=1.6)
    structure.write(tmp_path / "data")
    rows, builds = [], []
    for neighbors in ("lammps", "own"):
        start = (
            setup(structure, "data", f"tdn neighbors {neighbors}") + f"pair_coeff * * {MODEL} H O\n"
        )
        output = lmp(start + DYNAMICS + "run 20\n", ranks=ranks)
        rows.append(np.array(thermo_rows(output)))
        builds.append([x for x in output.splitlines() if x.startswith("Neighbor list builds")])
        assert output.count(FOUND) == (neighbors == "own")  # once for both runs
    assert builds[0] == builds[1] and int(builds[0][0].split()[-1]) > 3
    # differences of rounding grow with time
    np.testing.assert_allclose(rows[1][:, 1:], rows[0][:, 1:], rtol=1e-7)
    assert np.ptp(rows[1][:, 1]) > 0.1


# what a user may do to a system between runs and while it runs
MIXED = """\
thermo_style custom step atoms pe pxx pyy pzz pxy lx
thermo_modify format float %.17g
neigh_modify every 1 delay 0 check yes
group some id 3 7 9
velocity all create 900 5 loop geom mom yes
fix 1 all nve/limit 0.02
timestep 0.0005
thermo 5
run 10
change_box all triclinic
change_box all x scale 1.05 xy delta 0.7 remap
run 10
displace_atoms some move 0.05 0.05 0.03 units box
run 0
delete_atoms group some compress no
run 10
run 6 pre no
run 6 every 2 "velocity all scale 900"
neigh_modify every 1 delay 0 check no
run 5 pre no
fix 2 all box/relax iso 0.0
min_style cg
minimize 0 0 5 5
unfix 2
replicate 2 1 1
run 5
create_atoms 1 single 3.3 4.4 5.5
run 5
comm_modify cutoff 9.0
run 5
comm_modify cutoff 1.0
run 5
run_style respa 2 2 pair 2
run 4
delete_atoms group all
run 2
"""


def test_mixed_commands(lmp: LammpsRunner, shared_files: SharedFiles, tmp_path: Path) -> None:
    """One input that changes cell, atoms, halo and integrator, until no atom is left."""
    shared_files.export(NETWORK)
    structure = random_structure(3, 60, np.diag([12.0, 9.5, 10.0]), distance=1.6)
    structure.write(tmp_path / "data")
    rows = []
    for kind in ("lammps", "own"):
        start = setup(structure, "data", f"tdn neighbors {kind}")
        start = start.replace("read_data", "atom_modify map yes sort 3 2.0\nread_data")
        rows.append(thermo_rows(lmp(start + f"pair_coeff * * {MODEL} H O\n" + MIXED, ranks=2)))
    want, found = np.array(rows)
    assert len(want) > 30
    # rounding differs with the order of sums and grows along the runs
    assert np.all(np.abs(found - want) <= 1e-9 * np.abs(want).max(axis=0))


def test_bonds_are_no_reason(
    lmp: LammpsRunner,
    shared_files: SharedFiles,
    tmp_path: Path,
    water: tuple,  # noqa: F811
) -> None:
    """Bonded atoms are neighbors in either list."""
    shared_files.export(NETWORK)
    write_data(tmp_path / "data", water, bonded=True)
    rows = []
    for neighbors in ("lammps", "own"):
        style = f"pair_style tdn neighbors {neighbors}\npair_coeff * * {MODEL} H O\n"
        rows.append(thermo_rows(lmp(script("data", style=style))))
    np.testing.assert_allclose(rows[1], rows[0], rtol=1e-11)


@pytest.fixture
def box(shared_files: SharedFiles, tmp_path: Path) -> Structure:
    """Forty atoms in the file ``data``, beside the model."""
    shared_files.export(NETWORK)
    structure = random_structure(3, 40, np.diag([9.0, 9.5, 10.0]), distance=1.6)
    structure.write(tmp_path / "data")
    return structure


def test_own_list_is_the_default(lmp: LammpsRunner, box: Structure) -> None:
    """LAMMPS makes one list if it is asked to, and none otherwise."""
    coeff = f"pair_coeff * * {MODEL} H O\nrun 0\n"
    for style, lists, line in (
        ("tdn", 0, FOUND),
        ("tdn neighbors auto", 0, FOUND),
        ("tdn neighbors lammps", 1, "TDN neighbor list: that of LAMMPS\n"),
    ):
        output = lmp(setup(box, "data", style) + coeff)
        assert output.count("TDN neighbor list") == output.count(line) == 1
        assert output.count("pair tdn, perpetual") == lists


def needs() -> dict[str, tuple[str, str]]:
    """Inputs whose pairs LAMMPS chooses, and what is said of them."""
    coeff = f"pair_coeff * * {MODEL} H O\n"
    hybrid = "pair_style hybrid/overlay tdn neighbors LIST zero 4.0\n"
    hybrid += coeff.replace("* *", "* * tdn") + "pair_coeff * * zero\n"
    plain = "pair_style tdn neighbors LIST\n" + coeff
    gcmc = "fix m all gcmc 1 1 0 1 3 300 0 0 pressure 1 full_energy\n"
    return {
        "hybrid": (hybrid, "pair_style hybrid/overlay chooses the pairs of its styles"),
        "exclude": (
            plain + "neigh_modify exclude type 1 2\n",
            "neigh_modify exclude takes pairs out",
        ),
        "include": (
            "atom_modify first some\n" + plain + "neigh_modify include some\n",
            "neigh_modify include leaves atoms out",
        ),
        "gcmc": (
            plain.replace("neighbors", "e0 no neighbors") + gcmc,
            "fix m gcmc takes atoms out",
        ),
        "edges": (
            plain.replace(MODEL, "toy1.tdn.pth"),
            "this model is evaluated from edges",
        ),
    }


@pytest.mark.parametrize("name", needs())
def test_where_lammps_chooses(lmp: LammpsRunner, box: Structure, name: str) -> None:
    """The log says why the list is that of LAMMPS; one line where the other one is asked for."""
    commands, reason = needs()[name]
    start = setup(box, "data", "none").replace("pair_style none\n", "group some id 1:20\n")
    start = start.replace("read_data", "atom_modify map yes\nread_data")
    script = start + commands + "run 0\n"
    assert f"TDN neighbor list: that of LAMMPS, since {reason}" in lmp(
        script.replace("LIST", "auto")
    )
    output = lmp(script.replace("LIST", "own"), fails=True)
    wanted = f"Pair style tdn: neighbors own is not possible here: {reason}; use neighbors auto"
    assert wanted in only_error(output)


def test_exclusions_that_come_later(lmp: LammpsRunner, box: Structure) -> None:
    """Those that a fix makes when its turn comes, after the pair style's; here an input does."""
    script = setup(box, "data", "tdn neighbors own") + f"pair_coeff * * {MODEL} H O\n"
    script += "fix 1 all nve\ntimestep 1e-6\nneigh_modify every 1 delay 0 check no\n"
    script += "run 2\nneigh_modify exclude type 1 2\nrun 2 pre no\n"
    output = lmp(script, fails=True)
    line = only_error(output)
    assert "pairs are excluded since this run began" in line
    assert "use: pair_style tdn neighbors lammps" in line


def test_closest_atoms_are_named(
    lmp: LammpsRunner, shared_files: SharedFiles, tmp_path: Path
) -> None:
    """Where forces are not finite, from a list that the host does not have."""
    shared_files.export(NETWORK)
    structure = random_structure(3, 40, np.diag([9.0, 9.5, 10.0]))
    positions = structure.positions.copy()
    positions[7] = positions[3]
    replace(structure, positions=positions).write(tmp_path / "data")
    script = setup(structure, "data", "tdn neighbors own") + f"pair_coeff * * {MODEL} H O\nrun 0\n"
    output = lmp(script, fails=True)
    assert "the closest atoms are 4 and 8, 0 A apart" in output
