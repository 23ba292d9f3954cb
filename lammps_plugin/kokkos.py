"""Which folder has the build of LAMMPS with KOKKOS that pair_style tdn/kk is compiled for."""

from __future__ import annotations

import re
from pathlib import Path

from tdn.system.errors import TDNError

# the interfaces of KOKKOS changed before this release
OLDEST = "20260704"
OTHER_GPU_BACKENDS = ("HIP", "SYCL", "OPENMPTARGET", "OPENACC")


def kokkos_build(source: str | Path, version: str, folder: str | Path = "") -> Path:
    """The folder where CMake has built a LAMMPS with KOKKOS.

    Parameters
    ----------
    source : tree of LAMMPS
    version : its version, YYYYMMDD
    folder : where it was built; by default looked for in the tree

    Raises
    ------
    TDNError
        If LAMMPS is too old, or there is no such build, or several, or one for other GPUs than
        those of NVIDIA or not in double precision.
    """
    if version < OLDEST:
        raise TDNError(f"--kokkos: found LAMMPS {version}, expected {OLDEST} or newer")
    if folder:
        candidates = [Path(folder).expanduser().absolute() / "CMakeCache.txt"]
    else:
        candidates = sorted(Path(source).expanduser().absolute().glob("*/CMakeCache.txt"))
    builds = [(path.parent, entries) for path in candidates if (entries := cmake_cache(path))]
    found = [(build, entries) for build, entries in builds if _is_on(entries, "PKG_KOKKOS")]
    if len(found) != 1:
        what = ", ".join(str(build) for build, _ in found) or "none"
        raise TDNError(
            f"--kokkos: found {what} in {folder or source}, expected one folder where CMake has "
            "built LAMMPS with -D PKG_KOKKOS=on; name it with --kokkos DIR"
        )
    build, entries = found[0]
    for backend in OTHER_GPU_BACKENDS:
        if _is_on(entries, f"Kokkos_ENABLE_{backend}"):
            raise TDNError(
                f"--kokkos: {build} has Kokkos_ENABLE_{backend}, and pair_style tdn/kk is for the "
                "CPU backends and CUDA; build without --kokkos and use pair_style tdn, also with "
                "-k on -sf kk"
            )
    precision = entries.get("KOKKOS_PREC", "double")
    if precision.lower() != "double":
        raise TDNError(f"--kokkos: found KOKKOS_PREC={precision} in {build}, expected double")
    return build


def kokkos_compiler(build: str | Path) -> str:
    """What compiled that LAMMPS, and compiles Kokkos alike; empty for the default compiler.

    That is taken where it is unknown, and beside the wrapper of nvcc, which CMake has compile what
    needs it.
    """
    compiler = cmake_cache(Path(build) / "CMakeCache.txt").get("CMAKE_CXX_COMPILER", "")
    return "" if Path(compiler).name == "nvcc_wrapper" else compiler


def check_cuda(build: str | Path, torch_cuda: str | None) -> None:
    """Refuse a Kokkos for GPUs beside a PyTorch without them.

    Parameters
    ----------
    build : where LAMMPS was built with KOKKOS
    torch_cuda : CUDA version of PyTorch, None for one without

    Raises
    ------
    TDNError
        If the build has the CUDA backend and PyTorch has not.
    """
    if _is_on(cmake_cache(Path(build) / "CMakeCache.txt"), "Kokkos_ENABLE_CUDA") and not torch_cuda:
        raise TDNError(
            f"--kokkos: {build} has Kokkos_ENABLE_CUDA, and the PyTorch here was built without "
            "CUDA; install one with CUDA, then run: tdn-ops build"
        )


def cmake_cache(path: Path) -> dict[str, str]:
    """Entries of a CMakeCache.txt; none if there is no such file."""
    try:
        text = path.read_text()
    except OSError:
        return {}
    return dict(re.findall(r"^(\w+):\w+=(.*)$", text, flags=re.MULTILINE))


def _is_on(entries: dict[str, str], name: str) -> bool:
    return entries.get(name, "").upper() in ("ON", "YES", "TRUE", "1", "Y")
