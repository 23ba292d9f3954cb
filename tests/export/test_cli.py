"""The command line `tdn-export`: exit codes, messages, files left behind."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import ase.io
import pytest
import torch
from structures import STRUCTURES

import tdn_export.exporter
from tdn.network.checkpoint import save_model
from tdn.system.errors import TDNError, UsageError
from tdn_export import check, export_model, inspect, load_compiled
from tdn_export.cli import main
from tdn_export.deployed import deployed_network
from tdn_export.exporter import default_output
from tdn_export.verify import Deviation, check_symmetries, compare, verify


@pytest.fixture
def checkpoint(tmp_path, export):
    """A copy of a small checkpoint in a folder of its own."""
    path = tmp_path / "model.pt"
    path.write_bytes(export("scalars").checkpoint.read_bytes())
    return path


def one_line(capsys) -> str:
    """The error that a command printed, which must be one line; progress may stand before it."""
    lines = capsys.readouterr().err.strip().splitlines()
    assert lines[-1].startswith("tdn-export: error: ")
    assert all(line.endswith(" ...") for line in lines[:-1])
    return lines[-1]


def test_export_inspect_check(checkpoint, tmp_path, capsys):
    frames = tmp_path / "frames.xyz"
    ase.io.write(frames, [STRUCTURES["cluster"](), STRUCTURES["slab"]()])
    assert main([str(checkpoint), "--verify", str(frames)]) == 0
    output = capsys.readouterr()
    compiled = tmp_path / "model.tdn.pth"
    for expected in ("H O", "4 A", "receptive field  8 A", "rank 1,", "19 checks passed"):
        assert expected in output.out
    for step in ("reading", "computing the reference", "compiling", "verifying"):
        assert step in output.err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["frames.xyz", "model.pt", compiled.name]

    assert main(["--inspect", str(compiled)]) == 0
    assert "H O" in capsys.readouterr().out
    assert main(["--inspect", str(compiled), "--json"]) == 0
    metadata = json.loads(capsys.readouterr().out)
    assert metadata == inspect(compiled) == load_compiled(compiled).metadata
    assert main(["--check", str(compiled)]) == 0
    assert "agrees with its reference" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["model.pt", "--inspect", "x"],
        ["--inspect", "x", "--check", "x"],
        ["--inspect", "x", "--dtype", "float32"],
        ["--check", "x", "--json"],
        ["model.pt", "-o", "model.pth"],
        ["model.pt", "--device", "gpu"],
    ],
)
def test_usage_errors(arguments, capsys):
    assert main(arguments) == 2
    one_line(capsys)


def test_unknown_options_exit_with_2(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["model.pt", "--dtype", "float16"])
    assert stop.value.code == 2


@pytest.mark.parametrize(
    "name, content, expected",
    [
        ("none.pt", None, "not found"),
        ("text.pt", b"units metal\n", "foreign or cut short"),
        ("empty.pt", b"", "foreign or cut short"),
    ],
)
def test_bad_checkpoints(tmp_path, capsys, name, content, expected):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    before = list(tmp_path.iterdir())
    assert main([str(path)]) == 1
    assert expected in one_line(capsys)
    assert list(tmp_path.iterdir()) == before


def test_truncated_checkpoint(checkpoint, capsys):
    checkpoint.write_bytes(checkpoint.read_bytes()[:-200])
    assert main([str(checkpoint)]) == 1
    assert "cut short" in one_line(capsys)


def test_compiled_file_as_checkpoint(export, tmp_path, capsys):
    assert main([str(export().path), "-o", str(tmp_path / "x.tdn.pth")]) == 1
    assert "is a compiled file; expected a checkpoint" in one_line(capsys)


def test_checkpoint_as_compiled_file(checkpoint, capsys):
    for option in ("--inspect", "--check"):
        assert main([option, str(checkpoint)]) == 1
        assert f"run `tdn-export {checkpoint}` first" in one_line(capsys)


def test_nan_weights(export, tmp_path, capsys):
    made = export("scalars")
    model = tdn_export.exporter.load_model(made.checkpoint)[0]
    with torch.no_grad():
        next(model.parameters()).view(-1)[0] = float("nan")
    save_model(tmp_path / "model.pt", model, {})
    assert main([str(tmp_path / "model.pt")]) == 1
    assert "weight 'embedding' contains NaN" in one_line(capsys)
    assert [p.name for p in tmp_path.iterdir()] == ["model.pt"]


def test_unwritable_output(checkpoint, tmp_path, capsys):
    assert main([str(checkpoint), "-o", str(tmp_path / "no" / "m.tdn.pth")]) == 1
    assert "does not exist" in one_line(capsys)
    (tmp_path / "folder.tdn.pth").mkdir()
    assert main([str(checkpoint), "-o", str(tmp_path / "folder.tdn.pth")]) == 1
    assert "it is a folder" in one_line(capsys)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_missing_device(checkpoint, capsys):
    assert main([str(checkpoint), "--device", "cuda"]) == 2
    assert "has 0 usable CUDA devices" in one_line(capsys)


def test_frames_to_verify(checkpoint, tmp_path, capsys):
    frames = tmp_path / "frames.xyz"
    assert main([str(checkpoint), "--verify", str(frames)]) == 1
    assert "not found" in one_line(capsys)
    frames.write_text("no structure\n")
    assert main([str(checkpoint), "--verify", str(frames)]) == 1
    assert "frames.xyz cannot be read" in one_line(capsys)
    ase.io.write(frames, ase.Atoms("HO", positions=[[0, 0, 1.2], [0, 0, 1.2]]))
    assert main([str(checkpoint), "--verify", str(frames)]) == 1
    assert "frame 1 of frames.xyz: two atoms are at the same place" in one_line(capsys)
    ase.io.write(frames, ase.Atoms("H", positions=[[0, 0, float("nan")]]))
    assert main([str(checkpoint), "--verify", str(frames)]) == 1
    assert "frame 1 of frames.xyz: positions or cell contain NaN" in one_line(capsys)
    ase.io.write(frames, ase.Atoms("CO", positions=[[0, 0, 0], [0, 0, 1.2]]))
    assert main([str(checkpoint), "--verify", str(frames)]) == 1
    assert "contains C" in one_line(capsys)


def test_failed_verification_keeps_the_older_file(checkpoint, tmp_path, capsys, monkeypatch):
    output = tmp_path / "model.tdn.pth"
    output.write_text("older")

    def fail(*args):
        raise TDNError("the compiled network fails the check 'rotation'; no file was written")

    monkeypatch.setattr(tdn_export.exporter, "verify", fail)
    assert main([str(checkpoint)]) == 1
    assert "fails the check" in one_line(capsys)
    assert output.read_text() == "older"
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("fused", [True, False])
def test_verification_notices_another_network(export, fused):
    """A change of one part in 10^8 in one tensor of the eager network must not pass."""
    made = export("scalars", fused=fused)
    compiled = load_compiled(made.path)
    other = tdn_export.exporter.load_model(made.checkpoint)[0]
    assert all(d.passed for d in verify([deployed_network(other, fused)[0]], compiled))
    with torch.no_grad():
        other.readouts[-1].weight.mul_(1 + 1e-8)
    with pytest.raises(TDNError, match=r"fails the check .* no file was written"):
        verify([deployed_network(other, fused)[0]], compiled)


def test_verification_notices_wrong_tables(export):
    """The deployed network and the compiled one agree, but neither with the checkpoint."""
    made = export("scalars")
    compiled = load_compiled(made.path)
    original = tdn_export.exporter.load_model(made.checkpoint)[0]
    deployed = deployed_network(original, True)[0]
    verify([deployed], compiled, originals=[original])
    with torch.no_grad():
        for network in (deployed, compiled.module.model):
            network.first.table.mul_(1 + 1e-6)
    verify([deployed], compiled)
    with pytest.raises(TDNError, match=r"fails the check '.*, without tables'"):
        verify([deployed], compiled, originals=[original])


@pytest.mark.parametrize("fused", [True, False])
def test_verification_notices_a_broken_symmetry(export, fused):
    """Changed CP factors break rotations, which eager against compiled cannot see."""
    made = export("default", fused=fused)
    compiled = load_compiled(made.path)
    model = deployed_network(tdn_export.exporter.load_model(made.checkpoint)[0], fused)[0]
    name = "layers.0.input1" if fused else "layers.1.convolution.factors.input1"
    for network in (model, compiled.module.model):
        buffers = dict(network.named_buffers())
        with torch.no_grad():
            buffers[name][2] *= 1 + 1e-6
    cluster = {"cluster": STRUCTURES["cluster"]()}
    assert all(d.passed for d in compare([model], compiled, cluster))
    failed = [d.name for d in check_symmetries([model], compiled) if not d.passed]
    assert "rotation" in failed


def test_not_a_number_never_passes():
    nan = float("nan")
    assert not Deviation("x", 3, nan, 0.0, 0.0, 1e-10).passed
    assert not Deviation("x", 3, 0.0, nan, 0.0, 1e-10).passed
    assert Deviation("x", 3, 0.0, 0.0, 0.0, 1e-10).passed


def test_functions(checkpoint, tmp_path):
    assert default_output("a/model.pt").name == "model.tdn.pth"
    assert default_output("a/model").name == "model.tdn.pth"
    report = export_model(checkpoint, dtype="float32")
    assert report.path == tmp_path / "model.tdn.pth"
    assert report.metadata["dtype"] == "float32"
    assert report.size == report.path.stat().st_size
    deviations, tolerance = check(report.path)
    assert all(deviations[name] <= tolerance[name] for name in deviations)
    with pytest.raises(UsageError, match="expected float32 or float64"):
        export_model(checkpoint, dtype="half")


def test_full_disk_leaves_nothing_behind(checkpoint, tmp_path, capsys, monkeypatch):
    """A disk that fills up in the middle of the file; an older file stays."""
    output = tmp_path / "model.tdn.pth"
    output.write_text("older")
    write_bytes = Path.write_bytes

    def fill(self, data):
        write_bytes(self, data[: len(data) // 2])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", fill)
    assert main([str(checkpoint)]) == 1
    message = one_line(capsys)
    assert "cannot write" in message and "No space left on device" in message
    assert output.read_text() == "older"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.pt", "model.tdn.pth"]


def test_unknown_backend(checkpoint, capsys):
    assert main([str(checkpoint), "--backend", "onnx"]) == 2
    assert "backend is 'onnx', expected torchscript or aotinductor" in one_line(capsys)


def test_suffix_belongs_to_the_backend(checkpoint, tmp_path, capsys):
    output = str(tmp_path / "model.tdn.pt2")
    assert main([str(checkpoint), "-o", output]) == 2
    assert "expected a name that ends with .tdn.pth" in one_line(capsys)
    assert default_output("model.pt", "aotinductor").name == "model.tdn.pt2"


def test_fused_is_noted(checkpoint, tmp_path, capsys):
    for arguments, fused in (([], True), (["--no-fused"], False)):
        output = tmp_path / "m.tdn.pth"
        assert main([str(checkpoint), "-o", str(output), *arguments]) == 0
        metadata = inspect(output)
        assert metadata["fused"] is fused
        assert fused or metadata["radial_table_error"] is None
    capsys.readouterr()


def test_export_options_go_with_a_checkpoint_only(export, capsys):
    for option in (["--no-fused"], ["--direct-forces"], ["--backend", "aotinductor"]):
        assert main(["--inspect", str(export().path), *option]) == 2
        assert f"{option[0]} does not go with --inspect" in one_line(capsys)
