"""Planned runs: inputs for LAMMPS, what is read back, the same in ASE."""

from __future__ import annotations

import numpy as np
import pytest
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from structures import TRAINED_MODEL, water_cluster

from tdn.config.distillation import RoundsConfig
from tdn.evaluation.dynamics import lammps
from tdn.evaluation.dynamics.in_ase import run_in_ase
from tdn.evaluation.dynamics.lammps import input_script, read_run, run_in_lammps
from tdn.evaluation.dynamics.plan import Plan, Segment, sensible_timestep
from tdn.system.errors import TDNError
from tdn.training.distillation.candidates import Candidate
from tdn.training.distillation.exploration import MAX_RUNS, plan_exploration
from tdn_export import export_model

COPPER = bulk("Cu", "fcc", a=3.6, cubic=True) * 2


def plan(*segments: Segment, **values) -> Plan:
    segments = segments or (Segment("300 K", 300.0, 300.0, 20),)
    return Plan(
        "run", values.pop("atoms", COPPER), segments, values.pop("timestep", 2.0), 5, **values
    )


def frame(step: int, atoms, deviations) -> str:
    """A frame as LAMMPS writes it."""
    low_high = "\n".join(f"0.0 {length}" for length in atoms.cell.lengths())
    lines = [
        f"ITEM: TIMESTEP\n{step}\nITEM: NUMBER OF ATOMS\n{len(atoms)}",
        f"ITEM: BOX BOUNDS pp pp pp\n{low_high}\nITEM: ATOMS id element x y z f_deviation",
    ]
    for index, (position, value) in enumerate(zip(atoms.positions, deviations, strict=True)):
        lines.append(f"{index + 1} Cu {position[0]} {position[1]} {position[2]} {value}")
    return "\n".join(lines) + "\n"


def test_frames_of_lammps_are_read_with_their_deviations(tmp_path):
    moved = COPPER.copy()
    moved.positions += 0.25
    spread = np.linspace(0.0, 0.31, 32)
    text = frame(0, COPPER, spread) + frame(5, moved, 2 * spread)
    (tmp_path / "0.dump").write_text(text + frame(10, COPPER, spread)[:-90])  # it was killed here
    (tmp_path / "log.lammps").write_text(
        "Step Temp\n0 300\nLoop time of 2.5 on 1 procs for 20 steps with 32 atoms\n"
        "ERROR: Fix halt condition for fix-id stop met on step 10 with value 3.1 (fix_halt.cpp:1)\n"
    )
    run = read_run(plan(), tmp_path, code=1)
    assert [sample.deviation for sample in run.samples] == pytest.approx([0.31, 0.62])
    assert np.allclose(run.samples[1].atoms.positions, moved.positions)
    assert np.allclose(run.samples[1].atoms.cell, COPPER.cell)
    assert "Fix halt condition" in run.broken
    assert run.seconds_per_atom_step == pytest.approx(2.5 / (20 * 32))


def test_a_run_without_a_first_step_is_an_error(tmp_path):
    (tmp_path / "exit_code").write_text("1")
    (tmp_path / "log.lammps").write_text("ERROR: Unrecognized pair style 'tdn' (force.cpp:1)\n")
    with pytest.raises(TDNError, match="does not know pair_style tdn; for the reason run: tdn-lam"):
        read_run(plan(), tmp_path, code=1)
    assert not (tmp_path / "exit_code").exists()  # so that it is tried again


@pytest.mark.lammps
def test_a_run_that_has_ended_is_not_repeated(tmp_path, monkeypatch):
    model = tmp_path / "model.tdn.pth"
    export_model(TRAINED_MODEL, model)
    water = water_cluster()
    first = plan(atoms=water, timestep=0.25)
    (one,) = run_in_lammps([first], model, tmp_path, committee=False)
    assert [len(s.atoms) for s in one.samples] == [len(water)] * 5 and one.broken is None
    monkeypatch.setattr(lammps, "run_programs", lambda programs, *_: [1 / 0 for _ in programs])
    (same,) = run_in_lammps([first], model, tmp_path, committee=False)
    assert np.array_equal(same.samples[-1].atoms.positions, one.samples[-1].atoms.positions)
    with pytest.raises(ZeroDivisionError):  # another input is another run
        run_in_lammps([plan(atoms=water, timestep=0.25, seed=2)], model, tmp_path, committee=False)


def test_the_input_says_what_the_plan_says():
    segments = (Segment(None, 2000.0, 2000.0, 30), Segment("quench", 1500.0, 300.0, 40))
    text = input_script(plan(*segments, pressure=0.5, limit=2.0), "p p p", "m.tdn.pth", True)
    assert "fix             move all nph iso 5000 5000 0.5" in text
    assert "fix             bath all langevin 1500 300 0.1 2" in text
    assert "fix             stop all halt 5 v_worst > 2 error hard" in text
    assert text.count("\nrun ") == 2 and text.count("\ndump ") == 1
    text = input_script(plan(), "p p p", "m.tdn.pth", False)
    assert "all nve" in text and "halt" not in text and "deviation" not in text


@pytest.mark.parametrize("name, step", [("H2O", 0.5), ("LiF", 1.0), ("CO2", 1.0), ("NaCl", 2.0)])
def test_time_steps_follow_the_lightest_atom(name, step):
    assert sensible_timestep(molecule(name)) == step


@pytest.mark.slow
def test_a_barostat_finds_the_volume_and_nothing_else_changes_it():
    squeezed = COPPER.copy()
    squeezed.set_cell(0.97 * COPPER.cell, scale_atoms=True)
    segments = (Segment("300 K", 300.0, 300.0, 200),)
    free = run_in_ase(plan(*segments, atoms=squeezed, pressure=0.0), EMT()).samples[-1].atoms
    fixed = run_in_ase(plan(*segments, atoms=squeezed), EMT()).samples[-1].atoms
    assert fixed.get_volume() == pytest.approx(squeezed.get_volume(), rel=1e-12)
    assert free.get_volume() > 1.02 * squeezed.get_volume()
    assert np.allclose(free.cell.angles(), 90)


class Uncertain(EMT):
    """A committee that disagrees more and more."""

    calls = 0

    def calculate(self, *arguments, **keys):
        super().calculate(*arguments, **keys)
        self.calls += 1
        self.results["forces_std"] = np.full(len(self.atoms), 0.01 * self.calls)


def test_a_run_ends_where_the_committee_disagrees():
    run = run_in_ase(plan(Segment("300 K", 300.0, 300.0, 100), limit=0.2), Uncertain())
    assert run.broken.startswith("the deviation is 0.2")
    assert 0 < len(run.samples) < 5 and max(s.deviation for s in run.samples) <= 0.2


def test_runs_of_a_round():
    rounds = RoundsConfig(temperatures=(300.0, 900.0), melt=2000.0, pressures=(0.0, 1.0))
    seeds = [Candidate(COPPER, "structure"), Candidate(COPPER, "vacancy")]
    plans = plan_exploration([COPPER, COPPER], seeds, rounds, 0, 0.5, 0)
    names = [p.name for p in plans]
    assert names == [
        "s0_T300",
        "s0_T900",
        "s0_melt",
        "s1_T300",
        "s1_T900",
        "s1_melt",
        "defect_T300",
    ]
    assert [p.pressure for p in plans] == [0.0, 1.0, 0.0, 1.0, 0.0, 1.0, None]
    assert [s.kind for s in plans[2].segments] == ["melting", "melt 900 K", "quench"]
    assert len({p.seed for p in plans}) == len(plans) and plans[0].limit == 1.0
    later = plan_exploration([COPPER, COPPER], seeds, rounds, 1, 0.5, 0)
    assert not {p.seed for p in plans} & {p.seed for p in later}
    assert later[0].pressure == 1.0
    many = plan_exploration([COPPER] * 20, seeds, rounds, 0, 0.5, 0)
    assert len(many) == MAX_RUNS


def test_runs_grow_with_the_rounds():
    rounds = RoundsConfig(temperatures=(300.0,), md_steps=300)
    lengths = [plan_exploration([COPPER], [], rounds, n, 0.5, 0)[0].steps for n in range(5)]
    assert lengths == [100, 200, 300, 300, 300]
    assert plan_exploration([COPPER], [], rounds, 4, 0.5, 0, 70)[0].steps == 70


def test_molecules_feel_no_pressure():
    water = molecule("H2O")
    rounds = RoundsConfig(pressures=(0.0,))
    plans = plan_exploration([water], [], rounds, 0, None, 0)
    assert all(p.pressure is None and p.limit is None and p.timestep == 0.5 for p in plans)
