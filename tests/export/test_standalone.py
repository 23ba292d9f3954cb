"""Compiled files without this package's network: in Python, and in C++ with libtorch alone."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tdn import ops
from tdn.inference.compiled_model import read_extra_files

PAGE = Path(__file__).parents[2] / "docs" / "compiled_file.md"

FRESH_PROCESS = """
import sys
import numpy as np
from tdn.inference.compiled_model import load_compiled
model = load_compiled(sys.argv[1])  # computes the reference
stored = model.reference
found = model.reference_deviations()
assert all(found[name] <= stored["tolerance"][name] for name in found)
used = [m for m in sys.modules if m.split(".")[0] == "e3nn" or m.split(".")[0] == "tdn_export"]
code = ("convolution_model", "base", "layers", "attention_model")
used += [m for m in code if f"tdn.network.{m}" in sys.modules]
print(used)
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["default", "attention"])
def test_python_without_the_code_of_the_network(export, name):
    result = subprocess.run(
        [sys.executable, "-c", FRESH_PROCESS, str(export(name).path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout == "[]\n"


@pytest.fixture(scope="module")
def program(tmp_path_factory) -> Path:
    """The C++ program of the contract's page."""
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("needs g++")
    folder = tmp_path_factory.mktemp("reader")
    code = re.search(r"```cpp\n(.*?)```", PAGE.read_text(), re.DOTALL).group(1)
    (folder / "evaluate.cpp").write_text(code)
    root = Path(torch.__path__[0])
    flags = [f"-I{root}/include", f"-I{root}/include/torch/csrc/api/include", f"-L{root}/lib"]
    flags += [f"-Wl,-rpath,{root}/lib", "-ltorch", "-ltorch_cpu", "-lc10", "-ldl"]
    command = [compiler, "-std=c++20", "evaluate.cpp", *flags, "-o", "evaluate"]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return folder / "evaluate"


def run(program: Path, model: Path, text: str) -> subprocess.CompletedProcess:
    command = [str(program), str(ops.library_path()), str(model)]
    return subprocess.run(command, input=text, capture_output=True, text=True, check=False)


@pytest.mark.slow
@pytest.mark.skipif(ops.library_path() is None, reason="needs the compiled operators")
@pytest.mark.parametrize("name", ["default", "attention"])
def test_cpp_program_with_libtorch_and_the_operators(export, program, name):
    stored = read_extra_files(export(name).path)[1]
    numbers = [len(stored["species"]), stored["num_local"], len(stored["edge_vec"])]
    numbers += stored["species"] + stored["edge_index"][0] + stored["edge_index"][1]
    numbers += [x for vector in stored["edge_vec"] for x in vector]
    text = " ".join(map(repr, numbers))
    result = run(program, export(name).path, text)
    assert result.returncode == 0, result.stderr
    found = np.array(result.stdout.split(), dtype=float)
    count = stored["num_local"]
    gradient = found[count:].reshape(-1, 3)
    forces = np.zeros((count, 3))
    np.add.at(forces, stored["edge_index"][0], gradient)
    np.add.at(forces, stored["edge_index"][1], -gradient)
    virial = -np.einsum("ea,eb->ab", stored["edge_vec"], gradient)
    tolerance = stored["tolerance"]
    assert np.abs(found[:count] - stored["atom_energy"]).max() <= tolerance["energy"]
    assert np.abs(forces - stored["forces"]).max() <= tolerance["forces"]
    assert np.abs(virial - stored["virial"]).max() <= tolerance["virial"]


@pytest.mark.slow
@pytest.mark.skipif(ops.library_path() is None, reason="needs the compiled operators")
def test_cpp_program_without_atoms_or_edges(export, program):
    assert run(program, export().path, "0 0 0").stdout == ""
    energies = export().model.atomic_energies.tolist()
    found = run(program, export().path, "2 2 0 0 1").stdout.split()
    assert [float(x) for x in found] == energies
