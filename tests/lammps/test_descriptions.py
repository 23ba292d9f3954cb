"""The plugin accepts and refuses the descriptions of the table, whatever the program's locale.

The other half, for the reader in Python, is tests/export/test_descriptions.py.
"""

from __future__ import annotations

import json
import struct
import subprocess
import zipfile
from pathlib import Path

import forks
import pytest
from description_cases import ACCEPTED, cases

from tdn.inference.compiled_model import read_extra_files

# argv: good file, table, file to write, locale; prints the error of each case, or an empty string
RUNNER = """
import json, locale, sys, zipfile
import tdn_lammps

source, table, target, name = sys.argv[1:]
lmp = tdn_lammps.lammps(cmdargs=["-screen", "none", "-log", "none", "-nocite"])
lmp.commands_string("units metal\\nregion box block 0 9 0 9 0 9\\ncreate_box 2 box\\nmass * 1")
lmp.command("pair_style tdn check no")
locale.setlocale(locale.LC_NUMERIC, name)
with zipfile.ZipFile(source) as old:
    good = {item.filename: old.read(item) for item in old.infolist()}
for part, text in json.load(open(table)):
    with zipfile.ZipFile(target, "w") as new:
        for member, content in good.items():
            changed = member.partition("/")[2] == f"extra/{part}"
            new.writestr(member, text.encode("latin-1") if changed else content)
    try:
        lmp.command(f"pair_coeff * * {target} H O")
        print(json.dumps(""))
    except Exception as error:
        print(json.dumps(str(error)))
assert locale.localeconv()["decimal_point"] == ("," if name == "comma" else ".")
"""


@pytest.fixture(scope="module")
def locales(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder for ``LOCPATH`` with a locale whose decimal point is a comma.

    Locales with a comma are not installed everywhere, so this writes the file of the C library.
    """
    folder = tmp_path_factory.mktemp("locales") / "comma"
    folder.mkdir()
    # decimal point, separator of thousands, grouping; the first two once more; encoding
    fields = [b",\0", b"\0", b"\0\0", struct.pack("=I", ord(",")), bytes(4), b"UTF-8\0"]
    offsets, data = [], b""
    for content in fields:
        data += bytes(-len(data) % 4)
        offsets.append(8 + 4 * len(fields) + len(data))
        data += content
    header = struct.pack("=8I", 0x20031115 ^ 1, len(fields), *offsets)
    (folder / "LC_NUMERIC").write_bytes(header + data)
    return folder.parent


@pytest.mark.parametrize("name", ["C", "comma"])
def test_descriptions(
    plugin: Path, models: Path, locales: Path, tmp_path: Path, name: str, monkeypatch
) -> None:
    monkeypatch.setenv("LOCPATH", str(locales))
    source, target = models / "toy1.tdn.pth", tmp_path / "model.tdn.pth"
    table = cases(*read_extra_files(source))
    texts = [(case.part, case.text.decode("latin-1")) for case in table]
    (tmp_path / "table.json").write_text(json.dumps(texts))
    done = subprocess.run(
        [forks.python(), "-c", RUNNER, source, tmp_path / "table.json", target, name],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    messages = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0 and len(messages) == len(table), done.stderr[-2000:]
    for case, message in zip(table, messages):
        if case.refusal != ACCEPTED:
            begin, found, message = message.partition(f"cannot use the model file {target}: ")
            assert found, (case[:2], begin)
        assert case.refusal in message and bool(case.refusal) == bool(message), (case[:2], message)


def test_part_that_grows_too_much(plugin: Path, models: Path, tmp_path: Path, lmp) -> None:
    """A hundred megabytes of blanks in a small file is refused before it is unpacked."""
    source, target = models / "toy1.tdn.pth", tmp_path / "model.tdn.pth"
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as new:
        for item in old.infolist():
            large = item.filename.endswith("metadata.json")
            new.writestr(item.filename, old.read(item) + b" " * (large and 100_000_000))
    output = lmp(
        "units metal\nregion box block 0 9 0 9 0 9\ncreate_box 2 box\n"
        "pair_style tdn\npair_coeff * * model.tdn.pth H O\n",
        fails=True,
    )
    assert "the size of extra/metadata.json makes no sense" in output
