"""The Python module of LAMMPS on two ranks: several objects in a process, and messages counted.

Every test is a program of its own, started with ``mpiexec``, since MPI starts once per process.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from shared_files import SharedFiles
from structures import CONFIGS

from .conftest import Structure, run_command, setup
from .test_closed_form import random_structure
from .toy import closed_form

# wider than twice the halo, so that each rank receives from two sides
STRUCTURE = random_structure(3, 40, np.diag([20.0, 9.5, 10.0]))


@pytest.fixture
def run_python(plugin: Path, models: Path, tmp_path: Path) -> Callable[..., str]:
    """Function that runs Python code on two ranks and gives what the first one prints."""
    from tdn_lammps.runtime import find_program

    def run(code: str) -> str:
        (tmp_path / "code.py").write_text(code)
        STRUCTURE.write(tmp_path / "data")
        command = [find_program("mpiexec"), "-n", "2", sys.executable, "code.py"]
        return run_command(command, tmp_path, LAMMPS_POTENTIALS=str(models))

    return run


OBJECTS = """
import os
import tdn_lammps

def start(model):
    lmp = tdn_lammps.lammps(cmdargs=["-screen", "none", "-log", "none"])
    lmp.file("in." + model)
    return lmp

def show(lmp):
    lmp.command("run 0")
    energy = lmp.get_thermo("pe")
    if os.environ["PMI_RANK"] == "0":
        print("energy", repr(energy))

for model in ("toy1", "toy2"):  # one after another
    lmp = start(model)
    show(lmp)
    lmp.close()
runs = [start(model) for model in ("toy1", "toy2", "short")]  # at the same time
for _ in range(2):
    for lmp in runs:
        show(lmp)
runs[1].close()
show(runs[0])
show(start("toy2"))
show(runs[2])
"""


def test_several_objects_in_one_process(run_python: Callable[..., str], tmp_path: Path) -> None:
    """Each has its own model and cutoff, whoever came or went before."""
    for model in ("toy1", "toy2", "short"):
        text = setup(STRUCTURE, "data") + f"pair_coeff * * {model}.tdn.pth H O\n"
        (tmp_path / f"in.{model}").write_text(text)
    output = run_python(OBJECTS)
    energies = [float(line.split()[1]) for line in output.splitlines() if "energy" in line]
    want = {
        "toy1": energy_of(STRUCTURE),
        "toy2": energy_of(STRUCTURE, layers=2),
        "short": energy_of(STRUCTURE, r_max=2.5),
    }
    order = ["toy1", "toy2", *("toy1", "toy2", "short") * 2, "toy1", "toy2", "short"]
    np.testing.assert_allclose(energies, [want[model] for model in order], rtol=1e-12)


def energy_of(structure: Structure, **options) -> float:
    arguments = (structure.species, structure.positions, structure.cell)
    return closed_form(*arguments, **options)["energy"].sum()


# stands before the function of MPI that LAMMPS would call
COUNTER = """
#include <mpi.h>
#include <dlfcn.h>
long messages = 0;
int MPI_Send(const void *data, int count, MPI_Datatype type, int to, int tag, MPI_Comm comm)
{
  int (*send)(const void *, int, MPI_Datatype, int, int, MPI_Comm);
  messages++;
  *(void **) &send = dlsym(RTLD_DEFAULT, "PMPI_Send");
  return send(data, count, type, to, tag, comm);
}
"""
COUNT = """
import ctypes, os, sys
counter = ctypes.CDLL("./counter.so", mode=ctypes.RTLD_GLOBAL)  # before MPI and LAMMPS
import tdn_lammps

messages = ctypes.c_long.in_dll(counter, "messages")
lmp = tdn_lammps.lammps(cmdargs=["-screen", "none", "-log", "none"])
for k in range(NUMBER):
    lmp.file(f"in.{k}")
    lmp.command("run 1")  # lists are built, and what is communicated is reported
    before = messages.value
    lmp.command("run 7 pre no post no")
    if os.environ["PMI_RANK"] == "0":
        print("messages", messages.value - before)
"""
# exchanges forward and in reverse for networks of n layers
LAYERS = CONFIGS["attention"].num_layers
NETWORKS = {
    "toy1": (0, 0),  # from edges: n - 1 each way, since the first layer needs elements only
    "toy2": (1, 1),
    # from positions: n - 1 of features and n of gradients, all of them forward
    "l1_1": (2 * CONFIGS["l1"].num_layers - 1, 0),
    "one_layer_1": (1, 0),
    "attention_1": (LAYERS, LAYERS),
    "attention_1_forces-direct": (LAYERS + 1, 0),  # nothing is differentiated
}
COMPLETE_FORCES = ("l1_1", "one_layer_1", "attention_1_forces-direct")  # none on ghosts
STYLES = {"zero": "pair_style zero 4.0\npair_coeff * *\n"} | {
    name: f"pair_style tdn direct yes\npair_coeff * * {name}.tdn.pth H O\n" for name in NETWORKS
}


def compile_counter(folder: Path) -> None:
    from tdn_lammps.mpi import mpich_file

    header = mpich_file("mpi.h")
    if header is None:
        pytest.skip("needs the headers of the pip package mpich")
    (folder / "counter.c").write_text(COUNTER)
    command = [os.environ.get("CC", "cc"), "-shared", "-fPIC", f"-I{header.parent}", "counter.c"]
    subprocess.run([*command, "-ldl", "-o", "counter.so"], cwd=folder, check=True)


def test_messages_of_every_step(
    run_python: Callable[..., str], shared_files: SharedFiles, tmp_path: Path
) -> None:
    """`NETWORKS`, counted as messages that leave a rank in seven steps.

    The style ``zero`` tells in how many messages LAMMPS brings positions to the ghosts. Forces take
    as many: with newton on they come back by LAMMPS, with newton off by the pair style unless
    those of centers are complete. Every exchange of features takes as many again, and no rank
    sends anything else.
    """
    compile_counter(tmp_path)
    shared_files.export("attention")
    shared_files.export("attention", forces="direct")
    shared_files.export("l1")
    shared_files.export("one_layer")
    cases = [(name, newton) for name in STYLES for newton in ("on", "off")]
    for k, (name, newton) in enumerate(cases):
        script = f"clear\nprocessors 2 1 1\nnewton {newton}\n" + setup(STRUCTURE, "data", "none")
        script += STYLES[name] + "neighbor 0.3 bin\nneigh_modify every 100 delay 0 check no\n"
        # steps so short that no atom leaves its neighbours
        script += "timestep 1e-9\nfix 1 all nve\nthermo 100\nthermo_style custom step\n"
        (tmp_path / f"in.{k}").write_text(script)
    output = run_python(COUNT.replace("NUMBER", str(len(cases))))
    found = [int(line.split()[1]) for line in output.splitlines() if "messages" in line]

    sides, steps = 2, 7
    for (name, newton), messages in zip(cases, found, strict=True):
        exchanges = 1 + (newton == "on")
        if name != "zero":
            exchanges += sum(NETWORKS[name]) + (newton == "off" and name not in COMPLETE_FORCES)
        assert messages == steps * sides * exchanges, (name, newton)
