"""Molecular dynamics on a GPU, and files that start from edges. Needs a GPU."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from cuda_problems import require_gpu
from shared_files import SharedFiles

from .conftest import LammpsRunner, setup, thermo_rows
from .test_gpu import BOUND, assert_close, write_network
from .test_parallel import lattice, structures

pytestmark = pytest.mark.gpu

DYNAMICS = """
velocity all create 300 99
neighbor 0.3 bin
neigh_modify delay 0 every 5 check no
fix 1 all nve
timestep 0.0002
thermo 10
thermo_style custom step pe etotal press
thermo_modify format float %.17g
run 30
"""


@pytest.fixture(scope="module", autouse=True)
def gpu() -> None:
    require_gpu()


def test_trajectories_agree(lmp: LammpsRunner, shared_files: SharedFiles, tmp_path: Path) -> None:
    """Lists are rebuilt and go over again; rows of atoms go from owners to ghosts alone."""
    path = shared_files.get("gpu_float64.tdn.pth", partial(write_network, dtype="float64"))
    structure = lattice()
    structure.write(tmp_path / "data.start")
    rows = []
    for device, ranks in (("cpu", 1), ("cuda", 1), ("cuda", 2)):
        script = setup(structure, "data.start", f"tdn device {device}")
        output = lmp(script + f"pair_coeff * * {path.name} H O\n" + DYNAMICS, ranks=ranks)
        rows.append(thermo_rows(output)[-1])
    np.testing.assert_allclose(rows[1:], [rows[0]] * 2, rtol=1e-8)
    (line,) = re.findall("TDN communication per step: .*", output)
    assert "5 forward exchange" in line and ", 0 reverse" in line


def test_files_without_positions_agree(measure: Callable, shared_files: SharedFiles) -> None:
    """They are evaluated from edges."""
    make = partial(write_network, dtype="float64", fused=False)
    path = shared_files.get("gpu_edges.tdn.pth", make)
    cases = structures()[:2]
    alone = measure(cases, path.name, style="tdn device cpu")
    there = measure(cases, path.name, style="tdn device cuda")
    for want, found in zip(alone, there, strict=True):
        assert_close(found, want, BOUND["float64"])
