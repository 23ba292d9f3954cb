"""Wrong, damaged and foreign files: one clear line each, as a user meets them."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from archives import rewrite, with_json

from tdn.inference.calculator import TDNCalculator
from tdn.inference.compiled_file import FORMAT_VERSION, MAX_JSON_BYTES
from tdn.inference.compiled_model import load_compiled, read_extra_files
from tdn.inference.torchscript import quiet
from tdn.network.checkpoint import load_model
from tdn.system.errors import TDNError


def fails(path: Path) -> str:
    """The one line with which loading fails."""
    with pytest.raises(TDNError) as error:
        load_compiled(path)
    message = str(error.value)
    assert "\n" not in message
    assert str(path) in message
    return message


def test_rewritten_archive_loads(export, tmp_path):
    """The changes below fail for their own reason, not because the archive was rewritten."""
    load_compiled(rewrite(export().path, tmp_path / "same.tdn.pth", lambda name, content: content))


def test_missing_file(tmp_path):
    assert "not found" in fails(tmp_path / "model.tdn.pth")


def test_folder(tmp_path):
    assert "is a folder" in fails(tmp_path)


@pytest.mark.parametrize("content", [b"", b"units metal\n", bytes(range(256)) * 20])
def test_no_archive(tmp_path, content):
    path = tmp_path / "model.tdn.pth"
    path.write_bytes(content)
    message = fails(path)
    assert "is not a compiled file of TDN" in message
    assert "tdn-export" in message


@pytest.mark.parametrize("part", [0.1, 0.5, 0.99])
def test_truncated(export, tmp_path, part):
    path = tmp_path / "model.tdn.pth"
    content = export().path.read_bytes()
    path.write_bytes(content[: int(part * len(content))])
    assert "cut short" in fails(path)


@pytest.mark.parametrize("stored", [True, False])
def test_flipped_bits(export, tmp_path, stored):
    """Weights are stored as they are, code is compressed: both are noticed before anything runs."""
    path = tmp_path / "model.tdn.pth"
    content = bytearray(export().path.read_bytes())
    with zipfile.ZipFile(export().path) as archive:
        kind = [i for i in archive.infolist() if (i.compress_type == zipfile.ZIP_STORED) == stored]
        largest = max(kind, key=lambda item: item.compress_size)
    content[largest.header_offset + largest.compress_size // 2] ^= 0xFF
    path.write_bytes(content)
    assert "is damaged" in fails(path)


def test_checkpoint_instead_of_compiled_file(export):
    message = fails(export().checkpoint)
    assert f"run `tdn-export {export().checkpoint}` first" in message


def test_compiled_file_instead_of_checkpoint(export):
    with pytest.raises(TDNError, match="is a compiled file; expected a checkpoint"):
        load_model(export().path)


def test_foreign_zip(tmp_path):
    path = tmp_path / "model.tdn.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")
    assert "foreign zip file" in fails(path)


def test_foreign_torchscript(tmp_path):
    path = tmp_path / "model.tdn.pth"
    with quiet():
        torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), path)
    assert "TorchScript file of another program" in fails(path)


def test_newer_format_names_the_version_needed(export, tmp_path):
    path = with_json(
        export().path,
        tmp_path / "m.tdn.pth",
        "metadata.json",
        format_version=FORMAT_VERSION + 1,
        tdn_version="9.1",
    )
    message = fails(path)
    assert f"format version {FORMAT_VERSION + 1}, this tdn reads up to {FORMAT_VERSION}" in message
    assert "install tdn 9.1 or newer" in message


@pytest.mark.parametrize(
    "change, expected",
    [
        ({"format": "other"}, "format is 'other'"),
        ({"format_version": "one"}, "format version one"),
        ({"r_max": None}, "metadata 'r_max' is None"),
        ({"species": "H O"}, "metadata 'species'"),
        ({"species": ["H"]}, "1 species but has 2 atomic numbers"),
        ({"units": {"energy": "Ry", "length": "bohr"}}, "units are"),
    ],
)
def test_wrong_metadata(export, tmp_path, change, expected):
    path = with_json(export().path, tmp_path / "m.tdn.pth", "metadata.json", **change)
    assert expected in fails(path)


def test_other_reference_is_refused(export, tmp_path):
    forces = read_extra_files(export().path)[1]["forces"]
    forces[0][0] += 1e-3
    path = with_json(export().path, tmp_path / "m.tdn.pth", "reference.json", forces=forces)
    message = fails(path)
    assert "reference forces differs by 0.001 eV/angstrom" in message
    assert load_compiled(path, check=False).r_max == 4.0


@pytest.mark.parametrize(
    "change",
    [
        {"forces": [[0.0, 0.0]]},
        {"species": [0, 1, 99]},
        {"edge_index": "none"},
        {"tolerance": {}},
        {"tolerance": {"energy": float("nan"), "forces": 1.0, "virial": 1.0}},
    ],
)
def test_senseless_reference(export, tmp_path, change):
    path = with_json(export().path, tmp_path / "m.tdn.pth", "reference.json", **change)
    fails(path)


def test_no_json_and_too_much_of_it(export, tmp_path):
    def change(content: bytes) -> Callable[[str, bytes], bytes]:
        return lambda name, old: content if name == "extra/metadata.json" else old

    path = tmp_path / "m.tdn.pth"
    for text in (b"{", b"[1]", b"\xff\xfe", b"[" * 100_000):
        rewrite(export().path, path, change(text))
        assert "metadata.json is not valid JSON" in fails(path)
    rewrite(export().path, path, change(b" " * (MAX_JSON_BYTES + 1)))
    assert "bytes, expected at most" in fails(path)


def test_damaged_code(export, tmp_path):
    def change(name: str, content: bytes) -> bytes:
        return b"class X:\n  nonsense" if name.endswith("deployed.py") else content

    path = rewrite(export().path, tmp_path / "m.tdn.pth", change)
    assert "cannot be loaded by PyTorch" in fails(path)


def test_missing_member(export, tmp_path):
    path = rewrite(
        export().path, tmp_path / "m.tdn.pth", lambda n, c: None if n == "data.pkl" else c
    )
    assert "foreign zip file" in fails(path)


def test_calculator_gives_the_same_lines(export, tmp_path):
    path = tmp_path / "model.tdn.pth"
    with pytest.raises(TDNError, match="not found"):
        TDNCalculator(path)
    path.write_text("pair_style tdn\n")
    with pytest.raises(TDNError, match="is not a compiled file of TDN"):
        TDNCalculator(path)
    checkpoint = tmp_path / "model.pt"
    checkpoint.write_text("pair_style tdn\n")
    with pytest.raises(TDNError, match="foreign or cut short"):
        TDNCalculator(checkpoint)
    with pytest.raises(TDNError, match="compiled in float64, asked for is float32"):
        TDNCalculator(export().path, dtype="float32")


FRESH_PROCESS = """
import json, sys, warnings
import torch
import tdn.ops  # registers torch.ops.tdn, nothing else
warnings.simplefilter("ignore")
extra = {"metadata.json": "", "reference.json": ""}
module = torch.jit.load(sys.argv[1], _extra_files=extra)
stored = json.loads(extra["reference.json"])
energy, gradient = module(
    torch.tensor(stored["species"]),
    torch.tensor(stored["edge_index"]),
    torch.tensor(stored["edge_vec"], dtype=torch.float64),
    stored["num_local"],
)
error = (energy - torch.tensor(stored["atom_energy"], dtype=torch.float64)).abs().max().item()
assert error <= stored["tolerance"]["energy"], error
network = ("tdn.network.convolution_model", "tdn_export")
loaded = [m for m in sys.modules if m.split(".")[0] == "e3nn" or m in network]
print(error, len(stored["species"]), loaded)
"""


@pytest.mark.slow
def test_opens_in_a_process_that_knows_only_the_operators(export):
    result = subprocess.run(
        [sys.executable, "-c", FRESH_PROCESS, str(export().path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.split(maxsplit=2)[1:] == ["12", "[]\n"]
