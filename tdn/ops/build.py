"""Build the compiled operators with CMake, and find what was built.

One shared library per PyTorch: a stamp file beside it records the PyTorch, the sources and the
compiler it was built from, and a library with another stamp is never loaded.
"""

import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from tdn.system.atomic_files import atomic_write
from tdn.system.errors import TDNError, UsageError
from tdn.system.paths import OPS_LIBRARY, build_output_dir, library_dir, uses_wheel
from tdn.system.wheel import torch_misfit

from .cuda_toolkit import choose_cuda

SOURCE_DIR = Path(__file__).parent / "csrc"
STAMP_NAME = "libtdn_ops.json"
MINIMUM_CMAKE = (3, 18)


def ops_library() -> Path | None:
    """The compiled operators for this PyTorch; None if there are none."""
    path = library_dir() / OPS_LIBRARY
    return path if path.is_file() and not _stamp_problem() else None


def library_problem() -> str:
    """Why :func:`ops_library` finds nothing, in one line; empty if it does."""
    path = library_dir() / OPS_LIBRARY
    if path.is_file():
        return _stamp_problem()
    misfit = torch_misfit()
    return misfit.reason if misfit else f"no compiled library in {library_dir()}"


def library_remedy() -> str:
    """What to do about :func:`library_problem`."""
    if uses_wheel():
        return "install the wheel again"
    misfit = None if (library_dir() / OPS_LIBRARY).is_file() else torch_misfit()
    if misfit:
        return f"run `{misfit.remedy}`, or with a compiler `tdn-ops build`"
    return "run `tdn-ops build`"


def build_ops(
    force: bool = False,
    verbose: bool = False,
    cuda: str | None = None,
    sanitize: bool | None = None,
) -> Path:
    """Compile the operators unless an up-to-date library exists.

    Parameters
    ----------
    force : bool
        Compile even if PyTorch, sources and compiler are those of the existing library.
    verbose : bool
        Show what CMake and the compiler print.
    cuda : str, optional
        Kernels for NVIDIA GPUs: ``auto`` (where PyTorch has CUDA and nvcc is found), ``yes``
        (an error where not) or ``no``. By default as for the existing library, else ``auto``.
    sanitize : bool, optional
        Compile with the address and undefined-behavior sanitizers. Such a library loads only into
        a process that has preloaded their runtime. By default as for the existing library.

    Returns
    -------
    Path
        The library.

    Raises
    ------
    UsageError
        If ``sanitize`` is asked for in the default folder, where every program would find it; if
        another library is asked for than that of a wheel, which fits.
    TDNError
        If CMake or a C++ compiler is missing, CUDA is asked for and cannot be had, or the build
        fails.
    """
    if sanitize and not os.environ.get("TDN_LIB_DIR"):
        raise UsageError(
            "--sanitize: programs load such a library only with the sanitizers' runtime preloaded; "
            "give it a folder of its own in the environment variable TDN_LIB_DIR"
        )
    target = library_dir() / OPS_LIBRARY
    if uses_wheel():
        if force or cuda:
            raise UsageError(
                "the wheel of this package brought operators for this torch, which are in use; to "
                "compile others give them a folder in the environment variable TDN_LIB_DIR"
            )
        if library_problem():
            raise TDNError(f"{library_problem()}; {library_remedy()}")
        return target
    existing = read_stamp()
    if sanitize is None:
        sanitize = existing.get("sanitize") == "yes"
    request = cuda or existing.get("cuda_request", "auto")
    choice = choose_cuda(request)
    stamp = {
        **_expected_stamp(),
        "compiler": compiler_version(),
        "cuda_request": request,
        "cuda": choice.reason if choice.use else f"none: {choice.reason}",
        "sanitize": "yes" if sanitize else "no",
    }
    defines = {**torch_defines(), **choice.defines}
    if sanitize:
        defines["TDN_SANITIZE"] = "ON"
    with build_lock(target.parent):
        if not force and target.is_file() and not _cut_short(target):
            if {k: v for k, v in read_stamp().items() if k != "size"} == stamp:
                return target
        with TemporaryDirectory(prefix=".build-", dir=target.parent) as build_dir:
            try:
                run_cmake(SOURCE_DIR, Path(build_dir), defines, verbose=verbose)
            except TDNError as error:
                if not choice.use:
                    raise
                raise TDNError(
                    f"{error}; to do without the kernels for GPUs ({choice.reason}): "
                    "`tdn-ops build --cuda no`"
                ) from error
            # Without a stamp the library does not count, so no reader sees an unmatched pair.
            target.with_name(STAMP_NAME).unlink(missing_ok=True)
            with atomic_write(target) as temporary:
                shutil.copy2(Path(build_dir) / OPS_LIBRARY, temporary)
            stamp["size"] = str(target.stat().st_size)
            with atomic_write(target.with_name(STAMP_NAME)) as temporary:
                Path(temporary).write_text(json.dumps(stamp, indent=2) + "\n")
    return target


def run_cmake(
    source_dir: Path,
    build_dir: Path,
    defines: Mapping[str, str],
    verbose: bool = False,
    target: str = "all",
) -> None:
    """Configure and build a CMake project in Release mode.

    Parameters
    ----------
    source_dir, build_dir : Path
        Folder with ``CMakeLists.txt``; folder for the results, made if missing.
    defines : mapping of str to str
        Cache variables, passed as ``-DNAME=VALUE``.
    verbose : bool
        Show the output; otherwise it goes to ``build.log`` in the library folder on failure.
    target : str
        What to build.

    Raises
    ------
    TDNError
        If CMake is missing or too old, or a step fails (with its first error line).
    """
    cmake = find_cmake()
    compiler_version()
    build_dir.mkdir(parents=True, exist_ok=True)
    configure = [cmake, "-S", str(source_dir), "-B", str(build_dir), "-DCMAKE_BUILD_TYPE=Release"]
    configure += [f"-D{name}={value}" for name, value in defines.items()]
    jobs = os.environ.get("CMAKE_BUILD_PARALLEL_LEVEL") or str(len(os.sched_getaffinity(0)))
    build = [cmake, "--build", str(build_dir), "--target", target, "--parallel", jobs]
    for command in (configure, build):
        _run_logged(command, source_dir, verbose)


def torch_defines() -> dict[str, str]:
    """CMake variables that lead to this Python's PyTorch."""
    return {
        "TDN_TORCH_DIR": str(Path(torch.__file__).parent),
        "TDN_CXX11_ABI": str(int(torch.compiled_with_cxx11_abi())),
    }


def find_cmake() -> str:
    """The ``cmake`` on the path or of the Python environment.

    Raises
    ------
    TDNError
        If there is none, or it is older than 3.18.
    """
    in_environment = Path(sys.executable).parent / "cmake"
    command = shutil.which("cmake") or shutil.which(in_environment)
    if command is None:
        raise TDNError("cmake not found; install it with `pip install cmake`")
    output = subprocess.run([command, "--version"], capture_output=True, text=True).stdout
    match = re.search(r"(\d+)\.(\d+)", output)
    if match is None or (int(match[1]), int(match[2])) < MINIMUM_CMAKE:
        found = match[0] if match else "an unknown version"
        raise TDNError(
            f"{command} is {found}, expected 3.18 or newer; install one with `pip install cmake`"
        )
    return command


def compiler_version() -> str:
    """First line of what the C++ compiler says about its version.

    Raises
    ------
    TDNError
        If there is no C++ compiler.
    """
    candidates = [os.environ.get("CXX", ""), "c++", "g++", "clang++"]
    for name in filter(None, candidates):
        words = name.split()
        if shutil.which(words[0]):
            result = subprocess.run([*words, "--version"], capture_output=True, text=True)
            return result.stdout.partition("\n")[0].strip()
    raise TDNError(
        "no C++ compiler found (tried $CXX, c++, g++, clang++); install one, such as the package "
        "g++, or name it in the environment variable CXX"
    )


def source_hash() -> str:
    """Hash of everything that the library is compiled from."""
    digest = hashlib.sha256()
    for path in sorted(SOURCE_DIR.rglob("*")):
        if path.suffix in {".cpp", ".h", ".cu", ".txt", ".cmake"}:
            name = path.relative_to(SOURCE_DIR).as_posix()
            digest.update(name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def read_stamp() -> dict[str, str]:
    """What the existing library was built from; empty if unknown."""
    try:
        stamp = json.loads((library_dir() / STAMP_NAME).read_text())
    except (OSError, ValueError):
        return {}
    return stamp if isinstance(stamp, dict) else {}


@contextmanager
def build_lock(directory: Path) -> Iterator[None]:
    """One build at a time in a folder; later ones wait."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock = open(directory / ".lock", "w")
    except OSError as error:
        raise TDNError(
            f"cannot write to {directory} ({error.strerror}); name another folder in the "
            "environment variable TDN_LIB_DIR"
        ) from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _expected_stamp() -> dict[str, str]:
    return {"torch": torch.__version__, "sources": source_hash()}


def _stamp_problem() -> str:
    stamp, expected = read_stamp(), _expected_stamp()
    path = library_dir() / OPS_LIBRARY
    if stamp.get("torch") != expected["torch"]:
        found = stamp.get("torch", "an unknown version")
        return f"{path} was built for torch {found}, this is torch {expected['torch']}"
    if stamp.get("sources") != expected["sources"]:
        return f"{path} was built from another version of the sources"
    if _cut_short(path):
        return f"{path} is damaged"
    return ""


def _cut_short(library: Path) -> bool:
    """Whether the library has another size than it was built with: loading it would crash."""
    return read_stamp().get("size") != str(library.stat().st_size)


def _run_logged(command: list[str], source_dir: Path, verbose: bool) -> None:
    if verbose:
        output, code = "", subprocess.run(command).returncode
    else:
        result = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
        )
        output, code = result.stdout, result.returncode
    if code == 0:
        return
    where = "output above"
    if not verbose:
        log = build_output_dir() / "build.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text(output)
        where = f"full output in {log}"
    errors = [line.strip() for line in output.splitlines() if "error" in line.lower()]
    first = f": {errors[0]}" if errors else ""
    raise TDNError(f"building {source_dir} failed{first} ({where})")
