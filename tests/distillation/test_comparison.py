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
from ase.calculators.lj import LennardJones

from tdn.data.frames import Frame
from tdn.evaluation.cli import main
from tdn.evaluation.comparison import compare as compare_module
from tdn.evaluation.comparison import crystal as crystal_module
from tdn.evaluation.comparison import speed, vacancy
from tdn.evaluation.comparison.cli import crystals_among
from tdn.evaluation.comparison.compare import Subjects, compare
from tdn.evaluation.comparison.crystal import (
    elastic_constants,
    elastic_matrix,
    equation_of_state,
    relaxed,
    relaxed_by_both,
)
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
from tdn.evaluation.comparison.phonons import frequencies, phonon_frequencies
from tdn.evaluation.comparison.report import write_report
from tdn.evaluation.comparison.section import Pair, Section, guarded
from tdn.evaluation.comparison.seen import seen_section
from tdn.evaluation.comparison.vacancy import formula_unit, vacancy_energy
from tdn.evaluation.dynamics.plan import Trajectory
from tdn.system.errors import TDNError

# of argon-like matter; the cutoff lies in a gap between shells of neighbors, so that strains of
# some percent do not change who interacts
SIGMA, EPSILON = 3.4, 0.0104


def lennard_jones(scale: float = 1.0) -> LennardJones:
    return LennardJones(sigma=SIGMA, epsilon=scale * EPSILON, rc=2.05 * SIGMA, smooth=False)


def argon() -> ase.Atoms:
    return bulk("Ar", "fcc", a=1.56 * SIGMA, cubic=True)


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


def test_elastic_constants_of_a_pair_potential():
    """Without stress C12 = C44 (Cauchy), and (C11 + 2 C12) / 3 is the bulk modulus."""
    pair = Pair(lennard_jones(), lennard_jones(1.1), ("one", "other"))
    crystal = relaxed_by_both(pair, argon())
    constants = elastic_constants(pair, argon(), crystal).values
    modulus = equation_of_state(pair, crystal).values["bulk modulus"]
    for who in ("reference", "student"):
        c11, c12, c44 = (constants[name][who] for name in ("C11", "C12", "C44"))
        # C12 - C44 is twice the pressure that relaxing leaves: 1e-3 eV per 37 angstrom^3 and atom
        assert c12 == pytest.approx(c44, abs=2 * 1e-3 / 37 * 160.2)
        # the fit of Birch and Murnaghan over 12 % of volume is good to a percent or two
        assert modulus[who] == pytest.approx((c11 + 2 * c12) / 3, rel=2e-2)
    # everything is proportional to epsilon
    for name in ("C11", "C12", "C44"):
        assert constants[name]["difference_percent"] == pytest.approx(10.0, abs=0.05)
    assert modulus["difference_percent"] == pytest.approx(10.0, abs=0.05)


def test_the_lattice_constant_is_that_of_the_smallest_energy():
    pair = Pair(EMT(), EMT(), ("one", "other"))
    crystal = relaxed_by_both(pair, bulk("Cu", "fcc", a=3.7, cubic=True))
    values = equation_of_state(pair, crystal).values
    found = values["lattice constant a"]["reference"]
    lengths = np.linspace(found - 0.01, found + 0.01, 5)
    energies = []
    for length in lengths:
        atoms = bulk("Cu", "fcc", a=length, cubic=True)
        atoms.calc = EMT()
        energies.append(atoms.get_potential_energy())
    fit = np.polyfit(lengths - found, energies, 2)
    assert abs(-fit[1] / (2 * fit[0])) < 2e-3
    assert values["volume"]["reference"] == pytest.approx(found**3 / 4, rel=1e-6)
    assert values["bulk modulus"]["difference_percent"] == 0.0
    assert "lattice constant b" not in values


def test_the_elastic_matrix_is_a_tensor():
    """In a cell turned by 45 degrees about z, C11 is (C11 + C12) / 2 + C44 of the cube."""
    straight = relaxed(bulk("Cu", "fcc", a=3.6, cubic=True), EMT())
    side = straight.cell[0, 0]
    turned = ase.Atoms(
        "Cu2",
        scaled_positions=[[0, 0, 0], [0.5, 0.5, 0.5]],
        cell=[side / np.sqrt(2), side / np.sqrt(2), side],
        pbc=True,
    )
    one, other = elastic_matrix(straight, EMT()), elastic_matrix(turned, EMT())
    assert other[0, 0] == pytest.approx(0.5 * (one[0, 0] + one[0, 1]) + one[3, 3], rel=1e-3)
    assert other[2, 2] == pytest.approx(one[2, 2], rel=1e-3)


@pytest.mark.parametrize("turn", [(1.0, 1.0, 1.0, 0.0), (0.0, 0.0, 1.0, 30.0)])
def test_a_primitive_cell_has_the_constants_of_its_cube(turn):
    """Three constants along the cube's axes, however the cell was turned."""
    pytest.importorskip("spglib")
    primitive = bulk("Cu", "fcc", a=3.6)
    primitive.rotate(turn[3], turn[:3], rotate_cell=True)
    ((name, cube),) = crystals_among([primitive]).items()
    assert name == "Cu4" and cube.cell.lengths() == pytest.approx([3.6] * 3)
    whole = bulk("Cu", "fcc", a=3.6, cubic=True)
    one, other = (elastic_matrix(relaxed(atoms, EMT()), EMT()) for atoms in (cube, whole))
    # relaxed to 1e-3 eV/angstrom each
    assert np.allclose(one, other, atol=0.1)


def test_a_tetragonal_crystal_in_a_cube_has_its_own_constants():
    """CuAu as it is often drawn: relaxed, it is shorter along the axis across its layers."""
    atoms = bulk("Cu", "fcc", a=3.8, cubic=True)
    atoms.numbers[:2] = 79
    pair = Pair(EMT(), EMT(), ("one", "other"))
    crystal = relaxed_by_both(pair, atoms)
    across = int(crystal["one"].cell.lengths().argmin())
    assert crystal["one"].cell.lengths()[across] < 3.6 < 3.9 < crystal["one"].cell.lengths().max()
    values = elastic_constants(pair, atoms, crystal).values
    assert {"C11", "C22", "C33", "C12", "C13", "C23", "C44", "C55", "C66"} <= set(values)
    diagonal = [values[f"C{i}{i}"]["reference"] for i in (1, 2, 3)]
    one, other = (diagonal[i] for i in range(3) if i != across)
    # equal by symmetry, the third is not
    assert one == pytest.approx(other, rel=1e-2)
    assert abs(diagonal[across] / one - 1) > 0.05


def test_cells_that_are_no_cubes_stay():
    hexagonal = bulk("Zn", "hcp", a=2.66, c=4.95)
    ((name, atoms),) = crystals_among([hexagonal]).items()
    assert name == "Zn2" and np.array_equal(atoms.cell.array, hexagonal.cell.array)
    given = bulk("Cu", "fcc", a=3.6, cubic=True)
    assert crystals_among([given])["Cu4"] is given


def test_the_vacancy_of_an_element():
    """Unrelaxed and for pairs alone it is the binding energy of one atom; relaxing lowers it."""
    crystal = relaxed(argon(), lennard_jones())
    pair = Pair(lennard_jones(), lennard_jones(), ("one", "other"))
    found = vacancy_energy(pair, {"one": crystal, "other": crystal}).values["formation energy"]
    binding = -crystal.get_potential_energy() / len(crystal)
    assert 0.95 * binding < found["reference"] < binding
    assert found["reference"] == found["student"]


def test_formula_units():
    salt = bulk("NaCl", "rocksalt", a=5.6, cubic=True) * 2
    unit = formula_unit(salt)
    assert sorted(salt.numbers[unit]) == [11, 17]
    assert salt.get_distance(*unit, mic=True) == pytest.approx(2.8)
    fluorite = bulk("CaF2", "fluorite", a=5.5, cubic=True)
    assert sorted(fluorite.numbers[formula_unit(fluorite)]) == [9, 9, 20]


def test_phonons_of_a_pair_potential():
    """At X of fcc the longitudinal branch is higher; sums of squares follow from the springs."""
    pytest.importorskip("phonopy")
    crystal = relaxed(argon(), lennard_jones())
    softer = frequencies(crystal, lennard_jones())
    stiffer = frequencies(crystal, lennard_jones(4.0))
    assert np.allclose(softer[0], 0.0, atol=1e-3)  # acoustic branches at the zone center
    for soft, stiff in zip(softer[1:], stiffer[1:], strict=True):
        assert np.allclose(np.array(stiff), 2 * np.array(soft), rtol=1e-3)  # the root of 4
        assert soft[0] > 0.1


def test_crystals_of_different_symmetry_have_no_phonons_to_compare():
    """Cells of another size have other branches; the rest of the report does not suffer."""
    pytest.importorskip("phonopy")
    crystal = bulk("Ar", "fcc", a=5.3, cubic=True)
    other = crystal.copy()
    other.positions[0, 0] += 1e-3
    pair = Pair(lennard_jones(), lennard_jones(), ("reference", "student"))
    section = guarded(
        "Phonons", lambda: phonon_frequencies(pair, {"reference": crystal, "student": other})
    )
    assert "primitive cells have 1 and 4 atoms" in section.values["missing"]


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


def test_a_crystal_that_does_not_relax_is_tried_once_and_named(monkeypatch):
    asked = []

    def count(atoms, calculator, cell=True):
        asked.append(calculator)
        raise TDNError("the structure does not relax within 300 steps")

    monkeypatch.setattr(crystal_module, "relaxed", count)
    pair = Pair(lennard_jones(), lennard_jones(), ("teacher", "student"))
    sections = compare(pair, Subjects(crystals={"Ar4": argon()}))
    assert asked == [pair.reference]
    (section,) = sections
    assert section.title == "Crystal: Ar4"
    assert section.values["missing"] == "teacher: the structure does not relax within 300 steps"


def test_a_vacancy_whose_atoms_still_move_is_an_upper_bound(monkeypatch):
    crystal = relaxed(argon(), lennard_jones())
    pair = Pair(lennard_jones(), lennard_jones(), ("one", "other"))
    monkeypatch.setattr(vacancy, "RELAXED", 1e-4)
    found = {}
    for steps in (300, 1):
        monkeypatch.setattr(vacancy, "MOST_STEPS", steps)
        found[steps] = vacancy_energy(pair, {"one": crystal, "other": crystal})
    assert "upper bound" not in found[300].text
    assert found[1].text.count("upper bound") == 2 and "after 1 steps" in found[1].text
    assert found[1].values["one_largest_force_eV_per_A"] > 1e-4
    energies = {n: s.values["formation energy"]["reference"] for n, s in found.items()}
    assert energies[1] > energies[300]


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
