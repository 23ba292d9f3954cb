"""The pair style on a GPU gives what it gives on the CPU. Needs a GPU and kernels built for it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from cuda_problems import require_gpu
from shared_files import SharedFiles
from structures import random_model

from tdn.network.checkpoint import save_model

from .conftest import LammpsRunner, Measured, setup, thermo_rows
from .test_closed_form import random_structure
from .test_parallel import FIELDS, structures

pytestmark = pytest.mark.gpu

# sums in another order, in units of the largest number; forces cancel by two digits at most
BOUND = {"float64": 1e-10, "float32": 3e-4}


@pytest.fixture(scope="module", autouse=True)
def gpu() -> None:
    require_gpu()


def assert_close(found: Measured, want: Measured, bound: float) -> None:
    assert found.energy == pytest.approx(want.energy, rel=bound)
    for name in FIELDS:
        scale = np.abs(getattr(want, name)).max()
        np.testing.assert_allclose(
            getattr(found, name), getattr(want, name), rtol=0, atol=bound * scale, err_msg=name
        )


def write_network(path: Path, dtype: str, **options: bool) -> None:
    """A compiled network of three layers, with repulsion of nuclei."""
    from tdn_export import export_model

    checkpoint = path.with_suffix(".pt")
    save_model(checkpoint, random_model("default", num_layers=3, zbl=True), {})
    export_model(checkpoint, path, dtype=dtype, **options)


@pytest.mark.parametrize("neighbors", ["own", "lammps"])
@pytest.mark.parametrize("dtype", BOUND)
def test_gpu_agrees(
    measure: Callable, shared_files: SharedFiles, dtype: str, neighbors: str
) -> None:
    """With two ranks both share the GPU, and rows of ghosts travel through the host."""
    path = shared_files.get(f"gpu_{dtype}.tdn.pth", partial(write_network, dtype=dtype))
    cases = structures()
    alone = measure(cases, path.name, style="tdn device cpu neighbors lammps")
    for ranks in (1, 2):
        style = f"tdn device cuda neighbors {neighbors}"
        there = measure(cases, path.name, style=style, ranks=ranks)
        for want, found in zip(alone, there, strict=True):
            assert_close(found, want, BOUND[dtype])


GRAPHS = """\
neighbor 0.2 bin
neigh_modify every 1 delay 0 check yes
velocity all create 1500 5 loop geom mom yes
fix 1 all nve/limit 0.02
timestep 0.0005
compute stress all stress/atom NULL
thermo 10
thermo_style custom step pe etotal press
thermo_modify format float %.17g
dump 1 all custom 30 {dump} id x y z fx fy fz c_stress[1]
dump_modify 1 sort id format float %.17g
run 60
"""


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("dtype", BOUND)
def test_graphs_change_no_bit(
    lmp: LammpsRunner, shared_files: SharedFiles, tmp_path: Path, dtype: str, ranks: int
) -> None:
    """Steps with and without per-atom virials, through several builds of the list.

    On two ranks nothing is recorded, and lists keep their places all the same.
    """
    path = shared_files.get(f"gpu_{dtype}.tdn.pth", partial(write_network, dtype=dtype))
    structure = random_structure(3, 60, np.diag([12.0, 9.5, 10.0]), distance=1.6)
    structure.write(tmp_path / "data")
    rows, dumps = [], []
    for graphs in ("no", "yes"):
        script = setup(structure, "data", f"tdn device cuda graphs {graphs}")
        script += f"pair_coeff * * {path.name} H O\n" + GRAPHS.format(dump=f"{graphs}.dump")
        output = lmp(script, ranks=ranks)
        assert "cannot be recorded" not in output
        rows.append(thermo_rows(output))
        dumps.append((tmp_path / f"{graphs}.dump").read_text())
        builds = next(x for x in output.splitlines() if x.startswith("Neighbor list builds"))
        assert int(builds.split()[-1]) > 2
    assert len(rows[0]) == 7
    assert rows[0] == rows[1]
    assert dumps[0] == dumps[1]


def test_same_bits_every_time(measure: Callable, models: Path) -> None:
    cases = structures()[:1]
    first, second = (measure(cases, "toy2.tdn.pth", style="tdn device cuda:0")[0] for _ in range(2))
    assert first.energy == pytest.approx(second.energy, rel=1e-13)
    np.testing.assert_allclose(first.forces, second.forces, rtol=0, atol=1e-12)
