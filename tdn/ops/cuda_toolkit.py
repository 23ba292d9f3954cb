"""Whether the operators are compiled for NVIDIA GPUs, and for which: PyTorch and nvcc decide."""

import os
import re
import shutil
import subprocess
from dataclasses import dataclass, field

import torch

from tdn.system.errors import TDNError, UsageError

REQUESTS = ("auto", "yes", "no")


@dataclass(frozen=True)
class CudaChoice:
    """What to build.

    Attributes
    ----------
    use : bool
        Whether to build the CUDA kernels.
    reason : str
        Why, or with what, in one line.
    defines : dict of str to str
        CMake variables.
    """

    use: bool
    reason: str
    defines: dict[str, str] = field(default_factory=dict)


def choose_cuda(request: str) -> CudaChoice:
    """Decide whether to build the CUDA kernels.

    Parameters
    ----------
    request : str
        ``auto`` builds them where PyTorch has CUDA and an nvcc of the same major version is found,
        ``yes`` makes it an error if not, ``no`` leaves them out.

    Raises
    ------
    UsageError
        If ``request`` or the variable ``TDN_CUDA_ARCHITECTURES`` has another form.
    TDNError
        If ``request`` is ``yes`` and something is missing.
    """
    if request not in REQUESTS:
        raise UsageError(f"cuda = {request!r}: expected auto, yes or no")
    if request == "no":
        return CudaChoice(False, "switched off with --cuda no")
    try:
        nvcc, version = _matching_nvcc()
        architectures = _architectures(nvcc)
    except _Missing as missing:
        if request == "yes":
            raise TDNError(f"--cuda yes: {missing}") from missing
        return CudaChoice(False, str(missing))
    defines = {
        "TDN_CUDA": "ON",
        "CMAKE_CUDA_COMPILER": nvcc,
        "TDN_CUDA_ARCHITECTURES": ";".join(architectures),
    }
    return CudaChoice(True, f"nvcc {version}, architectures {' '.join(architectures)}", defines)


class _Missing(Exception):
    """Why there can be no CUDA kernels."""


def _matching_nvcc() -> tuple[str, str]:
    """nvcc and its version, of the CUDA that PyTorch was built with."""
    if torch.version.cuda is None:
        raise _Missing(f"PyTorch {torch.__version__} was built without CUDA")
    folders = [os.environ.get(name) for name in ("CUDA_HOME", "CUDA_PATH")]
    candidates = [
        os.environ.get("CUDACXX"),
        *(f"{folder}/bin/nvcc" for folder in folders if folder),
        "nvcc",
        "/usr/local/cuda/bin/nvcc",
    ]
    nvcc = next(filter(None, (shutil.which(name) for name in candidates if name)), None)
    if nvcc is None:
        raise _Missing(
            "nvcc not found (tried $CUDACXX, $CUDA_HOME/bin, the path, /usr/local/cuda/bin); "
            f"install the CUDA toolkit {torch.version.cuda}, or name its nvcc in the environment "
            "variable CUDACXX"
        )
    output = subprocess.run([nvcc, "--version"], capture_output=True, text=True).stdout
    match = re.search(r"release (\d+)\.(\d+)", output)
    if match is None:
        raise _Missing(f"{nvcc} does not tell its version; name another in CUDACXX")
    version = f"{match[1]}.{match[2]}"
    if match[1] != torch.version.cuda.partition(".")[0]:
        raise _Missing(
            f"{nvcc} is of CUDA {version}, PyTorch was built with CUDA {torch.version.cuda}; the "
            "major versions must agree: name another nvcc in the environment variable CUDACXX"
        )
    return nvcc, version


def _architectures(nvcc: str) -> list[str]:
    """GPU architectures in the form of CMake: as asked for, else those of PyTorch itself."""
    asked = os.environ.get("TDN_CUDA_ARCHITECTURES")
    if asked:
        names = [name for name in re.split(r"[;,\s]+", asked) if name]
        known = r"native|all|all-major|\d+[af]?(-real|-virtual)?"
        if not names or not all(re.fullmatch(known, name) for name in names):
            raise UsageError(
                f"TDN_CUDA_ARCHITECTURES = {asked!r}: expected numbers as in `80;90`, or `native`"
            )
        return names
    # torch.cuda.get_arch_list() says nothing without a GPU; what it asks does, and so do the
    # settings of the build in some versions
    flags = torch.__config__.show() + (getattr(torch._C, "_cuda_getArchFlags", str)() or "")
    ours = {int(number) for number in re.findall(r"\bsm_(\d+)", flags)}
    output = subprocess.run([nvcc, "--list-gpu-arch"], capture_output=True, text=True).stdout
    known = {int(number) for number in re.findall(r"compute_(\d+)", output)}
    both = sorted(ours & known)
    if not both:
        raise _Missing(
            f"{nvcc} knows none of the GPU architectures of PyTorch {sorted(ours)}; name some in "
            "the environment variable TDN_CUDA_ARCHITECTURES, such as 90 or native"
        )
    # machine code for each, and for later GPUs the newest in a form that the driver compiles
    return [f"{number}-real" for number in both[:-1]] + [str(both[-1])]
