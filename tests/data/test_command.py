"""``tdn-data`` as a user drives it."""

import json

import ase
import ase.io
import ase.units
import numpy as np
import pytest
from ase.calculators.singlepoint import SinglePointCalculator
from foreign_files import pack, trajectory, write_lmdb
from training.helpers import labelled, water_like

from tdn.data import read_frames
from tdn.data.cli import main
from tdn.data.database.store import FrameStore


@pytest.fixture
def folder(folder):
    """Twelve labelled frames in a.xyz, in the current folder."""
    images = [labelled(water_like(seed, pbc=True, molecules=1 + seed % 2)) for seed in range(12)]
    for i, atoms in enumerate(images):
        atoms.info["config_type"] = ("cold", "hot")[i % 2]
        atoms.info["part"] = ("train", "train", "valid")[i % 3]
    ase.io.write("a.xyz", images)
    return folder


def test_convert(folder, capsys):
    assert main(["convert", "a.xyz", "a.xyz", "-o", "b.lmdb", "--split-key", "part"]) == 0
    out = capsys.readouterr().out
    assert "b.lmdb: 24 frames, 108 atoms" in out and "splits: train 16, valid 8" in out
    frames = read_frames("a.xyz")
    for a, b in zip([*frames, *frames], read_frames("b.lmdb"), strict=True):
        assert a.atoms == b.atoms and a.energy == b.energy and a.config_type == b.config_type
        np.testing.assert_array_equal(a.forces, b.forces)
        np.testing.assert_array_equal(a.stress, b.stress)
    # a database is also an input; what it was made of is in its metadata
    assert main(["convert", "b.lmdb", "-o", "c.lmdb", "--json", "c.json", "--cutoff", "3"]) == 0
    assert FrameStore("c.lmdb").metadata["origin"]["sources"][0]["file"] == "b.lmdb"
    assert FrameStore("c.lmdb").splits == {"train": 16, "valid": 8}
    assert json.loads((folder / "c.json").read_text())["frames"] == 24


@pytest.mark.parametrize(
    ("select", "numbers"),
    [
        (["elements=H,O"], range(12)),
        (["elements=H"], []),
        (["atoms=3"], range(0, 12, 2)),
        (["atoms=4.."], range(1, 12, 2)),
        (["atoms=..3", "config_type=hot"], []),
        (["config_type=hot,cold"], range(12)),
        (["frames=2:9:3"], [2, 5, 8]),
        (["frames=:4"], range(4)),
        (["pbc=abc"], range(12)),
        (["pbc=none"], []),
    ],
)
def test_select(folder, capsys, select, numbers):
    options = [word for text in select for word in ("--select", text)]
    code = main(["convert", "a.xyz", "-o", "b.lmdb", *options])
    frames = read_frames("a.xyz")
    if not len(list(numbers)):
        assert code == 1 and "no frame is left to write: 12 not selected" in capsys.readouterr().err
        assert not (folder / "b.lmdb").exists()
        return
    assert code == 0
    assert [f.energy for f in read_frames("b.lmdb")] == [frames[i].energy for i in numbers]


def test_units(folder):
    atoms = water_like(0)
    forces = np.arange(9.0).reshape(3, 3)
    atoms.calc = SinglePointCalculator(atoms, energy=-76.0, forces=forces)
    ase.io.write("h.xyz", atoms)
    units = ["--energy-unit", "hartree", "--force-unit", "hartree/bohr"]
    assert main(["convert", "h.xyz", "-o", "h.lmdb", *units]) == 0
    frame = read_frames("h.lmdb")[0]
    assert frame.energy == pytest.approx(-76.0 * 27.211386245988, rel=1e-7)
    np.testing.assert_allclose(frame.forces, forces * 51.422067476, rtol=1e-7)


def test_bad_frames_are_counted(folder, capsys):
    images = ase.io.read("a.xyz", ":")
    images[1].calc.results.pop("forces")
    images[2].calc.results["energy"] = float("nan")
    ase.io.write("b.xyz", images)
    assert main(["convert", "b.xyz", "-o", "b.lmdb"]) == 0
    out = capsys.readouterr().out
    assert "1 frames have no forces (--require forces leaves them out)" in out
    assert "1 left out: NaN or infinity in energy (first: frame 3 of b.xyz" in out
    assert main(["convert", "b.xyz", "-o", "b.lmdb", "--require", "forces,energy"]) == 0
    assert "1 left out: no forces (first: frame 2 of b.xyz" in capsys.readouterr().out
    assert len(read_frames("b.lmdb")) == 10
    assert main(["convert", "b.xyz", "-o", "c.lmdb", "--strict"]) == 1
    assert "frame 3 of b.xyz" in capsys.readouterr().err and not (folder / "c.lmdb").exists()


def test_pubchemqcr_with_the_paper_split(folder, capsys):
    (folder / "qcr").mkdir()
    for shard in range(2):
        records = {b"%09d" % (10 * shard + i): pack(trajectory(7 * i)) for i in range(10)}
        write_lmdb(folder / "qcr" / f"Data0{shard}.lmdb", records)
    command = ["convert", "qcr", "-o", "q.lmdb", "--stage", "2nd", "--split", "trajectory"]
    assert main(command) == 0
    assert "splits: " in capsys.readouterr().out
    store = FrameStore("q.lmdb")
    assert store.splits == {"train": 48, "valid": 6, "test": 6}
    groups = {name: {store.frame(i).group for i in store.split(name)} for name in store.splits}
    assert [len(groups[n]) for n in ("train", "valid", "test")] == [16, 2, 2]
    assert len(set.union(*groups.values())) == 20


def test_stats(folder, capsys):
    assert main(["stats", "a.xyz", "-o", "a.png", "--json", "a.json", "--cutoff", "3"]) == 0
    out = capsys.readouterr().out
    assert "12 frames, 54 atoms" in out and "config types (frames): cold 6, hot 6" in out
    assert (folder / "a.png").read_bytes().startswith(b"\x89PNG")
    values = json.loads((folder / "a.json").read_text())
    frames = read_frames("a.xyz")
    forces = np.concatenate([f.forces.ravel() for f in frames])
    assert values["force_component"]["std"] == pytest.approx(forces.std())
    assert values["elements"]["H"] == {"atoms": 36, "frames": 12}
    assert values["largest_force"]["max"] == pytest.approx(np.abs(forces).max())
    assert main(["convert", "a.xyz", "-o", "b.lmdb"]) == 0
    capsys.readouterr()
    assert main(["stats", "b.lmdb", "--cutoff", "3"]) == 0
    again = capsys.readouterr().out.replace("b.lmdb", "a.xyz")
    assert [line for line in out.splitlines() if "figure" not in line] == again.splitlines()


def test_check(folder, capsys):
    images = [labelled(water_like(seed, molecules=2)) for seed in range(20)]
    ase.io.write("good.xyz", images)
    assert main(["check", "good.xyz", "--cutoff", "3"]) == 0
    assert "20 frames: nothing found" in capsys.readouterr().out
    images[3] = images[2].copy()
    images[3].calc = SinglePointCalculator(images[3], **images[2].calc.results)
    images[7].calc.results.pop("forces")
    ase.io.write("bad.xyz", images)
    assert main(["check", "bad.xyz", "--cutoff", "3", "--json", "bad.json"]) == 1
    out = capsys.readouterr().out
    assert "20 frames: 2 findings" in out
    assert "- 1 of 20 frames have no forces" in out
    assert "repeat an earlier one (first: frame 4 of bad.xyz and frame 3" in out
    assert len(json.loads((folder / "bad.json").read_text())["findings"]) == 2


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["convert", "a.xyz", "-o", "b.lmdb", "--select", "color=red"], 2, "--select 'color=red'"),
        (["convert", "a.xyz", "-o", "b.lmdb", "--select", "atoms=x"], 2, "is not understood"),
        (["convert", "a.xyz", "-o", "b.lmdb", "--select", "frames=-1:"], 2, "is not understood"),
        (["convert", "a.xyz", "-o", "b.lmdb", "--energy-unit", "erg"], 2, "--energy-unit erg"),
        (["convert", "a.xyz", "-o", "b.lmdb", "--require", "charge"], 2, "--require charge"),
        (["convert", "a.xyz", "-o", "b.lmdb", "--split", "random"], 2, "--split random"),
        (["convert", "a.xyz", "-o", "b.lmdb", "--cutoff", "-1"], 2, "--cutoff -1.0"),
        (["convert", "a.xyz", "-o", "a.xyz"], 2, "is also an input"),
        (["convert", "none.xyz", "-o", "b.lmdb"], 1, "file none.xyz not found"),
        (["convert", "a.xyz", "-o", "no/b.lmdb"], 1, "does not exist"),
        (["stats", "none.xyz"], 1, "file none.xyz not found"),
        (["stats", "a.xyz", "-o", "no/a.png"], 1, "does not exist"),
        (["check", "."], 1, "is a folder without databases"),
    ],
)
def test_mistakes_are_one_line(folder, capsys, arguments, code, message):
    assert main(arguments) == code
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1
    assert not (folder / "b.lmdb").exists()
