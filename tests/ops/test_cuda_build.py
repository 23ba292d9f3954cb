"""Whether and how CUDA kernels are built, with pretended versions of PyTorch and nvcc."""

import re

import pytest
import torch

from tdn.ops import build, cli, cuda_toolkit
from tdn.ops.cuda_toolkit import CudaChoice, choose_cuda
from tdn.system.errors import TDNError, UsageError
from tdn.system.paths import OPS_LIBRARY


@pytest.fixture
def nvcc(monkeypatch, tmp_path):
    """A PyTorch for CUDA 13.0, and a program that speaks like nvcc 13.2."""
    script = tmp_path / "nvcc"
    script.write_text(
        "#!/bin/sh\n"
        "case $1 in --version) echo 'Cuda compilation tools, release 13.2, V13.2.1' ;;\n"
        "*) echo compute_80; echo compute_90 ;; esac\n"
    )
    script.chmod(0o755)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(
        torch.__config__, "show", lambda: "code=sm_75 arch=compute_80,code=sm_80,code=sm_90"
    )
    monkeypatch.setenv("CUDACXX", str(script))
    monkeypatch.delenv("TDN_CUDA_ARCHITECTURES", raising=False)
    return script


def test_architectures_are_those_of_pytorch_that_nvcc_knows(nvcc):
    choice = choose_cuda("auto")
    assert choice.use
    assert choice.reason == "nvcc 13.2, architectures 80-real 90"
    assert choice.defines == {
        "TDN_CUDA": "ON",
        "CMAKE_CUDA_COMPILER": str(nvcc),
        "TDN_CUDA_ARCHITECTURES": "80-real;90",
    }


def test_architectures_of_builds_that_do_not_list_them(nvcc, monkeypatch):
    """PyTorch 2.11 without a GPU: not among the settings of its build."""
    monkeypatch.setattr(torch.__config__, "show", lambda: "GCC 13.3")
    flags = "sm_75 sm_80 sm_86 sm_90"
    monkeypatch.setattr(torch._C, "_cuda_getArchFlags", lambda: flags, raising=False)
    assert choose_cuda("auto").reason == "nvcc 13.2, architectures 80-real 90"


def test_architectures_on_request(nvcc, monkeypatch):
    monkeypatch.setenv("TDN_CUDA_ARCHITECTURES", "native")
    assert choose_cuda("yes").defines["TDN_CUDA_ARCHITECTURES"] == "native"
    monkeypatch.setenv("TDN_CUDA_ARCHITECTURES", "80, 90")
    assert choose_cuda("yes").defines["TDN_CUDA_ARCHITECTURES"] == "80;90"
    monkeypatch.setenv("TDN_CUDA_ARCHITECTURES", "hopper")
    with pytest.raises(UsageError, match="TDN_CUDA_ARCHITECTURES = 'hopper': expected"):
        choose_cuda("auto")


def test_none_known(nvcc, monkeypatch):
    monkeypatch.setattr(torch.__config__, "show", lambda: "code=sm_50")
    assert "knows none of the GPU architectures of PyTorch [50]" in choose_cuda("auto").reason


def test_switched_off(nvcc):
    assert choose_cuda("no") == CudaChoice(False, "switched off with --cuda no")
    with pytest.raises(UsageError, match="cuda = 'maybe': expected auto, yes or no"):
        choose_cuda("maybe")


@pytest.mark.parametrize(
    ("torch_cuda", "found", "line"),
    [
        (None, True, "was built without CUDA"),
        ("13.0", False, "nvcc not found .*install the CUDA toolkit 13.0, or name its nvcc"),
        ("12.8", True, "is of CUDA 13.2, PyTorch was built with CUDA 12.8; the major versions"),
    ],
)
def test_what_is_missing(nvcc, monkeypatch, torch_cuda, found, line):
    monkeypatch.setattr(torch.version, "cuda", torch_cuda)
    if not found:
        monkeypatch.setattr(cuda_toolkit.shutil, "which", lambda _: None)
    choice = choose_cuda("auto")
    assert not choice.use
    assert re.search(line, choice.reason)
    with pytest.raises(TDNError, match=f"--cuda yes: .*{line}"):
        choose_cuda("yes")


def test_failed_compilation_names_the_way_out(nvcc, library_copy, monkeypatch):
    def run_cmake(*_, **__):
        raise TDNError("building failed")

    monkeypatch.setattr(build, "run_cmake", run_cmake)
    with pytest.raises(TDNError, match=r"building failed; .*`tdn-ops build --cuda no`"):
        build.build_ops()
    with pytest.raises(TDNError, match=r"failed$"):
        build.build_ops(cuda="no", force=True)


def test_requests_are_remembered(nvcc, library_copy, monkeypatch, capsys):
    calls = []

    def run_cmake(source_dir, build_dir, defines, verbose=False):
        calls.append(defines)
        (build_dir / OPS_LIBRARY).write_text("new")

    monkeypatch.setattr(build, "run_cmake", run_cmake)
    assert cli.main(["build", "--cuda", "no"]) == 0
    assert "kernels for GPUs: none: switched off with --cuda no" in capsys.readouterr().err
    build.build_ops()  # as the LAMMPS plugin's build does
    assert cli.main(["build", "--cuda", "auto"]) == 0
    assert "kernels for GPUs: nvcc 13.2, architectures 80-real 90" in capsys.readouterr().err
    assert ["TDN_CUDA" in defines for defines in calls] == [False, True]
    assert cli.main(["build", "--sanitize"]) == 0
    build.build_ops()
    assert ["TDN_SANITIZE" in defines for defines in calls] == [False, False, True]


def test_sanitized_library_needs_a_folder_of_its_own(monkeypatch, capsys):
    monkeypatch.delenv("TDN_LIB_DIR", raising=False)
    assert cli.main(["build", "--sanitize"]) == 2
    assert "TDN_LIB_DIR" in capsys.readouterr().err
