"""Finding and building the library: stamps, locks and error lines."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tdn import ops
from tdn.ops import build, cli, cuda_toolkit
from tdn.system.errors import TDNError
from tdn.system.paths import OPS_LIBRARY

PROBE = """
import torch
from tdn import ops
edges = ops.sort_edges(torch.zeros(2, 1, dtype=torch.int64), 1, 1)
x = torch.ones(1, 1, 1, requires_grad=True)
a = torch.jit.script(ops.cp_message)(x, x, x, edges)
torch.autograd.grad(a.sum(), x)
print(ops.is_compiled(), ops.library_path(), a.item(), ops.exchange(x, 1).item())
"""


def edit_stamp(folder: Path, **changes: str) -> None:
    path = folder / build.STAMP_NAME
    stamp = json.loads(path.read_text()) | changes
    path.unlink()
    path.write_text(json.dumps(stamp))


def test_library_in_use(compiled):
    assert ops.is_compiled()
    assert ops.library_path() == build.ops_library()
    assert build.library_problem() == ""


def test_nothing_to_do_when_up_to_date(library_copy, monkeypatch):
    monkeypatch.setattr(build, "run_cmake", lambda *_, **__: pytest.fail("built again"))
    assert build.build_ops() == library_copy / OPS_LIBRARY


@pytest.mark.slow
def test_other_libraries_are_not_used(library_copy):
    for changes, line in (
        ({"sources": "0"}, "was built from another version of the sources"),
        ({"torch": "1.0"}, "was built for torch 1.0, this is torch"),
    ):
        edit_stamp(library_copy, **changes)
        assert build.ops_library() is None
        assert line in build.library_problem()
    result = subprocess.run(
        [sys.executable, "-c", PROBE], capture_output=True, text=True, check=True
    )
    assert result.stdout.split() == ["False", "None", "1.0", "1.0"]
    assert result.stderr.count("the fused operators of tdn run as slow reference code") == 1
    assert line in result.stderr
    assert "tdn-ops build" in result.stderr


def test_damaged_library_is_not_loaded(library_copy):
    library = library_copy / OPS_LIBRARY
    library.write_bytes(library.read_bytes()[:1000])
    assert build.ops_library() is None
    assert build.library_problem() == f"{library} is damaged"


def test_broken_stamp_counts_as_none(library_copy):
    (library_copy / build.STAMP_NAME).unlink()
    assert build.ops_library() is None
    (library_copy / build.STAMP_NAME).write_text("[")
    assert build.ops_library() is None
    assert "built for torch an unknown version" in build.library_problem()


def test_another_compiler_means_another_build(library_copy, monkeypatch):
    calls = []

    def run_cmake(source_dir, build_dir, defines, verbose=False):
        calls.append(defines)
        (build_dir / OPS_LIBRARY).write_text("new")

    edit_stamp(library_copy, compiler="an older one")
    assert build.ops_library() is not None  # still usable
    monkeypatch.setattr(build, "run_cmake", run_cmake)
    build.build_ops()
    assert calls == [build.torch_defines() | cuda_toolkit.choose_cuda("auto").defines]
    assert (library_copy / OPS_LIBRARY).read_text() == "new"
    assert build.read_stamp()["compiler"] == build.compiler_version()
    assert {p.name for p in library_copy.iterdir()} == {
        OPS_LIBRARY,
        build.STAMP_NAME,
        ".lock",
    }


def test_missing_tools(monkeypatch, tmp_path):
    monkeypatch.setattr(build.shutil, "which", lambda _: None)
    with pytest.raises(TDNError, match="pip install cmake"):
        build.find_cmake()
    with pytest.raises(TDNError, match="no C\\+\\+ compiler found"):
        build.compiler_version()


def test_failed_build_names_the_error(compiled, monkeypatch, tmp_path):
    monkeypatch.setenv("TDN_LIB_DIR", str(tmp_path / "lib"))
    (tmp_path / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.18)\nproject(x NONE)\nmessage(FATAL_ERROR broken)\n"
    )
    with pytest.raises(TDNError, match=r"failed: CMake Error.*build\.log\)$"):
        build.run_cmake(tmp_path, tmp_path / "build", {})
    assert "broken" in (tmp_path / "lib" / "build.log").read_text()


def test_folder_that_cannot_be_written(compiled, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TDN_LIB_DIR", str(tmp_path / "file"))
    with pytest.raises(TDNError, match="name another folder in the environment variable"):
        build.build_ops()


def test_command(library_copy, capsys):
    assert cli.main(["build"]) == 0
    assert capsys.readouterr().out.strip() == str(library_copy / OPS_LIBRARY)
    assert cli.main(["info"]) == 0
    output = capsys.readouterr().out
    assert str(library_copy) in output
    assert torch.__version__ in output
    assert torch.ops.tdn.cpu_capability() in output
    edit_stamp(library_copy, torch="1.0")
    assert cli.main(["info"]) == 0
    assert "was built for torch 1.0" in capsys.readouterr().out


def test_every_source_is_in_the_stamp(monkeypatch, tmp_path):
    shutil.copytree(build.SOURCE_DIR, tmp_path / "csrc")
    monkeypatch.setattr(build, "SOURCE_DIR", tmp_path / "csrc")
    before = build.source_hash()
    for path in (p for p in (tmp_path / "csrc").rglob("*") if p.is_file()):
        text = path.read_text()
        path.write_text(text + "\n")
        assert build.source_hash() != before, path
        path.write_text(text)
