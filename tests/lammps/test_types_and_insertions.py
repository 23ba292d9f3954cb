"""Fixes that change types, insert and delete atoms: energies are those of the atoms that are there.

All runs of one number of ranks are one launch of LAMMPS. What they leave is evaluated again with
the closed form; ideal gases have exact numbers of atoms.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from .conftest import LammpsRunner, Structure, run_script, setup, thermo_rows
from .test_commands_on_ranks import read_frame
from .test_settings import lattice
from .toy import R_MAX, closed_form

CRYSTAL = lattice(repeats=2)  # 64 atoms in a cube of 8 angstrom
# fix sgcmc wants four cutoffs on each rank
BAR = Structure(
    np.concatenate([lattice(repeats=3).species] * 2),
    np.concatenate([lattice(repeats=3).positions + np.array([x, 0, 0]) for x in (0, 12)]),
    np.diag([24.0, 12.0, 12.0]),
)
STYLE = "pair_coeff * * toy2.tdn.pth H O\nneighbor 0.6 bin\n"
THERMO = "thermo 1\nthermo_style custom step pe {}\nthermo_modify format float %.17g\n"
# the list is built at the start of a run and not again: types change in between
STILL = "neigh_modify every 1000 delay 1000 check no\n"
FRAME = "write_dump all custom {}.{} id type x y z fx fy fz modify sort id format float %.17g\n"

BOX = 100.0  # angstrom
PRESSURE, TEMPERATURE = 1.0, 300.0  # bar, K
# P V / k T
IDEAL = PRESSURE * 1e5 * BOX**3 * 1e-30 / (1.380649e-23 * TEMPERATURE)
GAS = f"""\
units metal
atom_style {{style}}
atom_modify map yes
region all block 0 {BOX} 0 {BOX} 0 {BOX}
create_box 2 all extra/special/per/atom 2
create_atoms 1 single 50 50 50
mass 1 1.008
mass 2 15.999
pair_style {{pair}}
neighbor 1.0 bin
neigh_modify delay 0 every 1
compute_modify thermo_temp dynamic/dof yes
thermo_modify lost ignore
"""
ALONE = "tdn e0 no\npair_coeff * * short.tdn.pth H O"
SINGLE_DIMER = "0 single 50 50 50 mol pair 345"
DIMER = "dimer\n\n2 atoms\n\nCoords\n\n1 0 0 0\n2 1.4 0 0\n\nTypes\n\n1 1\n2 2\n"


def bound_energy() -> float:
    """Energy of the dimer relative to two isolated atoms, eV."""
    species, positions = np.array([0, 1]), np.array([[0.0, 0, 0], [1.4, 0, 0]])
    together = closed_form(species, positions, None, 2.5)["energy"].sum()
    apart = closed_form(species, positions * 10, None, 2.5)["energy"].sum()
    return float(together - apart)


def gcmc_of_atoms(pair: str) -> str:
    """Exchanges of single atoms with a reservoir."""
    return (
        GAS.format(style="atomic", pair=pair)
        + f"fix m all gcmc 1 20 0 1 3456 {TEMPERATURE} 0.0 0.0 pressure {PRESSURE} full_energy\n"
        + THERMO.format("atoms f_m[3] f_m[4] f_m[5] f_m[6]")
        + "run 30\n"
    )


def gcmc_of_molecules(pair: str) -> str:
    """Exchanges of dimers with a reservoir."""
    return (
        "molecule pair dimer.txt\n"
        + GAS.format(style="molecular", pair=pair).replace("1 single 50 50 50", SINGLE_DIMER)
        + f"fix m all gcmc 1 20 0 0 3456 {TEMPERATURE} 0.0 0.0 mol pair pressure {PRESSURE} "
        + f"full_energy intra_energy {0.5 * bound_energy()!r}\n"
        + THERMO.format("atoms f_m[3] f_m[4] f_m[5] f_m[6]")
        + "run 30\n"
    )


def runs(ranks: int) -> dict[str, str]:
    """Commands of all runs; fix sgcmc works with many-body styles on one rank only."""
    crystal = setup(CRYSTAL, "crystal.data") + "atom_modify map yes\n" + STYLE + STILL
    crystal = crystal.replace("read_data", "atom_modify map yes\nread_data", 1)
    crystal = crystal.replace("atom_modify map yes\npair_coeff", "pair_coeff")
    dump = f"dump d all custom 1 {{}}.{ranks}.* id type x y z fx fy fz\n"
    dump += "dump_modify d sort id format float %.17g\n"
    work = {
        "fix set": crystal
        + 'variable t atom "(id==1 && step>=2)*(3-type) + (id!=1 || step<2)*type"\n'
        + "fix s all set 2 0 group all type v_t\nfix n all nve\n"
        + THERMO.format("")
        + dump.format("fixset")
        + "run 3\n",
        "set": crystal
        + "fix n all nve\ntimestep 1e-9\n"
        + THERMO.format("")
        + "run 1\nset atom 1 type 2\nrun 1 pre no\n"
        + FRAME.format("set", ranks),
        "sgcmc": crystal.replace("crystal", "bar").replace("toy2", "short")
        + "fix m all sgcmc 1 0.3 1.0 0.0 randseed 324234\n"
        + THERMO.format("f_m[1] f_m[2]")
        + "run 3\n"
        + FRAME.format("sgcmc", ranks),
        "atom/swap": crystal.replace(STILL, "neigh_modify delay 0 every 1\n")
        + "fix m all atom/swap 1 30 4711 1.0 ke no types 1 2\n"
        + THERMO.format("f_m[1] f_m[2]")
        + "run 3\n"
        + FRAME.format("swap", ranks),
        "deposit": crystal.replace("p p p", "p p f").replace("crystal", "slab")
        + "region top block 0 8 0 8 10 12\nfix n all nve\ntimestep 0.0005\n"
        + "fix m all deposit 3 1 2 77 region top near 1.0\n"
        + THERMO.format("atoms")
        + "run 8\n"
        + FRAME.format("deposit", ranks),
        "widom": GAS.format(style="atomic", pair=ALONE)
        + f"fix m all widom 1 20 1 29494 {TEMPERATURE}\n"
        + THERMO.format("f_m[1]")
        + "run 3\n",
        "gcmc": gcmc_of_atoms(ALONE),
        "gcmc, control": gcmc_of_atoms("lj/cut 2.5\npair_coeff * * 0.0 1.0"),
        "gcmc of molecules": gcmc_of_molecules(ALONE),
        # the same energy of a molecule, and none between molecules
        "gcmc of molecules, control": gcmc_of_molecules(
            f"lj/cut 2.5\npair_coeff * * {-bound_energy()!r} {1.4 / 2 ** (1 / 6)!r}"
        ),
    }
    if ranks > 1:
        del work["sgcmc"]
    return work


@pytest.fixture(scope="module")
def outcomes(
    plugin: Path, models: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[int], tuple[Path, dict[str, np.ndarray]]]:
    """Function from the number of ranks to the folder of a launch and the numbers of its runs."""
    folder = tmp_path_factory.mktemp("types")
    CRYSTAL.write(folder / "crystal.data")
    BAR.write(folder / "bar.data")
    replace(CRYSTAL, cell=np.diag([8.0, 8.0, 24.0])).write(folder / "slab.data")
    (folder / "dimer.txt").write_text(DIMER)
    known: dict[int, dict[str, np.ndarray]] = {}

    def run(ranks: int) -> tuple[Path, dict[str, np.ndarray]]:
        if ranks not in known:
            work = runs(ranks)
            script = "".join(f"clear\nprint 'NEXT'\n{commands}" for commands in work.values())
            output = run_script(script, folder, models, ranks=ranks, time_limit=600)
            parts = re.split(r"^NEXT$", output, flags=re.MULTILINE)[1:]
            rows = [np.array(thermo_rows(part)) for part in parts]
            known[ranks] = dict(zip(work, rows, strict=True))
        return folder, known[ranks]

    return run


def assert_fresh(
    frame: Path,
    energy: float | None = None,
    species: np.ndarray | None = None,
    r_max: float = R_MAX,
    layers: int = 2,
) -> Structure:
    """Energy and forces of a frame are those of its atoms and types, or of other types."""
    structure, forces = read_frame(frame)
    types = structure.species if species is None else species
    wanted = closed_form(types, structure.positions, structure.cell, r_max, layers)
    if energy is not None:
        assert energy == pytest.approx(wanted["energy"].sum(), abs=1e-9)
    np.testing.assert_allclose(forces, wanted["forces"], rtol=0, atol=1e-9)
    return structure


@pytest.mark.parametrize("ranks", [1, 2])
class TestTypes:
    """Types that change between builds of the neighbor list."""

    def test_fix_set(self, outcomes, ranks):
        folder, found = outcomes(ranks)
        species, first = CRYSTAL.species, []
        for step, energy in found["fix set"][:, :2]:
            # the fix works at the end of a step: the next one sees what it has done
            species = assert_fresh(folder / f"fixset.{ranks}.{int(step)}", energy, species).species
            first.append(species[0])
        assert first == [0, 0, 1, 1]

    def test_set_between_runs(self, outcomes, ranks):
        folder, found = outcomes(ranks)
        before, after = found["set"][1, 1], found["set"][-1, 1]
        assert assert_fresh(folder / f"set.{ranks}", after).species[0] == 1
        assert abs(after - before) > 0.1

    def test_sgcmc(self, outcomes, ranks):
        if ranks > 1:
            pytest.skip("LAMMPS runs fix sgcmc with many-body styles on one rank only")
        structure, _ = read_frame(outcomes(ranks)[0] / f"sgcmc.{ranks}")
        flipped = structure.species != BAR.species
        # near 0 K what lowers the energy is accepted: from H to O, which has the lower E0
        assert np.count_nonzero(flipped) > 10 and np.all(structure.species[flipped] == 1)

    def test_swap(self, outcomes, ranks):
        folder, found = outcomes(ranks)
        # (the energy that LAMMPS prints is that of the last swap that it has tried)
        structure = assert_fresh(folder / f"swap.{ranks}")
        attempts, accepted = found["atom/swap"][-1, 2:]
        assert 0 < accepted < attempts
        assert structure.species.sum() == CRYSTAL.species.sum()


@pytest.mark.parametrize("ranks", [1, 2])
class TestInsertions:
    """Atoms that come and go."""

    def test_deposit(self, outcomes, ranks):
        folder, found = outcomes(ranks)
        atoms = found["deposit"][:, 2]
        assert atoms[0] == 64 and atoms[-1] == 67
        structure, forces = read_frame(folder / f"deposit.{ranks}")
        cell = np.diag([8.0, 8.0, 1e3])  # no images along z
        wanted = closed_form(structure.species, structure.positions, cell, layers=2)
        assert found["deposit"][-1, 1] == pytest.approx(wanted["energy"].sum(), abs=1e-9)
        np.testing.assert_allclose(forces, wanted["forces"], rtol=0, atol=1e-9)

    def test_widom_of_an_ideal_gas(self, outcomes, ranks):
        """No insertion comes near the one atom in a large box: the excess is exactly zero."""
        found = outcomes(ranks)[1]["widom"]
        assert np.all(found[:, 2] == 0.0)

    @pytest.mark.parametrize("name", ["gcmc", "gcmc of molecules"])
    def test_gcmc_of_an_ideal_gas(self, outcomes, ranks, name):
        """Every decision is that of a pairwise style with the same energies."""
        found = outcomes(ranks)[1]
        np.testing.assert_array_equal(found[name][:, 2:], found[f"{name}, control"][:, 2:])
        np.testing.assert_allclose(found[name][:, 1], found[f"{name}, control"][:, 1], atol=1e-10)

    def test_number_of_atoms_of_an_ideal_gas(self, outcomes, ranks):
        """P V / k T atoms."""
        number = outcomes(ranks)[1]["gcmc"][10:, 2]
        # a Poisson distribution: the mean is surer than a single sample
        assert abs(number.mean() - IDEAL) < 2 * np.sqrt(IDEAL)


def test_excluded_atoms_count_nothing(lmp: LammpsRunner, tmp_path: Path) -> None:
    """Without E0 an atom that is excluded from the list is as good as one that is not there."""
    CRYSTAL.write(tmp_path / "crystal.data")
    script = setup(CRYSTAL, "crystal.data", "tdn e0 no") + STYLE + THERMO.format("")
    script += "group gone id 1 2\nneigh_modify exclude group gone all\nrun 0\n"
    script += "neigh_modify exclude none\ndelete_atoms group gone\nrun 0\n"
    output = lmp(script)
    excluded, deleted = (row[1] for row in thermo_rows(output))
    assert excluded == pytest.approx(deleted, abs=1e-10)
    assert "energies relative to isolated atoms" in output
    rest = closed_form(CRYSTAL.species[2:], CRYSTAL.positions[2:], CRYSTAL.cell, layers=2)
    alone = [closed_form(np.array([s]), np.zeros((1, 3)))["energy"][0] for s in (0, 1)]
    relative = rest["energy"].sum() - np.array(alone)[CRYSTAL.species[2:]].sum()
    assert deleted == pytest.approx(relative, abs=1e-9)


@pytest.mark.parametrize(
    "fix", ["gcmc 1 1 0 1 34 300.0 0.0 0.0 full_energy", "widom 1 1 1 34 300.0"]
)
def test_insertions_need_energies_without_e0(lmp: LammpsRunner, fix: str) -> None:
    script = GAS.format(style="atomic", pair="tdn\npair_coeff * * short.tdn.pth H O")
    output = lmp(script + f"fix m all {fix}\nrun 1\n", fails=True)
    assert re.search(r"ERROR: .*fix m (gcmc|widom) .*pair_style tdn e0 no", output)


COINCIDENT = """\
clear
units metal
region b block 0 10 0 10 0 10
create_box 2 b
create_atoms 2 single 1 1 1
create_atoms 1 single 1 1 1
create_atoms 1 single 5 5 5
mass * 1.0
pair_style tdn {check}
pair_coeff * * toy1.tdn.pth H O
thermo_modify lost ignore
run 0
"""


def test_results_that_are_not_finite_end_the_run(lmp: LammpsRunner) -> None:
    """Coincident atoms are named, with their distance; unless checks are off."""
    output = lmp(COINCIDENT.format(check="check no") + COINCIDENT.format(check=""), fails=True)
    assert output.count("Loop time") == 1  # with check no
    assert re.search(r"ERROR.*not finite; the closest atoms are (1 and 2|2 and 1), 0 A", output)


@pytest.mark.parametrize("change", ["atom 1 type 2", "atom 2 type 1"])
def test_types_that_join_or_leave_the_style_end_the_run(
    lmp: LammpsRunner, tmp_path: Path, change: str
) -> None:
    """The neighbor list knows nothing of an atom that was not of this style when it was built."""
    CRYSTAL.write(tmp_path / "crystal.data")
    script = setup(CRYSTAL, "crystal.data", "hybrid/overlay tdn zero 4.0")
    script += "pair_coeff * * tdn toy1.tdn.pth H NULL\npair_coeff * * zero\n" + STILL
    output = lmp(script + f"run 1\nset {change}\nrun 1 pre no\n", fails=True)
    assert re.search("ERROR.*maps to NULL", output)


def test_masses_and_labels_of_other_elements(lmp: LammpsRunner, tmp_path: Path) -> None:
    CRYSTAL.write(tmp_path / "data.1")
    replace(CRYSTAL, masses=(2.014, 12.97)).write(tmp_path / "data.2")  # isotope, moved mass
    script = setup(CRYSTAL, "data.1") + "pair_coeff * * toy1.tdn.pth O H\nrun 0\nclear\n"
    script += setup(CRYSTAL, "data.2") + "pair_coeff * * toy1.tdn.pth H O\nrun 0\nclear\n"
    script += setup(CRYSTAL, "data.2").replace("pair_style", "labelmap atom 1 O 2 H\npair_style")
    script += "pair_coeff * * toy1.tdn.pth H O\nrun 0\n"
    wrong, right, labels = re.split(r"^Loop time.*$", lmp(script), flags=re.MULTILINE)[:3]
    assert "atom type 1 is O in pair_coeff and has mass 1.008 (the mass of H)" in wrong
    assert "atom type 2 is H in pair_coeff and has mass 15.999 (the mass of O)" in wrong
    assert "is the order of the elements right" not in right
    assert "atom type 1 has the label O and is H in pair_coeff" in labels
