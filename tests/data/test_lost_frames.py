"""No frame is lost in silence: every command counts what cannot be used, with its reason."""

import bz2
import gzip
import json

import ase.io
import numpy as np
import pytest
from copper import copper

from tdn.config import config_from_dict
from tdn.data import load_dataset, read_frames
from tdn.data.bad_frames import Problems
from tdn.data.cli import main
from tdn.system.errors import TDNError
from tdn.training.cli import main as train


def texts(frames) -> list[str]:
    """Each frame as extended XYZ."""
    found = []
    for atoms in frames:
        ase.io.write("one.xyz", atoms)
        with open("one.xyz") as file:
            found.append(file.read())
    return found


@pytest.mark.parametrize("between", ("\n", "\n\n  \n", "\t\n"))
def test_empty_lines_between_frames(folder, between):
    frames = copper(12)
    text = between + between.join(texts(frames)) + between
    (folder / "a.xyz").write_text(text)
    (folder / "a.xyz.gz").write_bytes(gzip.compress(text.encode()))
    (folder / "a.xyz.bz2").write_bytes(bz2.compress(text.encode()))
    for name in ("a.xyz", "a.xyz.gz", "a.xyz.bz2"):
        found = read_frames(name)
        assert [f.number for f in found] == list(range(1, 13))
        for frame, atoms in zip(found, frames, strict=True):
            assert frame.energy == pytest.approx(atoms.get_potential_energy(), abs=1e-9)


@pytest.mark.parametrize(
    "rest", ("end of file\n", "Cu 0.0 0.0 0.0\n", "8\n", "8\nenergy=1\nCu 0 0 0\n")
)
def test_what_follows_the_last_frame_is_looked_at(folder, capsys, rest):
    (folder / "a.xyz").write_text("".join(texts(copper(3))) + rest)
    with pytest.raises(TDNError, match=r"frame 4 of a.xyz cannot be read: cut short or damaged"):
        read_frames("a.xyz")
    problems = Problems(skip=True)
    assert len(read_frames("a.xyz", problems=problems)) == 3
    assert problems.counts == {"damaged, and everything behind it": 1}
    assert main(["check", "a.xyz"]) == 1
    assert "- 1 left out: damaged, and everything behind it" in capsys.readouterr().out


def test_a_damaged_frame_costs_only_itself(folder):
    good = texts(copper(4))
    good[1] = good[1].replace("Cu", "Cu nonsense", 1)
    (folder / "a.xyz").write_text("".join(good))
    with pytest.raises(TDNError, match=r"frame 2 of a.xyz cannot be read"):
        read_frames("a.xyz")
    problems = Problems(skip=True)
    assert [f.number for f in read_frames("a.xyz", problems=problems)] == [1, 3, 4]
    assert problems.counts == {"damaged frame": 1}


def test_other_text_formats_do_not_end_in_silence(folder):
    """ASE's reader of XDATCAR stops at an empty line where another cell may begin."""
    ase.io.write("XDATCAR", copper(3, strain=0.0), format="vasp-xdatcar")
    assert len(read_frames("XDATCAR")) == 3
    with open("XDATCAR") as file:
        text = file.read()
    (folder / "cut").mkdir()
    (folder / "cut" / "XDATCAR").write_text(f"{text}\n\n{text}")
    with pytest.raises(TDNError, match=r"cannot be read: cut short or damaged .*lines follow it"):
        read_frames("cut/XDATCAR")


VASPRUN = """<?xml version="1.0"?><modeling><kpoints/><atominfo><array name="atoms"><set>
<rc><c>Cu</c><c>1</c></rc></set></array></atominfo>
<structure name="initialpos"><crystal><varray name="basis"><v>9 0 0</v><v>0 9 0</v><v>0 0 9</v>
</varray></crystal><varray name="positions"><v>0 0 0</v></varray></structure>
"""
STEP = """<calculation><scstep><energy><i name="e_fr_energy">-1.0</i><i name="e_0_energy">-1.0</i>
</energy></scstep><structure><crystal><varray name="basis"><v>9 0 0</v><v>0 9 0</v><v>0 0 9</v>
</varray></crystal><varray name="positions"><v>0 0 0</v></varray></structure>
<varray name="forces"><v>0 0 0</v></varray><energy><i name="e_fr_energy">-1.0</i>
<i name="e_0_energy">-1.0</i></energy></calculation>
"""


def test_vasprun_that_is_cut_short(folder):
    """ASE reads the steps that are there, and says nothing of the file's end."""
    (folder / "vasprun.xml").write_text(VASPRUN + 3 * STEP + "</modeling>\n")
    problems = Problems()
    assert len(read_frames("vasprun.xml", problems=problems)) == 3 and not problems.remarks()
    (folder / "vasprun.xml").write_text(VASPRUN + 2 * STEP + STEP[:200])
    with pytest.raises(TDNError, match=r"frame 3 of vasprun.xml .*ends before </modeling>"):
        read_frames("vasprun.xml")
    assert len(read_frames("vasprun.xml", problems=Problems(skip=True))) == 2


def unusable(kind: str):
    """Three good frames, and two of a kind that no network can take."""
    frames = copper(5)
    for atoms in frames[1:3]:
        if kind == "atoms at the same place":
            atoms.positions[7] = atoms.positions[0] + atoms.cell[1]  # a periodic image
        elif kind == "flat cell":
            atoms.calc.results.pop("stress")
            atoms.cell[:] = 0.0
        elif kind == "NaN or infinite positions":
            atoms.positions[3, 1] = np.nan
        else:
            atoms.symbols[2] = "X"
    return frames


@pytest.mark.parametrize(
    "kind",
    (
        "atoms at the same place",
        "flat cell",
        "NaN or infinite positions",
        "unknown element",
    ),
)
def test_unusable_frames_are_found_by_every_command(folder, capsys, kind):
    ase.io.write("a.xyz", unusable(kind))
    with pytest.raises(TDNError, match=r"frame 2 of a.xyz"):
        read_frames("a.xyz")
    reason = f"2 left out: {kind} (first: frame 2 of a.xyz"
    assert main(["check", "a.xyz", "--json", "a.json"]) == 1
    out = capsys.readouterr().out
    assert reason in out and "\n  frame 2 of a.xyz" in out and "\n  frame 3 of a.xyz" in out
    values = json.loads((folder / "a.json").read_text())
    assert values["left_out"] == {kind: 2} and len(values["left_out_frames"][kind]) == 2
    assert main(["stats", "a.xyz"]) == 0
    assert reason in capsys.readouterr().out
    assert main(["convert", "a.xyz", "-o", "a.lmdb"]) == 0
    assert reason in capsys.readouterr().out
    assert [f.energy for f in read_frames("a.lmdb")] == [
        f.energy for f in read_frames("a.xyz", problems=Problems(skip=True))
    ]
    assert main(["convert", "a.xyz", "-o", "b.lmdb", "--strict"]) == 1
    assert not (folder / "b.lmdb").exists()
    capsys.readouterr()
    assert train(["--init", "a.xyz"]) == 0
    assert f"ATTENTION: {reason}" in capsys.readouterr().out.replace("\n# ", " ")
    data = {"train": "a.xyz", "valid_fraction": 0}
    with pytest.raises(TDNError, match=r"frame 2 of a.xyz"):
        load_dataset(config_from_dict({"data": data}))
    dataset = load_dataset(config_from_dict({"data": {**data, "bad_frames": "skip"}}))
    assert len(dataset.train) == 3 and any(reason in line for line in dataset.warnings)


def test_a_file_without_a_usable_frame_is_listed(folder, capsys):
    ase.io.write("a.xyz", unusable("flat cell")[1:3])
    assert main(["check", "a.xyz"]) == 1
    out = capsys.readouterr().out
    assert "0 frames: 1 findings" in out and "frame 2 of a.xyz: the cell is flat" in out
    assert main(["convert", "a.xyz", "-o", "a.lmdb"]) == 1
    err = capsys.readouterr().err
    assert "2 left out: flat cell" in err and err.count("\n") == 1
