"""pair_style tdn/kk in a LAMMPS with KOKKOS: the numbers of tdn, from KOKKOS's own memory.

That LAMMPS is a source tree that CMake has built, named by ``TDN_KOKKOS_LAMMPS``; ``make
test-kokkos`` makes one. Both styles run in it, with the plugin that is built for it here, or with
the one in ``TDN_KOKKOS_PLUGIN``.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from shared_files import SharedFiles
from structures import CONFIGS

from tdn.system.paths import library_dir
from tdn_export import export_model

from .conftest import (
    MEASURE,
    Measured,
    Structure,
    only_error,
    read_measured,
    run_script,
    setup,
    thermo_rows,
)
from .test_closed_form import random_structure
from .test_matrix import CASES, CELLS, MODEL, NETWORK, Case, assert_close, with_spectators

COMMITTEE = "two_networks.tdn.pth"
KOKKOS = ("-k", "on", "t", "2", "-sf", "kk")
# of what KOKKOS copies between views their names and bytes; at the end how often rows were packed
TOOL = """
#include <stdint.h>
#include <stdio.h>
#include <string.h>
static int packed = 0;
struct space { char name[64]; };
void kokkosp_begin_deep_copy(struct space to_space, const char *to, const void *to_data,
                             struct space from_space, const char *from, const void *from_data,
                             uint64_t bytes)
{
  printf("copy [%s] from [%s] of %llu bytes\\n", to, from, (unsigned long long) bytes);
  fflush(stdout);
}
void kokkosp_begin_parallel_for(const char *name, uint32_t device, uint64_t *kernel)
{
  packed += strcmp(name, "tdn:pack") == 0;
}
void kokkosp_finalize_library(void)
{
  printf("rows packed %d times\\n", packed);
  fflush(stdout);
}
"""

Runner = Callable[..., str]


@pytest.fixture(scope="session")
def kokkos() -> tuple[Path, Path]:
    """The program, and the folder of the plugin for it."""
    default = Path.home() / ".cache" / "tdn" / "lammps-kokkos"
    tree = Path(os.environ.get("TDN_KOKKOS_LAMMPS", default))
    if not (tree / "build" / "lmp").is_file():
        pytest.skip(f"no LAMMPS with KOKKOS in {tree} (make test-kokkos LAMMPS_SOURCE=FOLDER)")
    if built := os.environ.get("TDN_KOKKOS_PLUGIN"):
        return tree / "build" / "lmp", Path(built)
    from tdn_lammps.cli import main

    output = library_dir() / "lammps-kokkos"
    words = ["build", "--lammps-source", str(tree), "--kokkos", str(tree / "build")]
    with pytest.MonkeyPatch.context() as patch:
        # the compiler of MPI is that of the tree, as mpiexec
        patch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
        assert main([*words, "--output", str(output)]) == 0
    return tree / "build" / "lmp", output


@pytest.fixture
def run(kokkos: tuple[Path, Path], models: Path, tmp_path: Path) -> Runner:
    """Function that runs a script with KOKKOS, or with the plain style where that is asked for."""
    return runner(kokkos, models, tmp_path)


def runner(kokkos: tuple[Path, Path], models: Path, folder: Path) -> Runner:
    program, plugins = kokkos

    def run(script: str, *, plain: bool = False, **options) -> str:
        options.setdefault("arguments", () if plain else KOKKOS)
        environment = {"LAMMPS_PLUGIN_PATH": str(plugins), "OMP_WAIT_POLICY": "passive"}
        return run_script(script, folder, models, program=program, **environment, **options)

    return run


@pytest.fixture(scope="module")
def run_cases(
    kokkos: tuple[Path, Path],
    models: Path,
    shared_files: SharedFiles,
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable:
    """Function that runs `CASES` in one launch; results are of the atoms the network knows."""
    folder = tmp_path_factory.mktemp("kokkos")
    assert shared_files.export(NETWORK).name == MODEL
    for name, structure in CELLS.items():
        structure.write(folder / f"{name}.plain.data")
        with_spectators(structure).write(folder / f"{name}.hybrid.data")

    def run(ranks: int, **options) -> dict[Case, Measured]:
        script = "".join(case.script(f"case{k}", ranks) for k, case in enumerate(CASES))
        output = runner(kokkos, models, folder)(script, ranks=ranks, time_limit=600, **options)
        thermo = thermo_rows(output)
        assert len(thermo) == len(CASES)
        assert output.count("TDN with KOKKOS") == (0 if options.get("plain") else len(CASES))
        return {
            case: read_measured(folder / f"case{k}.dump", row, len(CELLS[case.cell].species))
            for k, (case, row) in enumerate(zip(CASES, thermo, strict=True))
        }

    return run


@pytest.fixture(scope="module")
def plain(run_cases: Callable) -> dict[Case, Measured]:
    """Results of the plain style on one rank."""
    return run_cases(1, plain=True)


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_equals_plain(run_cases: Callable, plain: dict[Case, Measured], ranks: int) -> None:
    """Cells, decompositions with tiles and with ranks without atoms, newton, hybrid."""
    for case, found in run_cases(ranks).items():
        assert found.energy == pytest.approx(plain[case].energy, rel=1e-12), case
        assert_close(found, plain[case], case, 1e-11)


def test_host_and_device_are_the_same(
    run: Runner, tmp_path: Path, shared_files: SharedFiles
) -> None:
    """On the CPU these are one; the plain style works in a run with KOKKOS, too."""
    shared_files.export(NETWORK)
    CELLS["triclinic"].write(tmp_path / "data")
    energies = []
    for style in ("tdn/kk", "tdn/kk/device", "tdn/kk/host", "tdn"):
        head = setup(CELLS["triclinic"], "data", f"{style}\nsuffix on")
        head = head.replace("pair_style", "suffix off\npair_style")
        script = head + f"pair_coeff * * {MODEL} H O\n" + MEASURE.format(dump="dump")
        output = run(script)
        assert ("TDN with KOKKOS" in output) == (style != "tdn")
        energies.append(thermo_rows(output)[0][1])
    np.testing.assert_allclose(energies, energies[0], rtol=1e-12)


def compile_tool(folder: Path) -> Path:
    library = folder / "tool.so"
    command = [os.environ.get("CC", "cc"), "-shared", "-fPIC", "-x", "c", "-", "-o", str(library)]
    subprocess.run(command, input=TOOL, text=True, check=True)
    return library


@pytest.mark.parametrize("ranks", [1, 2])
def test_nothing_is_copied(
    run: Runner, tmp_path: Path, shared_files: SharedFiles, ranks: int
) -> None:
    """The model reads positions and pairs at the addresses of KOKKOS's views.

    What Kokkos itself copies while steps go by, rebuilds of the list among them, is less than a
    number per atom.
    """
    shared_files.export(NETWORK)
    structure = CELLS["orthogonal"]
    structure.write(tmp_path / "data")
    script = setup(structure, "data") + f"pair_coeff * * {MODEL} H O\n"
    script += "neighbor 0.3 bin\nneigh_modify every 4 delay 0 check no\nfix 1 all nve\n"
    script += 'timestep 0.0001\nrun 1\nprint "steps begin"\nrun 12 pre no post no\n'
    output = run(
        script + 'print "steps end"\n', ranks=ranks, KOKKOS_TOOLS_LIBS=str(compile_tool(tmp_path))
    )
    (line,) = re.findall("TDN with KOKKOS.*", output)
    assert line == "TDN with KOKKOS (OpenMP, 2 thread(s)): positions and pairs in place"
    everything = re.findall(r"copy \[(.*)\] from \[(.*)\] of (\d+) bytes", output)
    assert any(int(size) >= 8 * len(structure.species) for *_, size in everything)
    steps = output[output.index("steps begin") : output.rindex("steps end")]
    copies = re.findall(r"copy \[(.*)\] from \[(.*)\] of (\d+) bytes", steps)
    assert copies  # of the flags with which a list is built
    large = [copy for copy in copies if int(copy[2]) >= 8 * len(structure.species)]
    assert not large


def test_one_message_for_each_exchange(
    run: Runner, tmp_path: Path, shared_files: SharedFiles
) -> None:
    """As many exchanges of as many bytes as in the plain style, and no more messages.

    Two ranks beside each other along x send rows to the left and to the right.
    """
    shared_files.export(NETWORK)
    structure = CELLS["orthogonal"]
    structure.write(tmp_path / "data")
    script = "processors 2 1 1\n" + setup(structure, "data")
    script += f"pair_coeff * * {MODEL} H O\nneighbor 0.3 bin\nfix 1 all nve\n"
    script += "timestep 0.0001\nrun 3\n"
    tool = str(compile_tool(tmp_path))
    outputs = [run(script, ranks=2, plain=plain, KOKKOS_TOOLS_LIBS=tool) for plain in (True, False)]
    plain, line = (re.findall("TDN communication per step: .*", output) for output in outputs)
    assert len(plain) == 1 and line == plain
    forward, reverse = map(int, re.search(r"(\d+) forward .* (\d+) reverse", line[0]).groups())
    layers = CONFIGS[NETWORK].num_layers
    assert layers == 3 and forward == 2 * layers - 1 and reverse == 0
    evaluations = 4
    packed = re.findall(r"rows packed (\d+) times", outputs[1])
    assert packed == [str(2 * forward * evaluations)] * 2


def grid(repeats: int = 4) -> Structure:
    sites = np.arange(repeats) * 2.6
    positions = np.stack(np.meshgrid(sites, sites, sites, indexing="ij"), axis=-1).reshape(-1, 3)
    rng = np.random.default_rng(5)
    positions += rng.normal(scale=0.05, size=positions.shape) + 0.5
    species = rng.integers(0, 2, len(positions))
    return Structure(species, positions, np.eye(3) * 2.6 * repeats)


MIGRATION = """\
velocity all create 1500 99
neighbor 0.5 bin
neigh_modify delay 0 every 1 check yes
compute proc all property/atom proc
fix 1 all nve
timestep 0.0002
thermo 200
thermo_style custom step pe etotal ke
thermo_modify format float %.17g
dump out all custom 2000 {name}.dump id x y z fx fy fz c_proc
dump_modify out sort id format float %.17g
run 2000
"""
AGAIN = """\
read_dump {name}.dump 2000 x y z box no
thermo_style custom step pe
thermo_modify format float %.17g
dump out all custom 1 again.dump id x y z fx fy fz
dump_modify out sort id format float %.17g
run 0
"""


@pytest.mark.slow
@pytest.mark.parametrize("decomposition", ["brick", "tiled"])
def test_atoms_migrate(run: Runner, tmp_path: Path, decomposition: str) -> None:
    """2000 steps on 4 ranks: the last one is what the plain style finds on one rank."""
    structure = grid()
    structure.write(tmp_path / "data")
    head = setup(structure, "data") + "pair_coeff * * toy2.tdn.pth H O\n"
    tiles = "comm_style tiled\nfix tiles all balance 100 1.0 rcb\n"
    script = head + (tiles if decomposition == "tiled" else "")
    rows = thermo_rows(run(script + MIGRATION.format(name="migrated"), ranks=4))
    assert [row[0] for row in rows] == list(range(0, 2001, 200))
    frames = (tmp_path / "migrated.dump").read_text().split("ITEM: TIMESTEP")[1:]
    first, last = (np.loadtxt(frame.splitlines()[9:]) for frame in frames)
    moved = (first[:, 7] != last[:, 7]).mean()
    assert moved > 0.25  # of the atoms are on another rank
    again = run(head + AGAIN.format(name="migrated"), plain=True)
    assert thermo_rows(again)[0][1] == pytest.approx(rows[-1][1], rel=1e-12)
    want = np.loadtxt(tmp_path / "again.dump", skiprows=9)
    shift = (last[:, 1:4] - want[:, 1:4]) / structure.cell[0, 0]
    np.testing.assert_allclose(shift, shift.round(), rtol=0, atol=1e-13)  # of whole cells
    scale = np.abs(want[:, 4:7]).max()
    np.testing.assert_allclose(last[:, 4:7], want[:, 4:7], rtol=0, atol=1e-11 * scale)
    total = np.array([row[2] for row in rows])
    assert np.abs(total - total[0]).max() < 0.01 * rows[-1][3]


DUMP = """\
dump out all custom 1 {name} id x y z fx fy fz c_pe {extra}
dump_modify out sort id format float %.17g
"""
THERMO = """\
compute pe all pe/atom
thermo 1
thermo_style custom step pe press pxx pyy pzz pxy pxz pyz
thermo_modify format float %.17g
"""
# without energies of atoms, which the host adds up
TOTALS = THERMO.replace("compute pe all pe/atom\n", "")
# what is done with a box of 64 atoms: options of the style, file, commands, columns of the dump
FEATURES = {
    "units real": ("", "toy2.tdn.pth", "fix 1 all nve\n{dump}run 5\n", ""),
    "float32": ("", "toy2f.tdn.pth", "fix 1 all nve\n{dump}run 2\n", ""),
    "attention": ("", "attention_1.tdn.pth", "fix 1 all nve\n{dump}run 3\n", ""),
    "direct": (
        "direct yes",
        "attention_1_forces-direct.tdn.pth",
        "fix 1 all nve\n{dump}run 3\n",
        "",
    ),
    "exchange alone": ("comm exchange", MODEL, "fix 1 all nve\n{dump}run 3\n", ""),
    "no e0": ("e0 no", MODEL, "fix 1 all nve\n{dump}run 3\n", ""),
    "committee": (
        "",
        COMMITTEE,
        "fix deviation all pair 1 tdn force_deviation 1\nfix 1 all nve\n{dump}run 3\n",
        "f_deviation",
    ),
    "npt": ("", MODEL, "fix 1 all npt temp 300 300 0.1 tri 0 0 1\n{dump}run 5\n", ""),
    "minimize": ("", "toy2.tdn.pth", "{dump}min_style fire\nminimize 0 1e-4 5 100\n", ""),
    "types change": ("", MODEL, "{dump}run 0\nset atom 1*9 type 2\nrun 0\nrun 2\n", ""),
}


@pytest.mark.parametrize("feature", FEATURES)
@pytest.mark.parametrize("ranks", [1, 2])
def test_features(
    run: Runner,
    tmp_path: Path,
    shared_files: SharedFiles,
    feature: str,
    ranks: int,
) -> None:
    """What tdn can is what tdn/kk can: the same numbers along some steps."""
    options, model, commands, extra = FEATURES[feature]
    shared_files.export(NETWORK)
    if model == COMMITTEE:
        members = [shared_files.checkpoint("l1"), shared_files.checkpoint("default", 2)]
        shared_files.get(COMMITTEE, partial(export_model, members))
    if "attention" in model:
        changes = {"forces": "direct"} if feature == "direct" else {}
        shared_files.export("attention", **changes)
    structure = grid()
    structure.write(tmp_path / "data")
    units = "real" if feature == "units real" else "metal"
    script = setup(structure, "data", f"tdn {options}", units)
    script += f"pair_coeff * * {model} H O\n" + THERMO
    if feature == "npt":
        script = script.replace("read_data data\n", "read_data data\nchange_box all triclinic\n")
    if feature == "direct":
        script = script.replace(" press pxx pyy pzz pxy pxz pyz", "")
    script += f"timestep {1.0 if units == 'real' else 0.001}\n"
    want = got = None
    for plain in (True, False):
        name = f"dump.{plain}"
        dump = DUMP.format(name=name, extra=extra)
        output = run(script + commands.format(dump=dump), plain=plain, ranks=ranks)
        table = np.array(
            [
                [float(word) for word in line.split()]
                for line in (tmp_path / name).read_text().splitlines()
                if len(line.split()) == 8 + len(extra.split()) and not line.startswith("ITEM")
            ]
        )
        want, got = got, (np.array(thermo_rows(output)), table)
    for found, expected in zip(got, want, strict=True):
        assert found.shape == expected.shape and len(found)
        scale = np.abs(expected).max(0, keepdims=True)
        tolerance = 1e-5 if feature == "float32" else 1e-9  # rounding grows in some steps
        assert np.all(np.abs(found - expected) <= tolerance * scale + 1e-12)


def test_loops_of_few_and_of_many_atoms(
    run: Runner, tmp_path: Path, shared_files: SharedFiles
) -> None:
    """One thread goes through few atoms, all threads of KOKKOS through more than 4096."""
    shared_files.export(NETWORK)
    for repeats in (15, 17):
        structure = grid(repeats)
        assert (len(structure.species) > 4096) == (repeats == 17)
        structure.write(tmp_path / "data")
        script = setup(structure, "data") + f"pair_coeff * * {MODEL} H O\n" + TOTALS + "run 0\n"
        want, found = (thermo_rows(run(script, plain=plain)) for plain in (True, False))
        scale = np.abs(want[0][2:]).max()  # of pressures, some of which vanish
        assert found[0][1] == pytest.approx(want[0][1], rel=1e-12)
        np.testing.assert_allclose(found[0][2:], want[0][2:], rtol=0, atol=1e-11 * scale)


def test_insertions(run: Runner, tmp_path: Path) -> None:
    """Commands that add and take atoms between runs, and a rank that loses all of its own."""
    structure = grid()
    structure.write(tmp_path / "data")
    script = setup(structure, "data") + "pair_coeff * * toy2.tdn.pth H O\n" + THERMO
    script += (
        "run 0\nregion low block INF INF INF INF INF 5.0\ndelete_atoms region low\nrun 0\n"
        "create_atoms 1 single 1.0 1.0 1.0\nrun 0\nreplicate 2 1 1\nrun 0\n"
    )
    want = thermo_rows(run(script, plain=True))
    assert len(want) == 4
    for ranks in (1, 4):
        np.testing.assert_allclose(thermo_rows(run(script, ranks=ranks)), want, rtol=1e-10)


def test_keywords_given_again(run: Runner, shared_files: SharedFiles, tmp_path: Path) -> None:
    """Energies of isolated atoms are left out from the next run on, without a new model."""
    shared_files.export(NETWORK)
    structure = grid()
    structure.write(tmp_path / "data")
    script = setup(structure, "data") + f"pair_coeff * * {MODEL} H O\n" + TOTALS
    script += "run 0\npair_style tdn e0 no\nrun 0\n"
    want = thermo_rows(run(script, plain=True))
    assert abs(want[1][1] - want[0][1]) > 1.0  # eV
    np.testing.assert_allclose(thermo_rows(run(script)), want, rtol=1e-9)


def test_without_kokkos_switched_on(run: Runner, tmp_path: Path) -> None:
    structure = random_structure(1, 9, None)
    structure.write(tmp_path / "data")
    output = run(setup(structure, "data", "tdn/kk"), arguments=(), fails=True)
    line = only_error(output)
    assert "KOKKOS is off; start LAMMPS with -k on, or use pair_style tdn" in line


def test_threads_are_those_of_kokkos(run: Runner, tmp_path: Path) -> None:
    structure = random_structure(1, 9, None)
    structure.write(tmp_path / "data")
    script = setup(structure, "data") + "pair_coeff * * toy1.tdn.pth H O\nrun 0\n"
    for threads in (1, 2):
        output = run(script, arguments=("-k", "on", "t", str(threads), "-sf", "kk"))
        assert f"running on cpu with {threads} thread(s) per rank" in output
