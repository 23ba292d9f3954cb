"""Ranks whose memory, libraries or folders are not those of the others: no rank waits for them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from .conftest import on_ranks, run_command
from .special_toys import write_hungry
from .test_build import compile_loader
from .test_failures import ATOMS

UnlikeRanks = Callable[..., list[str]]


@pytest.fixture
def unlike_ranks(plugin: Path, models: Path, tmp_path: Path) -> UnlikeRanks:
    """Function that runs a script on two ranks, one unlike the other, and gives the errors.

    ``kinds`` are the lines that it gives.

    ``bad`` is the rank that gets ``variables`` of the environment and ``before`` its command, and
    ``other`` are variables of the other one.
    """
    from tdn_lammps.runtime import find_program

    def run(
        script: str,
        bad: int,
        variables: dict[str, str] | None = None,
        *,
        other: dict[str, str] | None = None,
        before: Sequence[str] = (),
        kinds: tuple[str, ...] = ("ERROR",),
    ) -> list[str]:
        (tmp_path / "in.test").write_text(script)
        lmp = [find_program("lmp"), "-in", "in.test", "-log", "none"]
        ranks = []
        for rank in range(2):
            settings = (variables if rank == bad else other) or {}
            environment = [word for pair in settings.items() for word in ("-env", *pair)]
            ranks.append([*environment, *(before if rank == bad else ()), *lmp])
        # MPICH may lose the last lines of ranks that sleep while they wait
        environment = {"LAMMPS_POTENTIALS": str(models), "LD_PRELOAD": ""}
        output = run_command(on_ranks(*ranks), tmp_path, fails=True, **environment)
        assert "Loop time" not in output
        return [line for line in output.splitlines() if line.startswith(kinds)]

    return run


# 1372 atoms per rank, each with 268 neighbours in its list
CRYSTAL = ATOMS.replace("create_atoms 1 single 1 1 1", "lattice sc 1.5\ncreate_atoms 1 box")
LARGE = CRYSTAL.replace("0 10", "0 21").replace("model", "toy2")
REFUSES = """
#include <cstdlib>
#include <new>
void *operator new(std::size_t size)
{
  void *memory = size > 4 << 20 ? nullptr : std::malloc(size ? size : 1);
  if (!memory) throw std::bad_alloc();
  return memory;
}
"""


@pytest.mark.parametrize("bad", [0, 1])
def test_bad_alloc(unlike_ranks: UnlikeRanks, tmp_path: Path, bad: int) -> None:
    """C++ has no memory for the edges of one rank; the other waits for positions or features."""
    (tmp_path / "refuses.cpp").write_text(REFUSES)
    command = [os.environ.get("CXX", "c++"), "-shared", "-fPIC", "refuses.cpp", "-o", "refuses.so"]
    subprocess.run(command, cwd=tmp_path, check=True)
    (line,) = unlike_ranks(LARGE, bad, {"LD_PRELOAD": str(tmp_path / "refuses.so")})
    assert line.startswith(f"ERROR on proc {bad}: Pair style tdn: out of memory")
    assert "(1372 atoms" in line


def test_memory_limit(unlike_ranks: UnlikeRanks, tmp_path: Path) -> None:
    """A limit that only one rank has: a warning of all, before that rank runs out of memory."""
    write_hungry(tmp_path / "hungry.tdn.pth")
    script = CRYSTAL.replace("0 10", "0 9").replace("model", "hungry")  # 216 atoms, 17 GB
    limited = ["sh", "-c", 'ulimit -v 6000000 && exec "$@"', "sh"]
    kinds = "WARNING: Pair style tdn", "ERROR"
    warning, error = unlike_ranks(script, 1, before=limited, kinds=kinds)
    found = re.search(r"needs about (\S+) GB on a rank, .* is (\S+) GB", warning)
    needed, left = (float(number) for number in found.groups())
    assert left < 3.0 < needed  # half of what the limit leaves
    assert error.startswith("ERROR on proc 1: Pair style tdn") and "out of memory" in error


@pytest.mark.parametrize("bad", [0, 1])
@pytest.mark.parametrize("file", ["libpair_tdn.so", "libtdn_ops.so"])
def test_library_that_cannot_be_loaded(
    unlike_ranks: UnlikeRanks, plugin: Path, tmp_path: Path, bad: int, file: str
) -> None:
    """The error names the rank and the file, whichever rank it is."""
    folder = tmp_path / "lammps"
    shutil.copytree(plugin.parent, folder)
    (folder / file).write_bytes((folder / "libpair_tdn.so").read_bytes()[:5000])
    (line,) = unlike_ranks(ATOMS, bad, {"TDN_LIB_DIR": str(tmp_path)})
    assert f"on rank {bad}: cannot load the plugin: {folder / file} is damaged" in line


@pytest.mark.parametrize("bad", [0, 1])
def test_plugin_that_is_missing(unlike_ranks: UnlikeRanks, tmp_path: Path, bad: int) -> None:
    """That rank does not know the style and waits in LAMMPS; the other one gives up."""
    import torch

    from tdn_lammps.build import installed_lammps

    (tmp_path / "lammps").mkdir()
    compile_loader(
        tmp_path / "lammps", installed_lammps().version, str(torch.__version__), patience=2
    )
    lines = unlike_ranks(
        ATOMS, bad, {"TDN_LIB_DIR": str(tmp_path / "nothing")}, other={"TDN_LIB_DIR": str(tmp_path)}
    )
    # beside it, in any order, may stand that the other rank does not know the style
    (line,) = [line for line in lines if "other ranks have not come here" in line]
    assert line.startswith(f"ERROR on proc {1 - bad}: Pair style tdn: other ranks")
    assert "run there: tdn-lammps info" in line
