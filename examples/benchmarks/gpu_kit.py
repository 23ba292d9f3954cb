"""Collect what a machine with a GPU and no network lacks (``make gpu-kit``).

    python examples/benchmarks/gpu_kit.py
    python examples/benchmarks/gpu_kit.py --python 3.12 --torch 2.11.0 --library FOLDER

One compressed archive, which gpu_check.py unpacks there: wheels for that Python, LAMMPS and its MPI
library without what pair_style tdn does not need, and on request operators that are compiled
already and training data. Expected there are PyTorch and what comes with it, a compiler, CMake and
nvcc. Needs pip, its package index and `packaging`.
"""

from __future__ import annotations

import argparse
import fnmatch
import io
import json
import lzma
import re
import subprocess
import sys
import tarfile
import time
from email.parser import HeaderParser
from pathlib import Path
from tempfile import TemporaryDirectory
from zipfile import ZIP_STORED, ZipFile

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name, parse_wheel_filename

ROOT = Path(__file__).parents[2]
ARCHIVE = "kit.tar.xz"
LIMIT = 60.0  # MB, of the archive
# what the package needs and a Python with PyTorch may lack; those of pytest's run beside them
PACKAGES = (
    *("ase", "e3nn", "lmdb", "nlohmann-json", "pyyaml", "setuptools", "shtab", "tqdm", "vesin"),
    *("opt-einsum", "opt-einsum-fx"),
    *("pytest", "pytest-xdist", "execnet", "iniconfig", "packaging", "pluggy", "pygments"),
    "mpich",
)
# what is expected there: too large to carry, or part of PyTorch
THERE = {"torch", "numpy", "scipy", "matplotlib", "sympy", "jinja2", "typing-extensions"}
# only read by tools that nothing here uses
UNUSED = {"importlib-resources"}
# files of wheels that are left behind, by package: potentials, examples, tools; a second MPI ABI
LEFT_OUT = {
    "lammps": ("lammps/share/*", "lammps/phana", "lammps/msi2lmp", "lammps/reformat-json"),
    "mpich": ("*/libmpi_abi*", "*/mpi_abi.h"),
}
LIBRARY_FILES = ("libtdn_ops.so", "libtdn_ops.json")
DATA_FILES = ("train_300K.xyz", "isolated_atoms.xyz")


class KitError(Exception):
    """What is wrong, in one line."""


def lammps_requirement() -> str:
    """The version of LAMMPS that the package asks for, without extras."""
    found = re.search(r'"lammps\[mpi\](==[\d.]+)"', (ROOT / "pyproject.toml").read_text())
    return f"lammps{found[1]}"


def download(python: str, folder: Path) -> list[Path]:
    """Wheels for that Python on Linux, without their needs, which `missing` checks."""
    tags = [f"manylinux_2_{n}_x86_64" for n in range(35, 4, -1)]
    tags += ["manylinux2014_x86_64", "manylinux2010_x86_64", "manylinux1_x86_64"]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    command += ["--no-deps", "--only-binary=:all:", "--implementation", "cp"]
    command += ["--python-version", python, "--dest", str(folder)]
    for tag in tags:
        command += ["--platform", tag]
    command += [*PACKAGES, lammps_requirement()]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        raise KitError(f"pip found no wheels: {lines[-1] if lines else done.stderr[-300:]}")
    return sorted(folder.glob("*.whl"))


def name_of(wheel: Path) -> str:
    return parse_wheel_filename(wheel.name)[0]


def missing(wheels: list[Path], python: str) -> list[str]:
    """What some wheel needs and neither the kit nor `THERE` has, each with who asks for it."""
    have = {name_of(wheel) for wheel in wheels} | THERE | UNUSED
    environment = {"python_version": python, "python_full_version": f"{python}.0", "extra": ""}
    environment |= {"sys_platform": "linux", "platform_system": "Linux", "os_name": "posix"}
    found = []
    for wheel in wheels:
        with ZipFile(wheel) as archive:
            inside = next(
                n for n in archive.namelist() if fnmatch.fnmatch(n, "*.dist-info/METADATA")
                and n.count("/") == 1
            )  # fmt: skip
            metadata = HeaderParser().parsestr(archive.read(inside).decode())
        for text in metadata.get_all("Requires-Dist") or []:
            need = Requirement(text)
            if need.marker is not None and not need.marker.evaluate(environment):
                continue
            if canonicalize_name(need.name) not in have:
                found.append(f"{need.name} (for {name_of(wheel)})")
    return found


def repack(wheel: Path, target: Path, left_out: tuple[str, ...] = ()) -> None:
    """Copy a wheel without some files and without compression, which the archive has.

    The list of files inside a wheel (RECORD) is shortened alike, so that pip installs it.
    """
    with ZipFile(wheel) as old, ZipFile(target, "w", ZIP_STORED) as new:
        for item in old.infolist():
            if any(fnmatch.fnmatch(item.filename, pattern) for pattern in left_out):
                continue
            content = old.read(item)
            if fnmatch.fnmatch(item.filename, "*.dist-info/RECORD"):
                lines = content.decode().splitlines(keepends=True)
                content = "".join(
                    line
                    for line in lines
                    if not any(fnmatch.fnmatch(line.split(",")[0], p) for p in left_out)
                ).encode()
            item.compress_type = ZIP_STORED
            new.writestr(item, content)


def check_library(folder: Path, torch: str) -> dict[str, str]:
    """What compiled operators were built from.

    Raises
    ------
    KitError
        If there are none, or they are for another PyTorch or for no GPU.
    """
    try:
        stamp = json.loads((folder / LIBRARY_FILES[1]).read_text())
    except (OSError, ValueError):
        raise KitError(f"--library {folder}: no {' and '.join(LIBRARY_FILES)} there") from None
    found = stamp.get("torch", "unknown")
    if found.partition("+")[0] != torch:
        raise KitError(f"--library {folder}: built for torch {found}, expected {torch}")
    if stamp.get("cuda", "none").startswith("none"):
        raise KitError(f"--library {folder}: has no kernels for GPUs ({stamp.get('cuda')})")
    return stamp


def write_archive(folder: Path, path: Path) -> None:
    """Compress a folder. The window is large, since LAMMPS's library is in its wheel twice."""
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 6, "dict_size": 96 << 20}]
    temporary = path.with_suffix(".tmp")
    with lzma.open(temporary, "wb", filters=filters) as stream:
        with tarfile.open(fileobj=stream, mode="w") as archive:
            archive.add(folder, arcname=".")
    temporary.rename(path)


def collect(arguments: argparse.Namespace) -> Path:
    """Make the archive; returns its path."""
    manifest = {
        "python": arguments.python,
        "torch": arguments.torch,
        "cuda": arguments.cuda,
        "date": time.strftime("%Y-%m-%d"),
    }
    with TemporaryDirectory() as temporary:
        downloads, content = Path(temporary, "downloads"), Path(temporary, "kit")
        (content / "wheels").mkdir(parents=True)
        if arguments.library is not None:
            manifest["library"] = check_library(arguments.library, arguments.torch)
            (content / "library").mkdir()
            for name in LIBRARY_FILES:
                (content / "library" / name).write_bytes((arguments.library / name).read_bytes())
        if arguments.data is not None:
            (content / "data").mkdir()
            for name in DATA_FILES:
                if not (arguments.data / name).is_file():
                    raise KitError(f"--data {arguments.data}: expected {' and '.join(DATA_FILES)}")
                (content / "data" / name).write_bytes((arguments.data / name).read_bytes())
        wheels = download(arguments.python, downloads)
        lacking = missing(wheels, arguments.python)
        if lacking:
            raise KitError(f"the kit lacks {', '.join(lacking)}: add it to PACKAGES or THERE")
        manifest["packages"] = dict(w.name.split("-")[:2] for w in wheels)
        for wheel in wheels:
            repack(wheel, content / "wheels" / wheel.name, LEFT_OUT.get(name_of(wheel), ()))
        (content / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")
        arguments.output.mkdir(parents=True, exist_ok=True)
        path = arguments.output / ARCHIVE
        write_archive(content, path)
    megabytes = path.stat().st_size / 1e6
    if megabytes > LIMIT:
        raise KitError(f"{path} has {megabytes:.1f} MB, expected at most {LIMIT:g}")
    print(f"{path}: {megabytes:.1f} MB, for Python {arguments.python}, torch {arguments.torch}")
    return path


def read_manifest(archive: Path) -> dict:
    """What a kit holds and what for."""
    with tarfile.open(archive) as content:
        return json.load(io.TextIOWrapper(content.extractfile("./manifest.json")))


def _version(text: str) -> str:
    parts = text.split(".")
    if len(parts) < 2 or not all(part.isdigit() for part in parts):
        raise argparse.ArgumentTypeError(f"'{text}': expected a version such as 3.12")
    return text


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--python", default="3.12", type=_version, help="there (default 3.12)")
    parser.add_argument("--torch", default="2.11.0", type=_version, help="there (default 2.11.0)")
    parser.add_argument("--cuda", default="13", help="major version, of nvcc and PyTorch there")
    parser.add_argument("--library", type=Path, help="take along the operators of this TDN_LIB_DIR")
    parser.add_argument("--data", type=Path, help="take along acetylacetone, for training.py")
    parser.add_argument("--output", type=Path, default=ROOT / "build" / "gpu_kit")
    try:
        collect(parser.parse_args())
    except KitError as error:
        print(f"gpu_kit.py: error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
