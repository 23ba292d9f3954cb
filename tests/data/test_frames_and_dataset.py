"""Reading frames, splitting them, and what is computed from them before training."""

import gzip
import os
from pathlib import Path

import ase
import ase.io
import numpy as np
import pytest
import torch
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms

from tdn.config import config_from_dict
from tdn.data import LabelKeys, load_dataset, read_frames
from tdn.data.dataset.split import split_frames
from tdn.data.frames import Frame, drop_bad_labels, require_labels
from tdn.data.graphs import build_graphs, graph_from_frame
from tdn.data.statistics import (
    find_atomic_energies,
    force_scale,
    is_isolated_atom,
    least_squares_energies,
    mean_neighbors,
)
from tdn.data.survey.checks import suspicious
from tdn.system.errors import TDNError, UsageError

FORCES = np.array([[0.1, 0.2, 0.3], [-0.1, -0.2, -0.3]])
STRESS = np.array([[1.0, 0.2, 0.3], [0.2, 4.0, 0.5], [0.3, 0.5, 6.0]])


def molecule(cell: float | None = None) -> ase.Atoms:
    atoms = ase.Atoms("OH", positions=[[0.0, 0, 0], [0, 0, 1.0]])
    if cell is not None:
        atoms.set_cell([cell] * 3)
        atoms.pbc = True
    return atoms


def with_labels(atoms: ase.Atoms, **labels) -> ase.Atoms:
    atoms.calc = SinglePointCalculator(atoms, **labels)
    return atoms


def frame(symbols: str, energy: float | None = None, number: int = 1, **kwargs) -> Frame:
    atoms = ase.Atoms(symbols, positions=np.arange(3.0 * len(ase.Atoms(symbols))).reshape(-1, 3))
    return Frame(atoms, number, "f.xyz", energy=energy, **kwargs)


# --- reading ---------------------------------------------------------------------------------


def test_labels_in_the_calculator_and_under_other_keys(tmp_path):
    """The same numbers arrive whichever of the two places a file puts them."""
    atoms = with_labels(molecule(4.0), energy=-3.5, forces=FORCES, stress=STRESS)
    ase.io.write(tmp_path / "a.xyz", atoms)
    other = molecule(4.0)
    other.info.update(REF_energy=-3.5, REF_stress=STRESS, config_type="liquid")
    other.arrays["REF_forces"] = FORCES
    ase.io.write(tmp_path / "b.xyz", other)
    a = read_frames(tmp_path / "a.xyz")[0]
    b = read_frames(tmp_path / "b.xyz", LabelKeys("REF_energy", "REF_forces", "REF_stress"))[0]
    for found in (a, b):
        assert found.energy == -3.5
        np.testing.assert_allclose(found.forces, FORCES, atol=1e-8)
        np.testing.assert_allclose(found.stress, STRESS, atol=1e-8)
        assert found.atoms.calc is None
    assert (a.config_type, b.config_type) == (None, "liquid")
    assert b.where == "frame 1 of b.xyz"
    found = read_frames(tmp_path / "b.xyz")[0]
    assert found.energy == -3.5 and np.array_equal(found.stress, b.stress)


def test_voigt_stress_and_virials(tmp_path):
    """stress = -W / V, and six numbers come in the order of ASE."""
    voigt = STRESS[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]
    for key, value in (("S", voigt), ("virial", -STRESS * 64), ("my_virial", -STRESS * 64)):
        atoms = molecule(4.0)
        atoms.info[key] = value
        ase.io.write(tmp_path / "v.xyz", atoms)
        found = read_frames(tmp_path / "v.xyz", LabelKeys(stress=key))[0]
        np.testing.assert_allclose(found.stress, STRESS, atol=1e-7)
    virial = molecule(4.0)
    virial.info["virials"] = -STRESS * 64
    ase.io.write(tmp_path / "v.xyz", virial)
    np.testing.assert_allclose(read_frames(tmp_path / "v.xyz")[0].stress, STRESS, atol=1e-7)


def test_no_stress_without_volume(tmp_path):
    atoms = with_labels(molecule(), energy=1.0, forces=FORCES, stress=STRESS)
    ase.io.write(tmp_path / "a.xyz", atoms)
    assert read_frames(tmp_path / "a.xyz")[0].stress is None


def test_compressed_files_and_constraints(tmp_path):
    """Constraints do not zero reference forces."""
    atoms = with_labels(molecule(), energy=1.0, forces=FORCES)
    atoms.set_constraint(FixAtoms([0]))
    ase.io.write(tmp_path / "a.xyz", atoms, columns=["symbols", "positions", "move_mask"])
    plain = molecule()
    plain.calc = SinglePointCalculator(plain, energy=1.0, forces=FORCES)
    ase.io.write(tmp_path / "b.xyz", plain)
    packed = tmp_path / "b.xyz.gz"
    packed.write_bytes(gzip.compress((tmp_path / "b.xyz").read_bytes()))
    np.testing.assert_allclose(read_frames(packed)[0].forces, FORCES, atol=1e-8)
    ase.io.write(tmp_path / "c.traj", atoms)
    np.testing.assert_allclose(read_frames(tmp_path / "c.traj")[0].forces, FORCES, atol=1e-12)


BROKEN = {
    "missing.xyz": (None, "not found"),
    "empty.xyz": (b"", "is empty"),
    "foreign.xyz": (b"hello\nworld\n", "cannot be read"),
    "foreign.bin": (bytes(range(256)), "cannot be read"),
    "broken.xyz.gz": (b"no gzip", "cannot be read"),
    "cut.xyz": (
        b"1\nenergy=1\nH 0 0 0\n2\nenergy=1\nH 0 0 0\n",
        "frame 2 of .*cut.xyz cannot be read",
    ),
    "letters.xyz": (b"1\nenergy=1\nH 0 0 0\n1\nenergy=1\nH a 0 0\n", "frame 2 of"),
    "text.xyz": (b"1\nenergy=abc\nH 0 0 0\n", "'energy' is 'abc', expected numbers"),
    "nan.xyz": (b"1\nenergy=1\nH nan 0 0\n", "frame 1 of nan.xyz: positions"),
    "ghost.xyz": (b"1\nenergy=1\nX 0 0 0\n", "unknown element 'X'"),
    "noatoms.xyz": (b"0\nenergy=1\n", "no atoms"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_files_that_cannot_be_used(tmp_path, name):
    content, pattern = BROKEN[name]
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(TDNError, match=pattern) as caught:
        read_frames(path)
    assert "\n" not in str(caught.value)


def test_folder_instead_of_file(tmp_path):
    with pytest.raises(TDNError, match=r"is a folder"):
        read_frames(tmp_path)


def test_wrong_shape(tmp_path):
    atoms = molecule()
    atoms.info["f"] = [1.0, 2.0]
    ase.io.write(tmp_path / "a.xyz", atoms)
    with pytest.raises(TDNError, match=r"'f' has shape \[2\], expected shape \[2, 3\]"):
        read_frames(tmp_path / "a.xyz", LabelKeys(forces="f"))


def test_needed_labels():
    good = frame("OH", 1.0, forces=FORCES)
    keys = LabelKeys(energy="e")
    require_labels([good], True, True, keys)
    with pytest.raises(TDNError, match=r"frame 2 of f.xyz has no energy under the key 'e'"):
        require_labels([good, frame("OH", None, 2, forces=FORCES)], True, True, keys)
    with pytest.raises(TDNError, match=r"frame 3 of f.xyz has no forces"):
        require_labels([good, frame("OH", 1.0, 3)], True, True, keys)
    require_labels([good, frame("OH", 1.0, 3)], True, False, keys)
    with pytest.raises(TDNError, match=r"frame 4 of f.xyz: 'e' contains NaN"):
        require_labels([good, frame("OH", np.nan, 4, forces=FORCES)], True, True, keys)
    with pytest.raises(TDNError, match=r"frame 5 of f.xyz: 'forces' contains NaN"):
        require_labels([frame("OH", 1.0, 5, forces=FORCES * np.inf)], True, True, keys)
    kept, count = drop_bad_labels([good, frame("OH", np.nan, 4, forces=FORCES)])
    assert count == 1 and kept[0].energy == 1.0
    assert kept[1].energy is None and kept[1].forces is not None


# --- split -----------------------------------------------------------------------------------


def test_split_is_a_partition_that_the_seed_fixes():
    items = list(range(100))
    rest, part = split_frames(items, 0.2, seed=3)
    assert sorted(rest + part) == items and len(part) == 20
    assert rest == sorted(rest) and part == sorted(part)
    assert split_frames(items, 0.2, seed=3) == (rest, part)
    assert split_frames(items, 0.2, seed=4) != (rest, part)
    assert len(split_frames(items[:3], 0.01, seed=0)[1]) == 1
    assert split_frames(items, 0.0, seed=0) == (items, [])
    with pytest.raises(TDNError, match=r"leaves none for training"):
        split_frames(items[:1], 0.1, seed=0)


# --- E0 --------------------------------------------------------------------------------------


def test_least_squares_recovers_energies_exactly():
    e0 = np.array([-13.6, -1030.0, -2041.0])
    counts = np.array([[2, 0, 1], [4, 1, 0], [6, 2, 1], [0, 1, 2]], float)
    values, degenerate = least_squares_energies(counts, counts @ e0)
    np.testing.assert_allclose(values, e0, rtol=1e-12)
    assert not degenerate


def test_least_squares_of_degenerate_compositions():
    """All frames are (H2O)n: only 2 h + o is determined; the solution of least norm is chosen."""
    counts = np.array([[2, 1], [4, 2], [32, 16]], float)
    values, degenerate = least_squares_energies(counts, counts @ np.array([-13.6, -2041.0]))
    assert degenerate
    total = 2 * -13.6 - 2041.0
    np.testing.assert_allclose(counts @ values, counts[:, 1] * total, rtol=1e-12)
    np.testing.assert_allclose(values, [2 * total / 5, total / 5], rtol=1e-12)


def test_isolated_atoms_come_first():
    frames = [frame("H2O", -2100.0), frame("H4O2", -4200.0), frame("H2", -30.0)]
    isolated = [frame("H", -13.0)]
    found = find_atomic_energies("auto", ["H", "O"], frames[:2], isolated)
    assert found.values["H"] == -13.0
    np.testing.assert_allclose(found.values["O"], -2100.0 + 26.0)
    assert found.origin == {"H": "isolated atom", "O": "least squares"} and not found.notes
    fitted = find_atomic_energies("least_squares", ["H", "O"], frames, isolated)
    np.testing.assert_allclose([fitted.values["H"], fitted.values["O"]], [-15.0, -2070.0])
    note = find_atomic_energies("auto", ["H", "O"], frames[:2], []).notes
    assert len(note) == 1 and "least norm" in note[0]
    given = find_atomic_energies({"H": 1.0, "O": 2.0, "C": 3.0}, ["H", "O"], frames, isolated)
    assert given.values == {"H": 1.0, "O": 2.0}


@pytest.mark.parametrize(
    ("setting", "species", "pattern"),
    [
        ("isolated", ["H", "O"], "no E0 for element O: add a frame of the isolated atom"),
        ({"H": 1.0}, ["H", "O"], "no E0 for element O: give a value"),
        ("auto", ["H", "O", "C"], "no E0 for element C: no training frame"),
        ("magic", ["H", "O"], "expected auto, isolated"),
        ({"H": 1.0, "O": 2.0, "Zz": 3.0}, ["H", "O"], "'Zz' is not a chemical symbol"),
    ],
)
def test_elements_without_energy(setting, species, pattern):
    with pytest.raises(TDNError, match=pattern):
        find_atomic_energies(setting, species, [frame("H2O", -2100.0)], [frame("H", -13.0)])


def test_isolated_atoms_that_contradict():
    with pytest.raises(TDNError, match=r"frame 2 of f.xyz is an isolated H atom of"):
        find_atomic_energies("auto", ["H"], [], [frame("H", -13.0), frame("H", -14.0, 2)])
    with pytest.raises(TDNError, match=r"without an energy"):
        find_atomic_energies("auto", ["H"], [], [frame("H")])


def test_what_an_isolated_atom_is():
    def atom(config_type=None, **kwargs):
        return Frame(ase.Atoms("H", [[0, 0, 0]], **kwargs), 1, "f", config_type=config_type)

    assert is_isolated_atom(atom(), 5.0)
    assert is_isolated_atom(atom(cell=[20.0] * 3, pbc=True), 5.0)
    assert not is_isolated_atom(atom(cell=[2.5] * 3, pbc=True), 5.0)
    # long lattice vectors, yet an image at the distance of their difference, 7.28 A
    oblique = [[20.0, 0, 0], [18.0, 7.0, 0], [0, 0, 20.0]]
    assert not is_isolated_atom(atom(cell=oblique, pbc=True), 7.5)
    assert is_isolated_atom(atom(cell=oblique, pbc=True), 7.2)
    assert is_isolated_atom(atom("IsolatedAtom", cell=[2.5] * 3, pbc=True), 5.0)
    pair = Frame(ase.Atoms("H2", [[0, 0, 0], [0, 0, 1]]), 1, "f", config_type="IsolatedAtom")
    assert not is_isolated_atom(pair, 5.0)


# --- other statistics ------------------------------------------------------------------------


def test_force_scale():
    frames = [frame("OH", 0.0, forces=np.array([[3.0, 0, 0], [0, 4.0, 0]]))]
    np.testing.assert_allclose(force_scale(frames, ["H", "O"], False), np.sqrt(25 / 6))
    expected = [4 / np.sqrt(3), 3 / np.sqrt(3), np.sqrt(25 / 6)]
    np.testing.assert_allclose(force_scale(frames, ["H", "O", "C"], True), expected)
    np.testing.assert_array_equal(force_scale([frame("OH")], ["H", "O"], True), 1.0)


def test_neighbours_per_atom():
    # a simple cubic crystal with a cutoff between its first and second shell
    atoms = ase.Atoms("H8", positions=2.0 * np.stack(np.mgrid[:2, :2, :2], -1).reshape(-1, 3))
    atoms.set_cell([4.0] * 3)
    atoms.pbc = True
    graphs = build_graphs([Frame(atoms, 1, "f")], [1], 2.5)
    assert mean_neighbors(graphs) == 6.0
    assert mean_neighbors(build_graphs([frame("H")], [1], 2.0)) == 1.0


def test_graph_carries_labels_and_nan():
    graph = graph_from_frame(frame("OH", -1.5), [1, 8], 6.0)
    assert graph.energy.item() == -1.5 and graph.energy.dtype == torch.float64
    assert torch.isnan(graph.forces).all() and torch.isnan(graph.stress).all()
    with pytest.raises(TDNError, match=r"frame 1 of f.xyz: element O is not known"):
        graph_from_frame(frame("OH"), [1], 6.0)
    same = Frame(ase.Atoms("H2", positions=np.zeros((2, 3))), 7, "f.xyz")
    with pytest.raises(TDNError, match=r"frame 7 of f.xyz: two atoms are at the same place"):
        graph_from_frame(same, [1], 6.0)


# --- suspicious data -------------------------------------------------------------------------


def chains(energy_of_length, scale: float = 1.0, forces: float = 0.0) -> list[Frame]:
    frames = []
    for number, length in enumerate((3, 5, 8, 13), start=1):
        positions = np.zeros((length, 3))
        positions[:, 0] = scale * (np.arange(length) + 0.01 * number * np.arange(length) ** 2)
        atoms = ase.Atoms(f"H{length}", positions=positions)
        labels = np.zeros((length, 3))
        labels[0, 0], labels[-1, 0] = forces, -forces
        frames.append(Frame(atoms, number, "f.xyz", energy_of_length(length), labels))
    return frames


def warnings_of(frames: list[Frame]) -> str:
    return "\n".join(suspicious(frames, build_graphs(frames, [1], 1.6)))


def total(length: int) -> float:
    return -10.0 * length + 0.01 * np.sin(length)


def test_sound_data_give_no_warning():
    assert warnings_of(chains(total, forces=2.0)) == ""


def test_warnings():
    assert "per atom?" in warnings_of(chains(lambda n: total(n) / n, forces=2.0))
    assert "apart in frame" in warnings_of(chains(total, scale=0.1, forces=2.0))
    assert "no two atoms within" in warnings_of(chains(total, scale=10.0, forces=2.0))
    assert "above 100 eV/A" in warnings_of(chains(total, forces=200.0))
    assert "check their units" in warnings_of(chains(total, forces=1e-6))
    frames = chains(total, forces=2.0)
    assert "1 of 5 frames repeat" in warnings_of([*frames, frames[1]])
    frames[2].forces[0] += [0.0, 0.5, 0.0]
    assert "largest: 0.0625 eV/A per atom in frame 3" in warnings_of(frames)
    odd = chains(lambda n: total(n) + (500 if n == 8 else 0), forces=2.0)
    assert "away from the others" in warnings_of(odd)


# --- everything together ---------------------------------------------------------------------


def write_mixed(path: Path) -> None:
    frames = []
    for i in range(10):
        atoms = with_labels(molecule(), energy=-10.0 - i, forces=FORCES)
        atoms.positions[1, 2] += 0.01 * i
        atoms.info["split"] = "train" if i < 7 else ("val" if i < 9 else "test")
        frames.append(atoms)
    frames += [with_labels(ase.Atoms(s), energy=e) for s, e in (("H", -1.0), ("O", -5.0))]
    ase.io.write(path, frames)


def test_dataset_with_split_key(tmp_path):
    write_mixed(tmp_path / "a.xyz")
    data = {"train": str(tmp_path / "a.xyz"), "split_key": "split"}
    dataset = load_dataset(config_from_dict({"data": data}))
    assert [len(s) for s in (dataset.train, dataset.valid, dataset.test)] == [7, 2, 1]
    assert dataset.num_isolated == 2
    assert dataset.model_config.species == ("H", "O")
    assert dataset.model_config.avg_num_neighbors == 1.0
    assert dataset.atomic_energies.values == {"H": -1.0, "O": -5.0}
    with pytest.raises(UsageError, match=r"exclude each other"):
        load_dataset(config_from_dict({"data": {**data, "valid": "b.xyz"}}))
    with pytest.raises(TDNError, match=r"frame 1 of a.xyz has no key 'part'"):
        load_dataset(config_from_dict({"data": {**data, "split_key": "part"}}))
    frames = ase.io.read(tmp_path / "a.xyz", ":")
    frames[3].info["split"] = "maybe"
    ase.io.write(tmp_path / "b.xyz", frames)
    with pytest.raises(TDNError, match=r"frame 4 of b.xyz: split=maybe: expected train, valid"):
        load_dataset(config_from_dict({"data": {**data, "train": str(tmp_path / "b.xyz")}}))


def test_dataset_split_at_random(tmp_path):
    write_mixed(tmp_path / "a.xyz")
    values = {"data": {"train": str(tmp_path / "a.xyz"), "valid_fraction": 0.3}}
    dataset = load_dataset(config_from_dict(values))
    assert (len(dataset.train), len(dataset.valid), dataset.num_isolated) == (7, 3, 2)
    again = load_dataset(config_from_dict(values))
    other = load_dataset(config_from_dict({**values, "train": {"seed": 1}}))
    assert again.fingerprint == dataset.fingerprint != other.fingerprint


def test_elements_that_only_validation_has(tmp_path):
    write_mixed(tmp_path / "a.xyz")
    foreign = with_labels(ase.Atoms("CH", [[0, 0, 0], [0, 0, 1.1]]), energy=1.0, forces=FORCES)
    ase.io.write(tmp_path / "v.xyz", foreign)
    data = {"train": str(tmp_path / "a.xyz"), "valid": str(tmp_path / "v.xyz")}
    with pytest.raises(TDNError, match=r"frame 1 of v.xyz contains C, the model knows H, O"):
        load_dataset(config_from_dict({"data": data}))


def test_real_data():
    default = Path(__file__).parents[3] / "shared" / "data"
    folder = Path(os.environ.get("TDN_SHARED_DATA", default)) / "acac"
    if not (folder / "train_300K.xyz").is_file():
        pytest.skip("the AcAc data are not here; set TDN_SHARED_DATA to the folder that holds them")
    data = {
        "train": str(folder / "train_300K.xyz"),
        "isolated_atoms": str(folder / "isolated_atoms.xyz"),
    }
    dataset = load_dataset(config_from_dict({"data": data}))
    assert len(dataset.train) == 450 and len(dataset.valid) == 50
    assert dataset.atomic_energies.values["O"] == pytest.approx(-2037.796869412825)
    assert dataset.warnings == []
