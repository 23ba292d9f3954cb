"""When one rank fails, the whole run ends with its message and nobody waits for ever."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import LammpsRunner, on_ranks, only_error, run_command
from .special_toys import MANY_ATOMS, write_faulty, write_hungry

# three quarters of the atoms in one half of the cell: with two ranks along x, one has too many
UNEVEN = f"""\
units metal
processors 2 * *
region box block 0 40 0 12 0 12
region left block 0 20 0 12 0 12
region right block 20 40 0 12 0 12
create_box 2 box
create_atoms 1 random {MANY_ATOMS + 20} 11 left overlap 1.1 maxtry 900
create_atoms 2 random {MANY_ATOMS // 3} 12 right overlap 1.1 maxtry 900
mass * 1.0
pair_style tdn
pair_coeff * * faulty.tdn.pth H O
run 0
"""

ATOMS = """\
units metal
region box block 0 10 0 10 0 10
create_box 2 box
create_atoms 1 single 1 1 1
mass * 1.0
pair_style tdn
pair_coeff * * model.tdn.pth H O
run 0
"""


@pytest.mark.parametrize(
    ("fault", "expected"),
    [("raises", "more atoms than this potential likes"), ("out_of_memory", "out of memory")],
)
def test_exception_on_one_rank(
    lmp: LammpsRunner, tmp_path: Path, fault: str, expected: str
) -> None:
    """The other rank waits for features at that time."""
    write_faulty(tmp_path / "faulty.tdn.pth", fault)
    output = lmp(UNEVEN, ranks=2, fails=True)
    (line,) = [text for text in output.splitlines() if "Pair style tdn" in text]
    assert line.startswith("ERROR on proc 0") and expected in line
    assert f"({MANY_ATOMS + 20} atoms" in line
    assert "Loop time" not in output


def test_same_input_runs_where_no_rank_fails(lmp: LammpsRunner, tmp_path: Path) -> None:
    write_faulty(tmp_path / "faulty.tdn.pth", "raises")
    even = UNEVEN.replace("right block 20 40", "right block 0 40").replace(
        "left block 0 20", "left block 0 40"
    )
    assert "Loop time" in lmp(even, ranks=2)


def neighbors_in_plane() -> list[int]:
    """Plane of each neighbor of an atom within 4 A in a simple cubic lattice of 1.5 A."""
    steps = range(-3, 4)
    vectors = [(i, j, k) for i in steps for j in steps for k in steps]
    return [v[0] for v in vectors if 0 < sum(n * n for n in v) < (4.0 / 1.5) ** 2]


def test_too_little_memory(lmp: LammpsRunner, tmp_path: Path) -> None:
    """A megabyte for each of half a million edges: a warning, once, and the run goes on.

    Nothing touches that memory, so the run does not fail.
    """
    with open("/proc/meminfo") as file:
        total = next(int(line.split()[1]) for line in file if line.startswith("MemTotal"))
    if total > 300e6:
        pytest.skip("this machine has the memory")
    write_hungry(tmp_path / "faulty.tdn.pth")
    small = lmp(UNEVEN.replace("processors 2 * *", ""))
    assert "Loop time" in small and "may not fit" not in small
    dense = ATOMS.replace("create_atoms 1 single 1 1 1", "lattice sc 1.5\ncreate_atoms 1 box")
    dense = dense.replace("0 10", "0 30").replace("model.tdn", "faulty.tdn") + "run 0\n"
    # the last: the first rank has no atoms at all, the other one 9 of 20 planes of 400 atoms
    half = "region right block 10.5 INF INF INF INF INF\ncreate_atoms 1 region right"
    right = "processors 2 * *\n" + dense.replace("create_atoms 1 box", half)
    crystal = 8000 * len(neighbors_in_plane())
    slab = sum(400 * (9 - abs(plane)) for plane in neighbors_in_plane())
    for script, ranks, edges in ((dense, 1, crystal), (dense, 2, crystal / 2), (right, 2, slab)):
        output = lmp(script, ranks=ranks)
        assert output.count("Loop time") == 2
        (line,) = [text for text in output.splitlines() if "Pair style tdn" in text]
        assert line.startswith("WARNING") and "use more nodes" in line
        found = re.search(r"needs about (\S+) GB on a rank, .* is (\S+) GB; about (\d+) of", line)
        needed, left, fit = (float(number) for number in found.groups())
        assert 1e9 * needed == pytest.approx(1e6 * edges, rel=0.02)
        atoms = int(re.search(r"Created (\d+) atoms", output)[1])
        assert f"of the {atoms} atoms would fit" in line
        assert fit == pytest.approx(atoms * left / needed, rel=0.02)


@pytest.fixture
def two_folders(plugin: Path, tmp_path: Path) -> Callable[[], str]:
    """Function that runs LAMMPS with rank 0 in folder ``first`` and rank 1 in folder ``second``."""
    from tdn_lammps.runtime import find_program

    def run() -> str:
        (tmp_path / "in.test").write_text(ATOMS)
        lmp = [find_program("lmp"), "-in", str(tmp_path / "in.test"), "-log", "none"]
        folders = [tmp_path / name for name in ("first", "second")]
        for folder in folders:
            folder.mkdir(exist_ok=True)
        command = on_ranks(*(["-wdir", str(folder), *lmp] for folder in folders))
        return run_command(command, tmp_path, fails=True)

    return run


@pytest.mark.parametrize("bad", ["first", "second"])
@pytest.mark.parametrize("how", ["missing", "damaged"])
def test_bad_file_on_one_rank(
    two_folders: Callable[[], str], models: Path, tmp_path: Path, bad: str, how: str
) -> None:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        shutil.copy(models / "toy2.tdn.pth", tmp_path / name / "model.tdn.pth")
    model = tmp_path / bad / "model.tdn.pth"
    if how == "missing":
        model.unlink()
    else:
        model.write_bytes(model.read_bytes()[:3000])
    line = only_error(two_folders())
    assert "model.tdn.pth" in line and ("not found" if how == "missing" else "damaged") in line


@pytest.mark.parametrize("name", ["libpair_tdn.so", "tdnplugin.so"])
def test_truncated_library(plugin: Path, lmp: LammpsRunner, tmp_path: Path, name: str) -> None:
    """Loading half a library ends a process with a bus error and without a word."""
    folder = tmp_path / "lammps"
    shutil.copytree(plugin.parent, folder)
    whole = (folder / name).read_bytes()
    script = "units metal\nregion b block 0 1 0 1 0 1\ncreate_box 1 b\npair_style tdn\n"
    for size in (0, 40, 5000, len(whole) * 2 // 3, len(whole) - 1):
        (folder / name).write_bytes(whole[:size])
        output = lmp(script, fails=True, TDN_LIB_DIR=str(tmp_path))
        assert f"{folder / name} is damaged" in output
        assert "run: tdn-lammps build" in output
    assert output.count("is damaged") == 1
