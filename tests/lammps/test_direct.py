"""Models whose forces are no gradient: only when the user says so, and never with a pressure."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import ase
import numpy as np
import pytest
from shared_files import SharedFiles

from tdn.inference.calculator import TDNCalculator

from .conftest import LammpsRunner, Structure, only_error, setup, thermo_rows
from .special_toys import direct_forces, write_direct
from .test_closed_form import TILTED, random_structure
from .toy import closed_form

STRUCTURES = [
    random_structure(3, 60, np.diag([12.0, 9.5, 10.0])),
    random_structure(6, 25, TILTED),
    random_structure(4, 3, np.diag([2.6, 3.1, 3.9])),
    random_structure(1, 9, None),
]
COEFF = "pair_coeff * * direct.tdn.pth H O\n"
HYBRID_COEFF = "pair_coeff * * tdn direct.tdn.pth H O\n"
WITHOUT_PRESSURE = """\
thermo_style custom step pe etotal
thermo_modify format float %.17g
"""


@pytest.fixture
def run(lmp: LammpsRunner, tmp_path: Path) -> Callable[..., str]:
    """Function that runs commands after each of some structures, with ``clear`` between."""
    write_direct(tmp_path / "direct.tdn.pth", layers=2)

    def run(
        structures: list[Structure],
        commands: str,
        style: str,
        *,
        before: str = "",
        coeff: str = COEFF,
        **options,
    ) -> str:
        script = ""
        for k, structure in enumerate(structures):
            structure.write(tmp_path / f"data.{k}")
            script += f"clear\n{before}\n" + setup(structure, f"data.{k}", style)
            script += coeff + commands.replace("NUMBER", str(k))
        return lmp(script, **options)

    return run


@pytest.mark.parametrize(("ranks", "newton"), [(1, "on"), (2, "on"), (2, "off")])
def test_energies_and_forces(
    run: Callable[..., str], tmp_path: Path, ranks: int, newton: str
) -> None:
    commands = WITHOUT_PRESSURE + (
        "dump 1 all custom 1 NUMBER.dump id fx fy fz\n"
        "dump_modify 1 sort id format float %.17g\nrun 0\nundump 1\n"
    )
    style = "tdn direct yes"
    output = run(STRUCTURES, commands, style, before=f"newton {newton}", ranks=ranks)
    assert output.count("WARNING: Pair style tdn") == len(STRUCTURES)
    assert "energy is not conserved, and pressure and virial are not available" in output
    for k, (structure, row) in enumerate(zip(STRUCTURES, thermo_rows(output), strict=True)):
        arguments = (structure.species, structure.positions, structure.cell)
        want = closed_form(*arguments, layers=2)["energy"].sum()
        assert row[1] == pytest.approx(want, rel=1e-12)
        forces = np.loadtxt(tmp_path / f"{k}.dump", skiprows=9)[:, 1:]
        # sums of some tens of terms of order 10 eV/A
        np.testing.assert_allclose(forces, direct_forces(*arguments), rtol=0, atol=1e-11)


def test_must_be_accepted(run: Callable[..., str]) -> None:
    output = run(STRUCTURES[:1], "run 0\n", "tdn", fails=True, ranks=2)
    line = only_error(output)
    for part in ("direct.tdn.pth", "not the gradient of its energy", "pair_style tdn direct yes"):
        assert part in line


def test_consent_can_be_taken_back(run: Callable[..., str]) -> None:
    again = "run 0\npair_style tdn direct yes\nrun 0\n"
    run(STRUCTURES[:1], again, "tdn direct yes")
    output = run(STRUCTURES[:1], again.replace(" direct yes", ""), "tdn direct yes", fails=True)
    assert "not the gradient of its energy" in only_error(output)


def test_keyword_does_no_harm_elsewhere(lmp: LammpsRunner, tmp_path: Path) -> None:
    STRUCTURES[0].write(tmp_path / "data.0")
    script = setup(STRUCTURES[0], "data.0", "tdn direct yes")
    assert "gradient" not in lmp(script + "pair_coeff * * toy1.tdn.pth H O\nrun 0\n")


@pytest.mark.parametrize(
    ("command", "named"),
    [
        ("compute mine all pressure NULL virial", "mine pressure"),
        ("compute mine all stress/atom NULL", "mine stress/atom"),
        ("compute mine all centroid/stress/atom NULL", "mine centroid/stress/atom"),
        ("fix 1 all npt temp 300 300 0.1 iso 0 0 1", "1_press pressure"),
        ("fix 1 all box/relax iso 0", "1_press pressure"),
    ],
)
def test_a_virial_is_an_error(run: Callable[..., str], command: str, named: str) -> None:
    output = run(STRUCTURES[:1], f"{command}\nrun 0\n", "tdn direct yes", fails=True)
    line = only_error(output)
    assert f"compute {named} needs a virial" in line


def test_pressure_in_thermo_output_is_no_number(run: Callable[..., str]) -> None:
    thermo = "thermo_style custom step pe press\nrun 0\n"
    (row,) = thermo_rows(run(STRUCTURES[:1], thermo, "tdn direct yes"))
    assert np.isfinite(row[1]) and np.isnan(row[2])


def test_dynamics_in_hybrid(run: Callable[..., str]) -> None:
    """Runs on two ranks, with another style beside it, as on one."""
    dynamics = WITHOUT_PRESSURE + (
        "pair_coeff * * zero\nvelocity all create 300 5 loop geom\nneighbor 0.5 bin\n"
        "fix 1 all nve\nthermo 10\nrun 20\n"
    )
    style = "hybrid/overlay zero 4.0 tdn direct yes"
    rows = [
        thermo_rows(run(STRUCTURES[:1], dynamics, style, coeff=HYBRID_COEFF, ranks=ranks))[-1]
        for ranks in (1, 2)
    ]
    assert rows[0][0] == 20
    np.testing.assert_allclose(rows[1], rows[0], rtol=1e-9)


@pytest.mark.parametrize(("ranks", "newton"), [(1, "on"), (2, "on"), (3, "off")])
def test_exported_network(
    run: Callable[..., str], shared_files: SharedFiles, tmp_path: Path, ranks: int, newton: str
) -> None:
    """The attention network with direct forces gives in LAMMPS what it gives in Python."""
    coeff = f"pair_coeff * * {shared_files.export('attention', forces='direct')} H O\n"
    commands = WITHOUT_PRESSURE + (
        "dump 1 all custom 1 NUMBER.dump id fx fy fz\n"
        "dump_modify 1 sort id format float %.17g\nrun 0\nundump 1\n"
    )
    options = {"before": f"newton {newton}", "coeff": coeff, "ranks": ranks}
    output = run(STRUCTURES, commands, "tdn direct yes", **options)
    calculator = TDNCalculator(shared_files.checkpoint("attention", forces="direct"), device="cpu")
    for k, (structure, row) in enumerate(zip(STRUCTURES, thermo_rows(output), strict=True)):
        atoms = ase.Atoms(
            np.array(["H", "O"])[structure.species],
            structure.positions,
            cell=structure.cell,
            pbc=structure.cell is not None,
            calculator=calculator,
        )
        assert row[1] == pytest.approx(atoms.get_potential_energy(), rel=1e-10)
        want = atoms.get_forces()
        forces = np.loadtxt(tmp_path / f"{k}.dump", skiprows=9)[:, 1:]
        np.testing.assert_allclose(forces, want, rtol=0, atol=1e-10 * np.abs(want).max())
