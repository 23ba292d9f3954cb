"""Committees: means like any other file, and the deviation of forces where it is asked for."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from itertools import product
from pathlib import Path

import ase
import numpy as np
import pytest
from shared_files import SharedFiles

from tdn.inference.calculator import TDNCalculator
from tdn_export import export_model

from .conftest import Structure, only_error, run_script, thermo_rows
from .test_closed_form import TILTED, random_structure

MEMBERS = [("l1", 1), ("default", 2), ("one_layer", 3)]  # of different depths
DIRECT_MEMBERS = [("attention", 1), ("attention", 2)]
COMMITTEE = "committee.tdn.pth"
DIRECT = "direct_committee.tdn.pth"
CELLS = {
    "box": random_structure(3, 40, np.diag([12.0, 9.5, 10.0])),
    "triclinic": random_structure(6, 25, TILTED),
    "below_cutoff": random_structure(4, 3, np.diag([2.6, 3.1, 3.9])),
    "molecule": random_structure(1, 9, None),
}
ASK = "fix deviation all pair 1 tdn force_deviation 1\n"


@pytest.fixture(scope="module")
def committee(plugin: Path, shared_files: SharedFiles) -> Path:
    """Folder with two committees, `COMMITTEE` and `DIRECT`, and the members of the first."""
    for name, seed in MEMBERS:
        shared_files.export(name, seed)
    members = [shared_files.checkpoint(name, seed) for name, seed in MEMBERS]
    shared_files.get(COMMITTEE, partial(export_model, members))

    direct = [
        shared_files.checkpoint(name, seed, forces="direct", num_layers=1)
        for name, seed in DIRECT_MEMBERS
    ]

    def make(path: Path) -> None:
        with pytest.warns(UserWarning, match="direct forces are no gradient"):
            export_model(direct, path, direct_forces=True)

    shared_files.get(DIRECT, make)
    return shared_files.folder


def member(k: int) -> str:
    """Name of the compiled file of one network of the first committee."""
    name, seed = MEMBERS[k]
    return f"{name}_{seed}.tdn.pth"


@pytest.fixture
def run(plugin: Path, committee: Path, tmp_path: Path) -> Callable[..., str]:
    """Function that runs a script where the structures are, as ``NAME.data``."""
    for name, structure in CELLS.items():
        structure.write(tmp_path / f"{name}.data")

    def run(script: str, **options) -> str:
        return run_script(script, tmp_path, committee, **options)

    return run


def setup(
    cell: str,
    model: str = COMMITTEE,
    *,
    newton: str = "on",
    comm: str = "auto",
    hybrid: bool = False,
    units: str = "metal",
) -> str:
    """Commands up to the style; in a hybrid one, half of the atoms' types do not belong to it."""
    boundary = "p p p" if CELLS[cell].cell is not None else "f f f"
    options = f"comm {comm} direct yes"
    coeff = f"pair_style tdn {options}\npair_coeff * * {model} H O"
    if hybrid:
        coeff = (
            f"pair_style hybrid tdn {options} zero 4.0\n"
            f"pair_coeff * * tdn {model} H NULL\npair_coeff * 2 zero"
        )
    return f"clear\nunits {units}\nnewton {newton}\nboundary {boundary}\n" + (
        f"read_data {cell}.data\n{coeff}\nneighbor 0.3 bin\n"
    )


def measure(name: str, extra: str = "") -> str:
    """Commands that dump energies and forces, and ``extra``, to ``name``."""
    return (
        "compute pe all pe/atom\nthermo_style custom step pe\n"
        f"dump out all custom 1 {name} id c_pe fx fy fz {extra}\n"
        "dump_modify out sort id format float %.17g\nrun 0\nundump out\n"
    )


def read(path: Path) -> np.ndarray:
    """[N, 4] energies and forces, or [N, 5] with deviations."""
    return np.loadtxt(path, skiprows=9, ndmin=2)[:, 1:]


def atoms_of(structure: Structure, members: slice | np.ndarray = slice(None)) -> ase.Atoms:
    symbols = np.array(["H", "O"])[structure.species[members]]
    periodic = structure.cell is not None
    return ase.Atoms(symbols, structure.positions[members], cell=structure.cell, pbc=periodic)


@cache
def expected(model: Path, cell: str, hydrogen_only: bool = False) -> np.ndarray:
    """What `read` should find of a structure, by the calculator of the same file."""
    species = CELLS[cell].species
    atoms = atoms_of(CELLS[cell], species == 0 if hydrogen_only else slice(None))
    atoms.calc = calculator(model)
    forces = atoms.get_forces()
    energies = atoms.get_potential_energies()
    return np.column_stack([energies, forces, atoms.calc.results["forces_std"]])


@cache
def calculator(model: Path) -> TDNCalculator:
    return TDNCalculator(model, device="cpu")


def test_means_of_the_single_files(run: Callable[..., str], tmp_path: Path) -> None:
    """Whether or not the deviation is asked for: both ways of evaluation give the means."""
    script = ""
    for cell in CELLS:
        for k in range(len(MEMBERS)):
            script += setup(cell, member(k)) + measure(f"{cell}.{k}")
        script += setup(cell) + measure(f"{cell}.mean")
        script += setup(cell) + ASK + measure(f"{cell}.asked")
    assert f"{COMMITTEE}: committee of 3, " in run(script)
    for cell in CELLS:
        mean = np.mean([read(tmp_path / f"{cell}.{k}") for k in range(len(MEMBERS))], axis=0)
        for name in ("mean", "asked"):
            # rounding of some hundred operations on numbers of some 100 eV and eV/angstrom
            np.testing.assert_allclose(
                read(tmp_path / f"{cell}.{name}"), mean, rtol=1e-12, atol=1e-10, err_msg=cell
            )


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_deviation_is_the_calculators(
    run: Callable[..., str], committee: Path, tmp_path: Path, ranks: int
) -> None:
    """Every cell, newton on and off, both ways of communication, some atoms left out or none.

    On several ranks each cell has newton on and off, one of them with some atoms left out.
    """
    cases = list(product(CELLS, ("on", "off"), ("fold", "exchange"), (False, True)))
    if ranks > 1:
        cases = [
            (cell, newton, "exchange", (k + k // 2) % 2 == 1)
            for k, (cell, newton) in enumerate(product(CELLS, ("on", "off")))
        ]
    script = ""
    for k, (cell, newton, comm, hybrid) in enumerate(cases):
        options = {"newton": newton, "comm": comm, "hybrid": hybrid}
        script += setup(cell, **options) + ASK + measure(f"dump.{k}", "f_deviation")
    run(script, ranks=ranks)
    for k, (cell, _, _, hybrid) in enumerate(cases):
        structure = CELLS[cell]
        found = read(tmp_path / f"dump.{k}")
        mine = structure.species == 0 if hybrid else np.full(len(structure.species), True)
        want = expected(committee / COMMITTEE, cell, hybrid)
        assert want[:, 4].min() > 1e-3  # eV/angstrom: networks that know nothing of each other
        scale = max(1.0, np.abs(want[:, 1:]).max())
        np.testing.assert_allclose(
            found[mine], want, rtol=1e-12, atol=1e-8 * scale, err_msg=str(cases[k])
        )
        assert not found[~mine].any()


@pytest.mark.parametrize("ranks", [1, 2])
def test_direct_forces(
    run: Callable[..., str], committee: Path, tmp_path: Path, ranks: int
) -> None:
    run(
        "".join(setup(cell, DIRECT) + ASK + measure(cell, "f_deviation") for cell in CELLS),
        ranks=ranks,
    )
    for cell in CELLS:
        want = expected(committee / DIRECT, cell)
        np.testing.assert_allclose(read(tmp_path / cell), want, rtol=1e-12, atol=1e-8)


def test_in_kcal_per_mol(run: Callable[..., str], tmp_path: Path) -> None:
    units = ("metal", "real")
    run("".join(setup("molecule", units=u) + ASK + measure(u, "f_deviation") for u in units))
    ratio = read(tmp_path / "real") / read(tmp_path / "metal")
    np.testing.assert_allclose(ratio, 23.060549, rtol=1e-9)  # the number of LAMMPS


DYNAMICS = (
    setup("triclinic")
    + """\
velocity all create 300 5 loop geom
fix nve all nve
timestep 0.0002
thermo 1
thermo_modify format float %.17g
"""
)
WORST = """\
compute worst all reduce max f_deviation
variable worst equal c_worst
"""


def test_asking_changes_no_trajectory(run: Callable[..., str]) -> None:
    """Steps with and without the deviation take turns, and atoms change ranks."""
    thermo = "thermo_style custom step pe ke\nrun 12\n"
    want = thermo_rows(run(DYNAMICS + thermo))
    for ranks in (1, 2):
        ask = "fix deviation all pair 3 tdn force_deviation 1\n"
        found = thermo_rows(run(DYNAMICS + ask + thermo, ranks=ranks))
        # differences in the last digits grow in a dozen steps, but not to what a wrong step gives
        np.testing.assert_allclose(found, want, rtol=1e-9)


@pytest.mark.parametrize("ranks", [1, 2])
def test_halt(run: Callable[..., str], ranks: int) -> None:
    thermo = ASK + WORST + "thermo_style custom step v_worst\n"
    free = np.array(thermo_rows(run(DYNAMICS + thermo + "run 20\n", ranks=ranks)))[:, 1]
    assert len(free) == 21
    first = next(k for k in range(5, 20) if free[k] > free[:k].max())  # it grows at some time
    limit = 0.5 * (free[:first].max() + free[first])
    halt = f"fix halt all halt 1 v_worst > {limit:.17g} error soft\n"
    output = run(DYNAMICS + thermo + halt + "run 20\n", ranks=ranks)
    assert [row[0] for row in thermo_rows(output)][-1] == first
    assert f"Fix halt condition for fix-id halt met on step {first}" in output


@pytest.mark.parametrize(("flag", "early"), [(0, False), (1, False), (1, True)])
def test_one_network_has_no_deviation(run: Callable[..., str], flag: int, early: bool) -> None:
    """A fix that is older than the model is found out in its first step."""
    ask = f"fix deviation all pair 1 tdn force_deviation {flag}\n"
    script = setup("molecule", member(0))
    script = script.replace("pair_coeff", ask + "pair_coeff") if early else script + ask
    output = run(script + "run 0\n", ranks=2, fails=True)
    line = only_error(output)
    for part in ("force_deviation needs a committee", f"{member(0)} holds one network"):
        assert part in line
    assert "tdn-export a.pt b.pt c.pt -o committee.tdn.pth" in line


def test_without_the_flag_there_is_nothing(run: Callable[..., str]) -> None:
    ask = "fix deviation all pair 1 tdn force_deviation 0\n"
    output = run(setup("molecule") + ask + "run 0\n", fails=True)
    assert "cannot extract" in output and "force_deviation" in output
