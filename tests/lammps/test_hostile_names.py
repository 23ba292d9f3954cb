"""Names in a file that would move the cursor or forge lines of a log are shown with escapes."""

from __future__ import annotations

import json
import subprocess
import zipfile
from pathlib import Path

import forks
import pytest
import torch
from archives import rewrite, with_json

HOSTILE = "\x1b[31m\nERROR\r\x07\x7f\x9b2J\u202e\u2028\U000e0041"
SHOWN = r"\x1b[31m\nERROR\r\x07\x7f\x9b2J\u202e\u2028\U000e0041"

# argv: a folder of files; what LAMMPS says of each goes to a log with its name
RUNNER = """
import sys
from pathlib import Path
import tdn_lammps

for file in sorted(Path(sys.argv[1]).glob("*.tdn.*")):
    lmp = tdn_lammps.lammps(cmdargs=["-screen", "none", "-log", f"{file}.log", "-nocite"])
    lmp.commands_string("units metal\\nregion box block 0 9 0 9 0 9\\ncreate_box 2 box\\nmass * 1")
    lmp.command("pair_style tdn")
    try:
        lmp.command(f"pair_coeff * * '{file}' H O")
    except Exception:
        pass
    lmp.close()
"""


def test_hostile_names(plugin: Path, models: Path, tmp_path: Path) -> None:
    good = models / "toy1.tdn.pth"

    def metadata(name: str, **changes) -> None:
        """A file with other metadata; the name says what its log has to say."""
        with_json(good, tmp_path / f"{name}.tdn.pth", **changes)

    def longer(name: str, entries: bytes) -> None:
        """A file whose metadata have more entries, as text."""

        def change(member: str, content: bytes) -> bytes:
            if member != "extra/metadata.json":
                return content
            return content[:-1] + b", " + entries + b"}"

        rewrite(good, tmp_path / f"{name}.tdn.pth", change)

    metadata("knows", species=["H", HOSTILE])
    metadata("reproduced", architecture=HOSTILE, tdn_version=HOSTILE)
    metadata("format", format=HOSTILE)
    metadata("at least", format_version=9, tdn_version=HOSTILE)
    metadata("units", units={"energy": HOSTILE, "length": "angstrom"})
    metadata("forces", forces=HOSTILE)
    metadata("dtype", dtype=[HOSTILE])
    metadata("device", target={"device": HOSTILE, "processor": HOSTILE, "torch": HOSTILE})
    key = json.dumps({HOSTILE: 1})[1:-1].encode()
    longer("the key", key + b", " + key)
    longer("last read", b'"' + HOSTILE.encode() + b'": 1')

    # names of parts, those of machine code included
    with zipfile.ZipFile(good) as archive:
        top = archive.namelist()[0].partition("/")[0]
    for name in ("is there twice", "check sum"):
        path = rewrite(good, tmp_path / f"{name}.tdn.pth", lambda member, content: content)
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr(zipfile.ZipInfo(f"{top}/{HOSTILE}"), "content")
            if name == "is there twice":
                with pytest.warns(UserWarning, match="Duplicate name"):
                    archive.writestr(zipfile.ZipInfo(f"{top}/{HOSTILE}"), "content")
    path.write_bytes(path.read_bytes().replace(b"content", b"contend"))
    release = ".".join(torch.__version__.split(".")[:2])
    target = {"device": "cpu", "processor": "DEFAULT", "torch": release}
    metadata("machine", target=target)
    (tmp_path / "machine.tdn.pth").rename(path := tmp_path / "has no place.tdn.pt2")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(zipfile.ZipInfo(f"{top}/data/aotinductor/{HOSTILE}/.x"), "content")

    result = subprocess.run(
        [forks.python(), "-c", RUNNER, tmp_path], capture_output=True, text=True, timeout=120
    )
    assert result.returncode == 0, result.stderr
    logs = list(tmp_path.glob("*.log"))
    assert len(logs) == 13
    for log in logs:
        text = log.read_bytes().decode()
        assert not [c for c in text if c not in "\n\t" and not c.isprintable()], log.name
        assert text.count("\nERROR") == (log.name.partition(".")[0] != "reproduced"), text
        assert log.name.partition(".")[0] in text, text
        if not log.name.startswith(("last read", "dtype")):
            assert SHOWN in text, text
