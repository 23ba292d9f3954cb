"""Folders of DeePMD-kit, files of MD17, and several files at once."""

import re
from pathlib import Path

import ase.io
import numpy as np
import pytest
import yaml
from copper import copper
from training.helpers import write_frames

from tdn.config import config_from_dict
from tdn.config.yaml_file import load_config
from tdn.data import load_dataset, read_frames
from tdn.data.cli import main
from tdn.system.errors import TDNError, UsageError

KCAL = 4184 / 6.02214076e23 / 1.602176634e-19  # kcal/mol in eV


def write_deepmd(folder: Path, frames, sets: int = 2, types: str = "Cu\n") -> None:
    """As dpdata writes it: flat arrays, virials in eV with the sign of pressure."""
    folder.mkdir(parents=True)
    (folder / "type.raw").write_text("0\n" * len(frames[0]))
    (folder / "type_map.raw").write_text(types)
    for number in range(sets):
        part = frames[number::sets]
        place = folder / f"set.{number:03d}"
        place.mkdir()
        count = len(part)
        arrays = {
            "coord": [a.positions for a in part],
            "box": [a.cell.array for a in part],
            "force": [a.get_forces() for a in part],
            "virial": [-a.get_stress(voigt=False) * a.get_volume() for a in part],
        }
        for name, values in arrays.items():
            np.save(place / f"{name}.npy", np.array(values).reshape(count, -1))
        np.save(place / "energy.npy", [a.get_potential_energy() for a in part])


def test_deepmd_systems(tmp_path, capsys):
    frames = copper(6)
    write_deepmd(tmp_path / "data" / "b", frames[:4])
    write_deepmd(tmp_path / "data" / "a", frames[4:], sets=1)
    found = read_frames(tmp_path / "data")
    for frame, atoms in zip(found, [*frames[4:], *frames[0:4:2], *frames[1:4:2]], strict=True):
        assert frame.atoms.get_chemical_formula() == "Cu8" and frame.atoms.pbc.all()
        np.testing.assert_allclose(frame.atoms.positions, atoms.positions, atol=1e-12)
        np.testing.assert_allclose(frame.atoms.cell.array, atoms.cell.array, atol=1e-12)
        assert frame.energy == pytest.approx(atoms.get_potential_energy(), abs=1e-12)
        np.testing.assert_allclose(frame.forces, atoms.get_forces(), atol=1e-12)
        np.testing.assert_allclose(frame.stress, atoms.get_stress(voigt=False), atol=1e-12)
    assert [f.where for f in found[:3]] == ["frame 1 of a", "frame 2 of a", "frame 1 of b"]
    assert main(["convert", str(tmp_path / "data"), "-o", str(tmp_path / "a.lmdb")]) == 0
    assert len(read_frames(tmp_path / "a.lmdb")) == 6
    dataset = load_dataset(config_from_dict({"data": {"train": str(tmp_path / "data" / "b")}}))
    assert len(dataset.train) + len(dataset.valid) == 4


def test_deepmd_without_cell_and_with_mixed_types(tmp_path):
    folder = tmp_path / "system"
    (folder / "set.000").mkdir(parents=True)
    (folder / "nopbc").touch()
    (folder / "type.raw").write_text("0 0 0\n")
    (folder / "type_map.raw").write_text("H O\n")
    positions = np.arange(18.0).reshape(2, 9)
    np.save(folder / "set.000" / "coord.npy", positions)
    np.save(folder / "set.000" / "energy.npy", np.array([[1.0], [2.0]]))
    np.save(folder / "set.000" / "real_atom_types.npy", [[1, 0, 0], [1, 0, -1]])
    first, second = read_frames(folder)
    assert first.atoms.get_chemical_formula() == "H2O" and not first.atoms.pbc.any()
    assert second.atoms.get_chemical_symbols() == ["O", "H"] and second.energy == 2.0
    np.testing.assert_array_equal(second.atoms.positions, positions[1].reshape(3, 3)[:2])
    assert first.forces is None and first.stress is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: (f / "type_map.raw").unlink(), "type_map.raw names the element"),
        (lambda f: (f / "type_map.raw").write_text("Qq"), "'Qq', which is no element"),
        (
            lambda f: (f / "type.raw").write_text("0\n" * 7 + "1\n"),
            "types that type_map.raw does not",
        ),
        (lambda f: (f / "set.000" / "box.npy").unlink(), "has no box.npy"),
        (lambda f: np.save(f / "set.000" / "force.npy", np.zeros((1, 24))), "force.npy has shape"),
        (lambda f: (f / "set.000" / "energy.npy").write_bytes(b"x"), "energy.npy cannot be read"),
        (lambda f: (f / "set.000" / "coord.npy").unlink(), "holds no set"),
    ],
)
def test_damaged_deepmd_systems(tmp_path, change, message):
    write_deepmd(tmp_path / "s", copper(2), sets=1)
    change(tmp_path / "s")
    with pytest.raises(TDNError, match=message) as caught:
        read_frames(tmp_path / "s")
    assert "\n" not in str(caught.value)


def molecules(count: int = 5) -> dict[str, np.ndarray]:
    """Numbers as MD17 gives them: kcal/mol and kcal/mol/angstrom."""
    rng = np.random.default_rng(0)
    return {
        "z": np.array([8, 1, 1]),
        "R": rng.normal(size=(count, 3, 3)),
        "E": -47000.0 + rng.normal(size=(count, 1)),
        "F": rng.normal(size=(count, 3, 3)),
    }


NAMES = {
    "MD17": ("z", "R", "E", "F"),
    "rMD17": ("nuclear_charges", "coords", "energies", "forces"),
}


@pytest.mark.parametrize("layout", NAMES)
def test_md17(tmp_path, capsys, layout):
    values = molecules()
    arrays = dict(zip(NAMES[layout], values.values(), strict=True))
    np.savez(tmp_path / "m.npz", **arrays, name="water", old_indices=np.arange(5))
    found = read_frames(tmp_path / "m.npz")
    assert len(found) == 5
    for i, frame in enumerate(found):
        assert frame.atoms.get_chemical_symbols() == ["O", "H", "H"]
        np.testing.assert_array_equal(frame.atoms.positions, values["R"][i])
        assert frame.energy == pytest.approx(values["E"][i, 0] * KCAL, rel=1e-7)
        np.testing.assert_allclose(frame.forces, values["F"][i] * KCAL, rtol=1e-7)
    assert main(["convert", str(tmp_path / "m.npz"), "-o", str(tmp_path / "m.lmdb")]) == 0
    assert "converted from kcal/mol to eV" in capsys.readouterr().out


def test_md17_with_its_unit_and_a_cell(tmp_path):
    values = molecules(1)
    np.savez(tmp_path / "m.npz", **values, e_unit="eV", lattice=np.diag([9.0, 8.0, 7.0]))
    (frame,) = read_frames(tmp_path / "m.npz")
    assert frame.energy == values["E"][0, 0]
    assert frame.atoms.cell.lengths().tolist() == [9.0, 8.0, 7.0] and frame.atoms.pbc.all()


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": np.zeros(3)}, "holds 'x'; expected the arrays of MD17"),
        ({**molecules(), "F": np.zeros((5, 2, 3))}, "F \\[5, 2, 3\\]"),
        ({**molecules(), "E": np.zeros(4)}, "E has 4 numbers for 5 frames"),
        ({**molecules(), "e_unit": "erg"}, "e_unit is 'erg'"),
        ({**molecules(), "z": np.array([object()])}, "no plain arrays"),
    ],
)
def test_other_npz_files(tmp_path, arrays, message):
    np.savez(tmp_path / "m.npz", **arrays)
    with pytest.raises(TDNError, match=message) as caught:
        read_frames(tmp_path / "m.npz")
    assert "\n" not in str(caught.value)
    (tmp_path / "n.npz").write_bytes(b"PK no archive")
    with pytest.raises(TDNError, match="cannot be read"):
        read_frames(tmp_path / "n.npz")


@pytest.mark.parametrize("name", ("a.hdf5", "a.unknown", "folder"))
def test_what_cannot_be_read_names_a_way(tmp_path, name):
    if name == "folder":
        (tmp_path / name).mkdir()
    else:
        (tmp_path / name).write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(50))
    with pytest.raises(TDNError, match="ase or dpdata"):
        read_frames(tmp_path / name)


def test_several_training_files(folder):
    write_frames(folder / "a.xyz", 6)
    ase.io.write("b.xyz", ase.io.read("a.xyz", ":4"))
    values = {"data": {"train": ["a.xyz", "b.xyz"], "valid_fraction": 0}}
    dataset = load_dataset(config_from_dict(values))
    assert [f.source for f in dataset.train.frames] == ["a.xyz"] * 6 + ["b.xyz"] * 4
    # paths are relative to the configuration, those of the command line to the current folder
    (folder / "runs").mkdir()
    (folder / "runs" / "c.yaml").write_text(yaml.safe_dump({"data": {"train": ["../a.xyz", "x"]}}))
    assert load_config("runs/c.yaml").data.train == ("runs/../a.xyz", "runs/x")
    config = load_config("runs/c.yaml", ["data.train=[a.xyz, b.xyz]"])
    assert config.data.train == ("a.xyz", "b.xyz")
    values["data"]["streaming"] = "always"
    with pytest.raises(TDNError, match=r"tdn-data convert a.xyz b.xyz -o a.lmdb"):
        load_dataset(config_from_dict(values))
    with pytest.raises(UsageError, match=r"data.train is not set"):
        load_dataset(config_from_dict({"data": {"train": []}}))
    with pytest.raises(TDNError, match=r"file none.xyz not found"):
        load_dataset(config_from_dict({"data": {"train": ["a.xyz", "none.xyz"]}}))


CIF = """data_x
_cell_length_a 3.7
_cell_length_b 3.7
_cell_length_c 3.7
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
_space_group_name_H-M_alt 'F m -3 m'
_space_group_IT_number 225
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
_atom_site_occupancy
"""


@pytest.mark.parametrize(
    ("sites", "found"),
    [
        (("Cu1 Cu 0 0 0 0.6", "Au1 Au 0 0 0 0.4"), "(Cu 0.6, Au 0.4)"),
        (("Cu1 Cu 0 0 0 1", "O1 O 0.25 0.25 0.25 0.5"), "(O 0.5)"),
    ],
)
def test_sites_that_elements_share_are_refused(tmp_path, sites, found):
    """ASE would make pure copper of Cu0.6Au0.4, in silence."""
    (tmp_path / "x.cif").write_text(CIF + "\n".join(sites) + "\n")
    with pytest.raises(TDNError, match="occupied in part " + re.escape(found)):
        read_frames(tmp_path / "x.cif")


def test_refined_occupancies_about_one_are_full_sites(tmp_path):
    (tmp_path / "x.cif").write_text(CIF + "Cu1 Cu 0 0 0 0.98\n")
    assert str(read_frames(tmp_path / "x.cif")[0].atoms.symbols) == "Cu4"
