"""The report on two calculators: physics of its numbers, and what is on the page."""

from __future__ import annotations

import json
import struct
from html.parser import HTMLParser
from pathlib import Path

import ase
import ase.io
import numpy as np
import pytest
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from pair_potential import argon, lennard_jones

from tdn.data.frames import Frame
from tdn.evaluation.cli import main
from tdn.evaluation.comparison import compare as compare_module
from tdn.evaluation.comparison import speed
from tdn.evaluation.comparison.compare import Subjects, compare
from tdn.evaluation.comparison.dynamics import (
    Case,
    compare_dynamics,
    mean_square_displacement,
    radial_distribution,
)
from tdn.evaluation.comparison.figures import curves_figure
from tdn.evaluation.comparison.held_out import (
    Predictions,
    calibration_section,
    error_section,
    errors_of,
)
from tdn.evaluation.comparison.report import write_report
from tdn.evaluation.comparison.section import Pair, Section, guarded
from tdn.evaluation.comparison.seen import seen_section
from tdn.evaluation.dynamics.plan import Trajectory


def test_kinds_are_sorted_by_words_and_temperatures():
    names = ["1500 K", "melt 900 K", "300 K", "reference's dynamics, 1500 K", "melt 1500 K"]
    atoms = bulk("Cu")
    frames = [
        Frame(atoms, n + 1, "x", 0.0, np.zeros((1, 3)), config_type=name)
        for n, name in enumerate(names)
    ]
    found = Predictions(frames, np.zeros(5), [np.zeros((1, 3))] * 5, None)
    rows = [row[0] for row in error_section(found).rows]
    assert rows == ["300 K", "1500 K", "melt 900 K", "melt 1500 K", names[3], "all"]


def test_a_failure_in_one_section_is_a_line_and_keeps_its_traceback():
    """Not hidden: the kind of error and its place in the report, a warning, all of it in JSON."""

    def broken() -> Section:
        return np.linalg.inv(np.zeros((2, 2)))

    with pytest.warns(UserWarning, match=r"the report lacks 'Phonons': LinAlgError in \w+.py"):
        section = guarded("Phonons", broken)
    assert section.text.startswith("Not available: LinAlgError in ") and "Singular" in section.text
    assert "\n" not in section.text
    assert "in broken" in section.values["traceback"]
    with pytest.raises(KeyboardInterrupt):
        guarded("Phonons", lambda: (_ for _ in ()).throw(KeyboardInterrupt))


def test_each_section_may_fail_and_the_others_stay(monkeypatch):
    """Dynamics, errors and phonons of a broken library; the crystal and the speed are there."""

    def broken(*_):
        raise IndexError("list index out of range")

    for name in ("compare_dynamics", "error_section", "phonon_frequencies", "seen_section"):
        monkeypatch.setattr(compare_module, name, broken)
    atoms = argon()
    frame = Frame(atoms, 1, "x", 0.0, np.zeros((4, 3)))
    subjects = Subjects(
        crystals={"Ar4": atoms},
        frames=[frame],
        cases=[Case("300 K", atoms, 300.0, 2.0, 4, 40)],
        atoms=atoms,
        training=[frame],
    )
    pair = Pair(lennard_jones(), lennard_jones(1.1), ("one", "other"))
    with pytest.warns(UserWarning, match="the report lacks"):
        sections = {s.title: s for s in compare(pair, subjects)}
    failed = {title for title, s in sections.items() if "missing" in s.values}
    assert failed == {
        "Held-out frames",
        "Phonons: Ar4",
        "Dynamics: 300 K",
        "What the student has seen",
    }
    assert sections["Elastic constants: Ar4"].values["C11"] and sections["Speed"].values["ratio"]


def test_radial_distribution_of_a_gas_and_of_a_crystal():
    rng = np.random.default_rng(0)
    gas = [ase.Atoms("Ar200", rng.uniform(0, 20, (200, 3)), cell=[20] * 3, pbc=True)] * 1
    gas += [ase.Atoms("Ar200", rng.uniform(0, 20, (200, 3)), cell=[20] * 3, pbc=True)] * 1
    r, g = radial_distribution(gas, "Ar", "Ar", bulk=True)
    outside = r > 3
    # pairs per bin beyond 3 angstrom number more than 500, so single bins scatter by 4 %
    assert np.abs(g[outside] - 1).max() < 0.2 and abs(g[outside].mean() - 1) < 0.02
    crystal = bulk("Cu", "fcc", a=3.6, cubic=True) * 5
    r, g = radial_distribution([crystal], "Cu", "Cu", bulk=True)
    edges = np.arange(len(r) + 1) * 0.1
    shells = 4 / 3 * np.pi * np.diff(edges**3)
    density = (len(crystal) - 1) / crystal.get_volume()
    first = (r < 3.0).nonzero()
    assert (g * shells * density)[first].sum() == pytest.approx(12.0)


def test_displacements_leave_out_the_motion_of_the_whole():
    start = bulk("Cu", "fcc", a=3.6, cubic=True)
    velocity = np.array([[1.0, 0, 0], [-1.0, 0, 0], [0, 2.0, 0], [0, -2.0, 0]])
    frames = []
    for time in range(4):
        atoms = start.copy()
        atoms.positions += velocity * time + [5.0 * time, 0, 0]
        frames.append(atoms)
    assert np.allclose(mean_square_displacement(frames), 2.5 * np.arange(4) ** 2)


def test_dynamics_of_equal_calculators_are_equal():
    atoms = bulk("Cu", "fcc", a=3.6, cubic=True) * 2
    pair = Pair(EMT(), EMT(), ("one", "other"))
    section, run = compare_dynamics(pair, Case("600 K", atoms, 600.0, 2.0, 20, 80, 5))
    assert section.values["g Cu-Cu"]["rms_difference"] == 0.0
    assert section.values["g Cu-Cu"]["rms_scatter"] > 0.0
    assert len(run.samples) == 16 and len(section.figures) == 1
    sample = run.samples[-1]
    work = sample.atoms.copy()
    work.calc = EMT()
    assert sample.energy == pytest.approx(work.get_potential_energy(), abs=1e-9)
    assert np.allclose(sample.forces, work.get_forces(), atol=1e-9)


def test_pairs_of_a_molecule_have_no_density():
    """Water: two O-H bonds of one oxygen, so 2 = the sum of pairs per atom and angstrom."""
    water = molecule("H2O")
    _, pairs = radial_distribution([water], "O", "H", bulk=False)
    assert (pairs * 0.1).sum() == pytest.approx(2.0)
    pair = Pair(EMT(), EMT(), ("one", "other"))
    section, _ = compare_dynamics(pair, Case("300 K", water, 300.0, 0.5, 4, 40, 5))
    assert [row[0] for row in section.rows] == [
        "pairs per atom and Å H-H, RMS",
        "pairs per atom and Å H-O, RMS",
    ]


@pytest.mark.parametrize(("panels", "columns", "rows"), [(3, 3, 1), (4, 4, 1), (7, 4, 2)])
def test_panels_of_a_figure_wrap(panels: int, columns: int, rows: int):
    curve = (np.arange(3.0), np.arange(3.0))
    names = [f"{k}" for k in range(panels)]
    png = curves_figure({n: {"one": curve} for n in names}, dict.fromkeys(names, ("x", "y")))
    width, height = struct.unpack(">II", png[16:24])  # of the header of a PNG file
    assert (width, height) == (round(3.7 * columns * 110), round(3.3 * rows * 110))


def predictions(scale: float) -> Predictions:
    """Errors that are normal with ``scale`` times the deviation."""
    rng = np.random.default_rng(3)
    frames, forces, spread = [], [], []
    for index in range(40):
        atoms = ase.Atoms("Ar50", rng.uniform(0, 20, (50, 3)))
        reference = rng.normal(size=(50, 3))
        deviation = np.exp(rng.normal(size=50)) * 0.05
        error = scale * deviation[:, None] * rng.normal(size=(50, 3)) / np.sqrt(3)
        frames.append(Frame(atoms, index, "x", 1.0, reference, config_type="a"))
        forces.append(reference + error)
        spread.append(deviation)
    return Predictions(frames, np.full(40, 1.5), forces, spread)


@pytest.mark.parametrize("scale", [0.5, 2.0])
def test_calibration_finds_the_factor(scale):
    values = calibration_section(predictions(scale)).values
    # 2000 atoms whose squares have heavy tails
    assert values["error_over_deviation"] == pytest.approx(scale, rel=0.1)
    assert values["rank_correlation"] > 0.7
    assert all(y == pytest.approx(scale * x, rel=0.25) for x, y in values["bins_eV_per_A"])


def test_errors_are_per_atom_and_component():
    found = predictions(1.0)
    values = errors_of(found, range(40))
    assert values["energy_rmse_meV_per_atom"] == pytest.approx(10.0)  # 0.5 eV on 50 atoms
    difference = np.array(found.forces) - np.array([f.forces for f in found.frames])
    assert values["forces_rmse_meV_per_A"] == pytest.approx(1e3 * np.sqrt((difference**2).mean()))


def test_what_was_not_seen_is_named():
    salt = bulk("NaCl", "rocksalt", a=5.6, cubic=True)
    frame = Frame(salt, 1, "x", 0.0, np.ones((8, 3)), config_type="300 K")
    section = seen_section([frame], [300.0, 900.0])
    assert section.values["shortest_A"]["Na-Cl"] == pytest.approx(2.8)
    assert section.values["largest_force_eV_per_A"] == pytest.approx(np.sqrt(3))
    for words in ("other than Na, Cl", "300 to 900 K", "no surfaces", "no vacancies", "no melts"):
        assert words in section.text


def test_training_frames_need_no_forces():
    salt = bulk("NaCl", "rocksalt", a=5.6, cubic=True)
    frames = [Frame(salt, 1, "x", 0.0), Frame(salt, 2, "x", 0.0, np.ones((8, 3)))]
    assert seen_section(frames).values["largest_force_eV_per_A"] == pytest.approx(np.sqrt(3))
    without = seen_section(frames[:1])
    assert "largest_force_eV_per_A" not in without.values
    assert without.values["shortest_A"]["Na-Cl"] == pytest.approx(2.8)
    alone = seen_section([Frame(ase.Atoms("Na"), 1, "x", 0.0)])
    molten = Frame(salt, 1, "x", 0.0, config_type="melt 900 K")
    assert "melts" not in seen_section([molten]).text
    section = seen_section([molten], solid=["s0_melt_900_K"])
    assert "melts (these runs stayed solid: s0_melt_900_K)" in section.text
    assert "single atoms" in alone.text and alone.rows == []


class Page(HTMLParser):
    """Headings, cells, and everything that a browser would fetch."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.tags: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        for name, value in attributes:
            if name in ("src", "href") and not value.startswith("#"):
                self.fetched.append(value)


def test_a_student_whose_dynamics_break_off_has_a_speed_in_ase(monkeypatch):
    def broken(plans, *_, **__):
        return [Trajectory(plan, broken="atoms 3 and 5 are 0.1 angstrom apart") for plan in plans]

    monkeypatch.setattr(speed, "run_in_lammps", broken)
    pair = Pair(lennard_jones(), lennard_jones(1.1), ("one", "other"))
    section = speed.speed_section(pair, argon(), Path("student.tdn.pth"), 1)
    assert "LAMMPS: the run broke off: atoms 3 and 5" in section.text
    assert "lammps_us_per_atom" not in section.values
    assert section.rows[-1] == ["ratio", f"{section.values['ratio']:.4g}"]


def test_the_page_needs_no_other_file_and_obeys_no_names(tmp_path):
    section = Section("<script>x</script>", "a & b", ["", "n"], [["row", "1"]], [b"png"])
    section.values = {"x": np.float64(1.5), "nan": float("nan"), "list": (1, 2)}
    write_report(tmp_path, "t", "s", [section])
    text = (tmp_path / "report.html").read_text()
    page = Page(text)
    assert "script" not in page.tags and "&lt;script&gt;" in text
    assert page.fetched == ["data:image/png;base64,cG5n"]
    assert "http" not in text
    values = json.loads((tmp_path / "report.json").read_text())
    assert values["sections"]["<script>x</script>"] == {"x": 1.5, "nan": None, "list": [1, 2]}


@pytest.mark.slow
def test_compare_any_two_calculators(workplace, capsys):
    """A calculator by its import path in a process of its own, against the same with a change."""
    frames = []
    for seed in range(3):
        atoms = bulk("Cu", "fcc", a=3.6, cubic=True)
        atoms.positions += 0.1 * np.random.default_rng(seed).normal(size=(4, 3))
        frames.append(atoms)
    ase.io.write("frames.xyz", frames)
    command = ["compare", "ase.calculators.emt:EMT", "cheap_teachers:Counting", "cu.cif", "-o", "c"]
    command += ["--frames", "frames.xyz", "--temperature", "300", "--steps", "40", "--threads", "1"]
    assert main(command) == 0
    out = capsys.readouterr().out
    assert "Equation of state: Cu4" in out and "report: c/report.html" in out
    values = json.loads((workplace / "c" / "report.json").read_text())["sections"]
    assert values["Held-out frames"]["frames"]["forces_rmse_meV_per_A"] == 0.0
    assert values["Elastic constants: Cu4"]["C11"]["difference_percent"] == 0.0
    assert values["Dynamics: 300 K"]["g Cu-Cu"]["rms_difference"] == 0.0
    assert values["Speed"]["ratio"] > 0
    page = Page((workplace / "c" / "report.html").read_text())
    assert page.fetched and all(link.startswith("data:image/png") for link in page.fetched)


@pytest.mark.parametrize(
    "arguments, message, code",
    [
        (["no_such_module:A", "ase.calculators.emt:EMT"], "cannot import no_such_module", 2),
        (["nothing.pt", "ase.calculators.emt:EMT"], "nothing.pt", 1),
        (["ase.calculators.emt:EMT"] * 2 + ["--temperature", "-3"], "expected positive", 2),
        (["ase.calculators.emt:EMT"] * 2 + ["--threads", "0"], "expected at least 1", 2),
    ],
)
def test_mistakes_are_one_line(workplace, capsys, arguments, message, code):
    command = ["compare", *arguments[:2], "cu.cif", *arguments[2:]]
    assert main(command) == code
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
