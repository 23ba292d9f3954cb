"""The pair style in the less common settings of LAMMPS, on one and several ranks."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from .conftest import LammpsRunner, Structure, setup, thermo_rows
from .test_closed_form import random_structure
from .toy import closed_form, write_toy

COEFF = "pair_coeff * * toy2.tdn.pth H O\n"
THERMO = """\
thermo_style custom step pe etotal press
thermo_modify format float %.17g
"""


def energy_of(structure: Structure) -> float:
    arguments = (structure.species, structure.positions, structure.cell)
    return closed_form(*arguments, layers=2)["energy"].sum()


def lattice(repeats: int = 3, constant: float = 2.0) -> Structure:
    """A slightly disturbed rock-salt lattice, near the toy's own lattice constant."""
    points = np.stack(np.meshgrid(*[np.arange(2 * repeats)] * 3, indexing="ij"), axis=-1)
    points = points.reshape(-1, 3)
    jitter = np.random.default_rng(1).normal(scale=0.03, size=points.shape)
    return Structure(
        points.sum(1) % 2, constant * (points + 0.5) + jitter, np.eye(3) * 2 * repeats * constant
    )


@pytest.mark.parametrize("ranks", [1, 2])
def test_respa(lmp: LammpsRunner, tmp_path: Path, ranks: int) -> None:
    """With the pair style on the inner of two levels, rRESPA is Verlet with the inner time step."""
    structure = lattice()
    structure.write(tmp_path / "data.start")
    start = setup(structure, "data.start") + COEFF + THERMO + "thermo 10\nfix 1 all nve\n"
    start += "velocity all create 300 5 loop geom\n"
    script = start + "timestep 0.0005\nrun 20\nclear\n" + start
    script += "timestep 0.001\nrun_style respa 2 2 pair 1\nrun 10\n"
    rows = thermo_rows(lmp(script, ranks=ranks))
    np.testing.assert_allclose(rows[-1][1:3], rows[2][1:3], rtol=1e-12)
    refused = lmp(
        start + "run_style respa 2 2 inner 1 4.0 5.0 outer 2\nrun 10\n", ranks=ranks, fails=True
    )
    assert "does not support rRESPA inner/middle/outer" in refused


def test_box_relax(lmp: LammpsRunner, tmp_path: Path) -> None:
    """The cell goes where there is no pressure, and the energy goes down on the way."""
    structure = lattice()
    structure.write(tmp_path / "data.start")
    script = setup(structure, "data.start") + COEFF + THERMO
    script += "fix 1 all box/relax iso 0 vmax 0.005\nmin_modify line quadratic\n"
    script += "minimize 0 1e-6 300 1000\n"
    rows = thermo_rows(lmp(script))
    assert rows[-1][1] < rows[0][1] - 1e-3
    assert abs(rows[0][3]) > 1e3
    assert abs(rows[-1][3]) < 10.0  # bar


def test_replicate(lmp: LammpsRunner, tmp_path: Path) -> None:
    """Copies have as many times the energy, also on ranks."""
    structure = random_structure(4, 3, np.diag([2.6, 3.1, 3.9]))
    structure.write(tmp_path / "data.start")
    script = setup(structure, "data.start") + COEFF + THERMO + "run 0\nreplicate 3 2 2\nrun 0\n"
    for ranks in (1, 2):
        one, many = thermo_rows(lmp(script, ranks=ranks))
        assert one[1] == pytest.approx(energy_of(structure), rel=1e-12)
        assert many[1] == pytest.approx(12 * one[1], rel=1e-12)
        assert many[3] == pytest.approx(one[3], rel=1e-9)


def test_large_ids(lmp: LammpsRunner, tmp_path: Path) -> None:
    """IDs up to the largest that LAMMPS allows."""
    structure = random_structure(3, 40, np.diag([12.0, 9.5, 10.0]))
    structure.ids = 2**31 - 2 - 52_000_017 * np.arange(40)
    structure.write(tmp_path / "data.start")
    script = setup(structure, "data.start").replace("read_data", "atom_modify map hash\nread_data")
    for ranks in (1, 2):
        ((_, energy, *_),) = thermo_rows(lmp(script + COEFF + THERMO + "run 0\n", ranks=ranks))
        assert energy == pytest.approx(energy_of(structure), rel=1e-12)


def test_general_triclinic(lmp: LammpsRunner, tmp_path: Path) -> None:
    """A cell whose vectors point anywhere; LAMMPS turns it and turns the forces back."""
    rng = np.random.default_rng(3)
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    turn *= np.sign(np.linalg.det(turn))
    plain = random_structure(6, 25, np.array([[7.0, 0, 0], [3.1, 6.5, 0], [-2.2, 2.9, 7.5]]))
    cell, positions = plain.cell @ turn, plain.positions @ turn
    lines = ["general", "", f"{len(positions)} atoms", "2 atom types"]
    for vector, name in zip(cell, ("avec", "bvec", "cvec"), strict=True):
        lines.append(" ".join(repr(float(x)) for x in vector) + f" {name}")
    lines += ["0 0 0 abc origin", "", "Masses", "", "1 1.008", "2 15.999", "", "Atoms", ""]
    for k, (s, r) in enumerate(zip(plain.species, positions, strict=True)):
        lines.append(f"{k + 1} {s + 1} " + " ".join(repr(float(x)) for x in r))
    (tmp_path / "data.general").write_text("\n".join(lines) + "\n")
    script = setup(plain, "data.general") + COEFF + THERMO
    script += "dump 1 all custom 1 out.dump id fx fy fz\n"
    script += "dump_modify 1 sort id format float %.17g triclinic/general yes\nrun 0\n"
    want = closed_form(plain.species, positions, cell, layers=2)
    for ranks in (1, 2):
        ((_, energy, *_),) = thermo_rows(lmp(script, ranks=ranks))
        assert energy == pytest.approx(want["energy"].sum(), rel=1e-12)
        forces = np.loadtxt(tmp_path / "out.dump", skiprows=9)[:, 1:]
        np.testing.assert_allclose(forces, want["forces"], rtol=0, atol=1e-9)


def test_shrink_wrapped_box(lmp: LammpsRunner, tmp_path: Path) -> None:
    """A hot cluster: the box and the ranks' domains follow the atoms; energy is conserved."""
    structure = random_structure(1, 9, None)
    structure.write(tmp_path / "data.start")
    script = setup(structure, "data.start").replace("f f f", "s s s") + COEFF
    script += "minimize 1e-6 1e-4 50 100\nvelocity all create 3000 5 loop geom mom yes\n"
    script += "fix 1 all nve\ntimestep 0.0002\nthermo 20\n"
    script += "thermo_style custom step pe etotal lx\nthermo_modify format float %.17g\nrun 200\n"
    rows = np.array(thermo_rows(lmp(script))[-11:])
    assert np.ptp(rows[:, 3]) > 0.1
    assert np.ptp(rows[:, 1]) > 0.2
    assert np.ptp(rows[:, 2]) < 2e-3
    # the minimum that is found depends on rounding, and with it the trajectory
    both = np.array(thermo_rows(lmp(script, ranks=2))[-11:])
    assert np.ptp(both[:, 1]) > 0.2
    assert np.ptp(both[:, 2]) < 2e-3


@pytest.mark.parametrize("ranks", [1, 2])
def test_atoms_leave(lmp: LammpsRunner, tmp_path: Path, ranks: int) -> None:
    """Through an open boundary and by evaporation; what is left has the energy of a new start."""
    structure = random_structure(5, 30, np.diag([10.0, 10.0, 10.0]))
    structure.cell = np.diag([10.0, 10.0, 14.0])
    structure.write(tmp_path / "data.start")
    begin = setup(structure, "data.start").replace("p p p", "p p f") + COEFF + THERMO
    script = begin + "thermo_modify lost ignore\nminimize 1e-6 1e-4 100 200\n"
    script += "velocity all create 4000 5 loop geom\nfix 1 all nve\ntimestep 0.0005\n"
    script += "region all block INF INF INF INF INF INF\nfix 2 all evaporate 8 1 all 49892\n"
    script += "run 80\nunfix 2\nwrite_data data.end\nrun 0\nclear\n"
    script += begin.replace("data.start", "data.end") + "run 0\n"
    output = lmp(script, ranks=ranks)
    rows = thermo_rows(output)
    assert rows[-1][1] == pytest.approx(rows[-2][1], rel=1e-9)
    left = int(re.findall(r"with (\d+) atoms", output)[-1])
    assert left <= 20


def test_partitions(lmp: LammpsRunner, tmp_path: Path) -> None:
    """Two simulations in one launch, one of them on two ranks."""
    structures = [random_structure(seed, 30, np.diag([9.0, 9.5, 10.0])) for seed in (3, 5)]
    for k, structure in enumerate(structures):
        structure.write(tmp_path / f"data.{k}")
    script = "variable k world 0 1\n" + setup(structures[0], "data.${k}") + COEFF
    script += "run 0\nvariable e equal pe\nprint '$(v_e:%.17g)' file energy.${k}\n"
    lmp(script, ranks=3, arguments=("-partition", "1", "2", "-plog", "none", "-pscreen", "none"))
    for k, structure in enumerate(structures):
        energy = float((tmp_path / f"energy.{k}").read_text())
        assert energy == pytest.approx(energy_of(structure), rel=1e-12)


def test_partitions_share_the_cores(lmp: LammpsRunner, tmp_path: Path) -> None:
    """Without OMP_NUM_THREADS each of many simulations takes no more than its share of threads."""
    random_structure(3, 30, np.diag([9.0, 9.5, 10.0])).write(tmp_path / "data.0")
    script = setup(random_structure(3, 30, np.diag([9.0, 9.5, 10.0])), "data.0") + COEFF
    lmp(script, ranks=2, arguments=("-partition", "1", "1", "-plog", "log"), OMP_NUM_THREADS="")
    share = max(1, len(os.sched_getaffinity(0)) // 2)
    for k in range(2):
        assert (
            f"running on cpu with {share} thread(s) per rank" in (tmp_path / f"log.{k}").read_text()
        )


def test_too_many_threads_are_noticed(lmp: LammpsRunner, tmp_path: Path) -> None:
    structure = random_structure(3, 30, np.diag([9.0, 9.5, 10.0]))
    structure.write(tmp_path / "data.0")
    script = setup(structure, "data.0") + COEFF
    assert "hinder each other" in lmp(script, ranks=2, OMP_NUM_THREADS="64")
    assert "hinder each other" not in lmp(script, ranks=2, OMP_NUM_THREADS="1")


def test_neb(lmp: LammpsRunner, tmp_path: Path) -> None:
    """An atom hops between two sites; three images in three partitions."""
    structure = lattice(repeats=2)
    hop = np.argmin(np.linalg.norm(structure.positions - 4.0, axis=1))
    keep = np.arange(len(structure.species)) != hop
    sites = structure.positions[keep]
    neighbour = np.argmin(np.linalg.norm(sites - structure.positions[hop], axis=1))
    start = Structure(structure.species[keep], sites, structure.cell)
    start.write(tmp_path / "data.start")
    target = structure.positions[hop]
    (tmp_path / "final").write_text(f"1\n{neighbour + 1} {target[0]} {target[1]} {target[2]}\n")
    script = setup(start, "data.start").replace("read_data", "atom_modify map yes\nread_data")
    script += COEFF + "fix 1 all neb 1.0\nmin_style quickmin\ntimestep 0.001\nthermo 1\n"
    script += "neb 0.0 1e-3 2 2 1 final final\n"
    arguments = ("-partition", "3x1", "-plog", "none", "-pscreen", "none")
    output = lmp(script, ranks=3, arguments=arguments)
    header, row = [line.split() for line in output.splitlines() if re.match(r"\s*(Step|0 )", line)][
        :2
    ]
    energies = [float(row[k]) for k, name in enumerate(header) if re.fullmatch(r"PE\d+", name)]
    middle, end = start.positions.copy(), start.positions.copy()
    end[neighbour] = target
    middle[neighbour] = 0.5 * (start.positions[neighbour] + target)
    for energy, positions in zip(energies, (start.positions, middle, end), strict=True):
        want = energy_of(Structure(start.species, positions, start.cell))
        assert energy == pytest.approx(want, rel=1e-7)  # eight digits are printed


def test_several_lammps_in_one_process(plugin: Path, models: Path, tmp_path: Path) -> None:
    """Two objects with models of their own, used in turns."""
    structure = random_structure(3, 30, np.diag([9.0, 9.5, 10.0]))
    structure.write(tmp_path / "data.0")
    inputs = {}
    for model in ("toy1", "toy2"):
        inputs[model] = (
            setup(structure, "data.0") + f"pair_coeff * * {models / model}.tdn.pth H O\n"
        )
        (tmp_path / f"in.{model}").write_text(inputs[model])
    code = """
import tdn_lammps
models = ["toy1", "toy2"]
runs = [tdn_lammps.lammps(cmdargs=["-screen", "none", "-log", "none"]) for _ in models]
for run, model in zip(runs, models):
    run.file("in." + model)
for _ in range(2):
    for run in runs:
        run.command("run 0")
        print(repr(run.get_thermo("pe")))
runs[0].close()
runs[1].command("run 0")
print(repr(runs[1].get_thermo("pe")))
"""
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert result.returncode == 0, result.stderr
    energies = [float(line) for line in result.stdout.split()]
    arguments = (structure.species, structure.positions, structure.cell)
    want = [closed_form(*arguments, layers=layers)["energy"].sum() for layers in (1, 2, 1, 2, 2)]
    np.testing.assert_allclose(energies, want, rtol=1e-12)


def test_changed_file_is_read_again(lmp: LammpsRunner, tmp_path: Path) -> None:
    """The model in memory is used again only while its file is the same."""
    structure = random_structure(3, 30, np.diag([9.0, 9.5, 10.0]))
    structure.write(tmp_path / "data.0")
    write_toy(tmp_path / "other.tdn.pth", layers=1)
    write_toy(tmp_path / "model.tdn.pth", layers=2)
    one = setup(structure, "data.0") + "pair_coeff * * model.tdn.pth H O\n" + THERMO + "run 0\n"
    script = one + "clear\n" + one + "shell mv other.tdn.pth model.tdn.pth\nclear\n" + one
    energies = [row[1] for row in thermo_rows(lmp(script))]
    arguments = (structure.species, structure.positions, structure.cell)
    want = [closed_form(*arguments, layers=layers)["energy"].sum() for layers in (2, 2, 1)]
    np.testing.assert_allclose(energies, want, rtol=1e-12)
