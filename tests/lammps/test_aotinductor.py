"""Machine code in LAMMPS: a file *.tdn.pt2 gives what the TorchScript file *.tdn.pth gives."""

from __future__ import annotations

import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import forks
import numpy as np
import pytest
from archives import change_json
from shared_files import MACHINE_CODE, SharedFiles

from .conftest import (
    LammpsRunner,
    Measured,
    Structure,
    measure_structures,
    on_ranks,
    only_error,
    run_command,
)
from .test_closed_form import TILTED, random_structure
from .test_parallel import assert_same, slab

pytestmark = pytest.mark.slow


# Compilation takes time. As few layers as exchange features: attention already before its first.
# With hidden layers of the radial functions of attention: tests/export/test_aotinductor.py.
NETWORKS = {"l3": MACHINE_CODE, "attention": {"num_layers": 1, "radial_hidden": ()}}


@pytest.fixture(scope="module", params=NETWORKS)
def name(request: pytest.FixtureRequest, compiler: None, shared_files: SharedFiles) -> str:
    """A network with an exchange in float64, in both kinds of files, which have this name."""
    for backend in ("torchscript", "aotinductor"):
        changes = NETWORKS[request.param]
        path = shared_files.export(request.param, backend=backend, **changes)
    return path.name.removesuffix(".tdn.pt2")


def structures() -> list[Structure]:
    """Many atoms, few, one, none on some ranks; a single edge of an atom to its own image."""
    return [
        random_structure(3, 60, np.diag([12.0, 9.5, 10.0])),
        random_structure(6, 25, TILTED),
        random_structure(4, 3, np.diag([2.6, 3.1, 3.9])),
        random_structure(1, 9, None),
        random_structure(1, 1, None),
        random_structure(2, 2, np.diag([30.0, 30.0, 30.0])),
        slab(),
    ]


@pytest.fixture(scope="module")
def expected(
    plugin: Path, models: Path, name: str, tmp_path_factory: pytest.TempPathFactory
) -> list[Measured]:
    """What the TorchScript file gives."""
    folder = tmp_path_factory.mktemp("expected")
    return measure_structures(folder, models, structures(), f"{name}.tdn.pth")


@pytest.mark.parametrize(
    ("ranks", "style"), [(1, "tdn"), (1, "tdn comm exchange"), (2, "tdn"), (3, "tdn"), (4, "tdn")]
)
def test_same_as_torchscript(
    measure: Callable, name: str, expected: list[Measured], ranks: int, style: str
) -> None:
    found = measure(structures(), f"{name}.tdn.pt2", ranks=ranks, style=style)
    for a, b in zip(expected, found, strict=True):
        assert_same(b, a)


ATOMS = """\
units metal
region box block 0 10 0 10 0 10
create_box 2 box
create_atoms 1 single 1 1 1
create_atoms 2 single 1 1 2
mass * 1.0
pair_style tdn
pair_coeff * * {} H O
run 0
"""

OTHERS = {
    "device": (lambda m: m["target"].update(device="cuda"), "this torch sees no GPU"),
    "torch": (lambda m: m["target"].update(torch="1.0"), "is compiled for torch 1.0, found"),
    "processor": (lambda m: m["target"].update(processor="AVX9000"), "processors with AVX9000"),
    "no target": (lambda m: m.pop("target"), "does not say for what it is compiled"),
    "committee": (lambda m: m.update(committee=2), "--backend torchscript"),
}


def test_other_machines(lmp: LammpsRunner, models: Path, name: str, tmp_path: Path) -> None:
    """One line that says what was found, what the file needs, and what to do."""
    if not name.startswith("attention"):
        pytest.skip("one network will do")
    for change, expected in OTHERS.values():
        change_json(models / f"{name}.tdn.pt2", tmp_path / "model.tdn.pt2", change)
        output = lmp(ATOMS.format("model.tdn.pt2"), fails=True)
        line = only_error(output)
        assert expected in line and "model.tdn.pt2" in line


def test_nothing_is_left_behind(lmp: LammpsRunner, name: str, tmp_path: Path) -> None:
    """Machine code is unpacked to TMPDIR, and gone when the run begins; no room is an error."""
    folder = tmp_path / "unpacked"
    folder.mkdir()
    lmp(ATOMS.format(f"{name}.tdn.pt2"), ranks=2, TMPDIR=str(folder))
    assert not list(folder.iterdir())
    output = lmp(ATOMS.format(f"{name}.tdn.pt2"), fails=True, TMPDIR=str(tmp_path / "missing"))
    assert "set TMPDIR to one" in output


@pytest.mark.parametrize("bad", [0, 1])
def test_no_room_on_one_rank(
    models: Path, name: str, tmp_path: Path, plugin: Path, bad: int
) -> None:
    """The other rank has unpacked its machine code by then, and stops with the same message."""
    from tdn_lammps.runtime import find_program

    if not name.startswith("attention"):
        pytest.skip("one network will do")
    (tmp_path / "in.test").write_text(ATOMS.format(f"{name}.tdn.pt2"))
    lmp = [find_program("lmp"), "-in", "in.test", "-log", "none"]
    folders = [tmp_path / "missing" if rank == bad else tmp_path for rank in range(2)]
    command = on_ranks(*(["-env", "TMPDIR", str(folder), *lmp] for folder in folders))
    output = run_command(command, tmp_path, fails=True, LAMMPS_POTENTIALS=str(models))
    line = only_error(output)
    assert f"{name}.tdn.pt2: its machine code cannot be unpacked" in line


# argv: folder, files; every one is damaged in many ways and given to one and the same LAMMPS
RUNNER = """
import random, sys
from pathlib import Path
import tdn_lammps

folder, *sources = sys.argv[1:]
lmp = tdn_lammps.lammps(cmdargs=["-screen", "none", "-log", "none", "-nocite"])
for command in ATOMS.splitlines()[:-2]:
    lmp.command(command)
for source in map(Path, sources):
    content = source.read_bytes()
    target = Path(folder) / source.name
    for seed in range(VARIANTS):
        rng = random.Random(seed)
        data = bytearray(content)
        place = rng.randrange(len(data))
        if rng.random() < 0.5:  # the table of contents
            place = max(0, len(data) - rng.randrange(1, 1200))
        how = rng.choice(["bit", "bit", "cut", "zero", "drop"])
        if how == "bit":
            data[place] ^= 1 << rng.randrange(8)
        elif how == "cut":
            del data[place:]
        elif how == "zero":
            data[place : place + 8] = bytes(len(data[place : place + 8]))
        else:
            del data[place : place + 8]
        target.write_bytes(data)
        print(source.name, seed, how, place, flush=True)
        try:
            lmp.command(f"pair_coeff * * {target} H O")
            print("loads", flush=True)
        except Exception as error:
            assert source.name in str(error) and "Pair style tdn" in str(error), str(error)
            print("refused", flush=True)
"""


def test_damaged_files(models: Path, name: str, tmp_path: Path, plugin: Path) -> None:
    """Bits flipped, parts missing: an error, or what changed is not read; no crash, no hang."""
    if not name.startswith("attention"):
        pytest.skip("one network will do")
    variants = 150
    runner = f"ATOMS, VARIANTS = {ATOMS!r}, {variants}\n{RUNNER}"
    files = [str(models / f"{name}{suffix}") for suffix in (".tdn.pth", ".tdn.pt2")]
    done = subprocess.run(
        [forks.python(), "-c", runner, str(tmp_path), *files],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-200:] + done.stderr[-2000:]
    results = Counter(line for line in done.stdout.splitlines() if " " not in line)
    assert results.total() == 2 * variants
    assert results["refused"] > 1.4 * variants
