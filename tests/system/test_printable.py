"""What comes from a file cannot act on a terminal."""

import warnings
import zipfile

import ase.io
import pytest
from archives import with_json
from structures import TRAINED_MODEL, water_cluster

from tdn.data.cli import main as data
from tdn.evaluation.errors import format_rows
from tdn.inference.compiled_model import load_compiled
from tdn.network.checkpoint import load_model, read_checkpoint, write_checkpoint
from tdn.system.command import run_main
from tdn.system.errors import TDNError
from tdn.system.printable import printable, printable_lines
from tdn_export.cli import main as export

TOY = TRAINED_MODEL.with_name("toy.tdn.pth")
# clears the screen, writes backwards, and begins a line that looks like the program's own
HOSTILE = "\x1b[2J\u202eabc\ntdn: all is well\x07"
ESCAPED = r"\x1b[2J\u202eabc\ntdn: all is well\x07"


@pytest.mark.parametrize(
    "text, shown",
    [
        (HOSTILE, ESCAPED),
        ("plain text, é, 水", "plain text, é, 水"),
        ("\r\t\0\x7f\x9b", r"\r\t\x00\x7f\x9b"),
        ("\udc80\u2028\u200b", r"\udc80\u2028\u200b"),
        (3.5, "3.5"),
        ("x" * 80, "x" * 80),
        ("x" * 81, "x" * 80 + "..."),
        ("\n" * 50, r"\n" * 40 + "..."),
    ],
)
def test_printable(text, shown):
    assert printable(text) == shown


def test_line_breaks_of_a_message_are_kept():
    assert printable_lines("first\nsecond\x1b[2J") == "first\nsecond\\x1b[2J"
    assert printable("x" * 100, None) == "x" * 100


def shown(capsys) -> str:
    """Everything that a command printed, without any character that a terminal might obey."""
    captured = capsys.readouterr()
    text = captured.out + captured.err
    assert all(line.isprintable() for line in text.split("\n")), ascii(text)
    assert not any(line.startswith("tdn: all is well") for line in text.split("\n"))
    return text


@pytest.mark.filterwarnings("always:escape")
def test_errors_and_warnings_of_commands(capsys):
    def fail():
        warnings.warn("escape \x1b[2J", stacklevel=1)
        raise TDNError("a message of two lines\nwith an escape \x1b[2J")

    assert run_main(fail, "tdn-test") == 1
    assert shown(capsys).splitlines() == [
        r"warning: escape \x1b[2J",
        "tdn-test: error: a message of two lines",
        r"with an escape \x1b[2J",
    ]


def with_member(source, target, name):
    """A copy of an archive with one more part, whose checksum is wrong."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        folder = old.namelist()[0].partition("/")[0]
        for item in old.infolist():
            new.writestr(item, old.read(item))
        new.writestr(f"{folder}/{name}", b"0123456789")
    target.write_bytes(target.read_bytes().replace(b"0123456789", b"9876543210"))
    return target


@pytest.mark.parametrize("source, read", [(TOY, load_compiled), (TRAINED_MODEL, load_model)])
def test_name_of_a_damaged_part(source, read, tmp_path):
    path = with_member(source, tmp_path / source.name, HOSTILE)
    with pytest.raises(TDNError, match="is damaged") as error:
        read(path)
    assert ESCAPED in str(error.value) and str(error.value).isprintable()


@pytest.mark.parametrize("source, read", [(TOY, load_compiled), (TRAINED_MODEL, load_model)])
@pytest.mark.parametrize("offset", [20, 24])
def test_a_part_cut_to_nothing(source, read, offset, tmp_path):
    """One of the sizes and the checksum zero in the table at the end: it would read as empty."""
    with zipfile.ZipFile(source) as archive:
        position = archive.start_dir
    content = bytearray(source.read_bytes())
    content[position + 16 : position + 20] = content[position + offset : position + offset + 4] = (
        bytes(4)
    )
    path = tmp_path / source.name
    path.write_bytes(content)
    with pytest.raises(TDNError, match="is damaged"):
        read(path)


@pytest.mark.parametrize(
    "change",
    [
        {"tdn_version": HOSTILE, "torch_version": HOSTILE, "created": HOSTILE},
        {"species": [HOSTILE, "O"], "architecture": HOSTILE, "weight_hash": HOSTILE},
        {"format_version": HOSTILE},
        {"format_version": 99, "tdn_version": HOSTILE},
        {"format": HOSTILE},
        {"dtype": HOSTILE},
        {"units": {HOSTILE: HOSTILE}},
    ],
)
def test_description_of_a_compiled_file(change, tmp_path, capsys):
    path = with_json(TOY, tmp_path / "m.tdn.pth", **change)
    export(["--inspect", str(path)])
    assert r"\x1b[2J" in shown(capsys)


@pytest.mark.parametrize(
    "change",
    [
        {"format": HOSTILE},
        {"format_version": HOSTILE},
        {"heads": {HOSTILE: {}, "b": {}}},
        {"config": {HOSTILE: 1}},
        {"config": {"l_max": HOSTILE}},
    ],
)
def test_content_of_a_checkpoint(change, tmp_path, capsys):
    path = tmp_path / "model.pt"
    write_checkpoint(path, read_checkpoint(TRAINED_MODEL) | change)
    assert export([str(path)]) != 0
    assert r"\x1b[2J" in shown(capsys)


def test_frames(tmp_path, capsys):
    """Groups of frames, as tables and statistics list them, and labels that are no numbers."""
    assert format_rows({HOSTILE: {}}).splitlines()[-1] == ESCAPED
    path = tmp_path / "frames.traj"  # keeps any text
    frames = [water_cluster(number) for number in range(2)]
    for atoms in frames:
        atoms.info = {"config_type": HOSTILE, "energy": -1.0}
    ase.io.write(path, frames)
    data(["stats", str(path)])
    assert ESCAPED in shown(capsys)
    frames[1].info["energy"] = HOSTILE
    ase.io.write(path, frames)
    assert data(["convert", str(path), "-o", str(tmp_path / "frames.lmdb")]) == 0
    assert r"\x1b[2J" in shown(capsys)
