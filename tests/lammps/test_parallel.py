"""Several MPI ranks give what one rank gives."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from .conftest import LammpsRunner, Measured, Structure
from .test_closed_form import TILTED, random_structure

FIELDS = ("forces", "atom_energy", "pressure", "atom_stress", "centroid_stress")


def slab() -> Structure:
    """Atoms in one end of a long cell, so that ranks at the other end have none."""
    structure = random_structure(11, 20, np.diag([6.0, 6.0, 6.0]))
    return Structure(structure.species, structure.positions, np.diag([6.0, 6.0, 60.0]))


def structures() -> list[Structure]:
    return [
        random_structure(3, 60, np.diag([12.0, 9.5, 10.0])),
        random_structure(6, 25, TILTED),
        random_structure(4, 3, np.diag([2.6, 3.1, 3.9])),
        slab(),
    ]


def assert_same(found: Measured, want: Measured) -> None:
    assert found.energy == pytest.approx(want.energy, rel=1e-12)
    for name in FIELDS:
        scale = np.abs(getattr(want, name)).max()
        np.testing.assert_allclose(
            getattr(found, name), getattr(want, name), rtol=0, atol=1e-11 * scale, err_msg=name
        )


@pytest.mark.parametrize("newton", ["on", "off"])
@pytest.mark.parametrize("ranks", [2, 4])
def test_ranks_agree(measure: Callable, ranks: int, newton: str) -> None:
    cases = structures()
    alone = measure(cases, "toy2.tdn.pth")
    together = measure(cases, "toy2.tdn.pth", ranks=ranks, before=f"newton {newton}")
    for want, found in zip(alone, together, strict=True):
        assert_same(found, want)


def test_tiled_decomposition(measure: Callable) -> None:
    cases = [slab()]
    alone = measure(cases, "toy2.tdn.pth")
    cases[0].extra = ["comm_style tiled", "balance 1.0 rcb"]
    together = measure(cases, "toy2.tdn.pth", ranks=3)
    assert_same(together[0], alone[0])


def test_float32_features(measure: Callable) -> None:
    cases = structures()[:1]
    alone = measure(cases, "toy2f.tdn.pth")[0]
    together = measure(cases, "toy2f.tdn.pth", ranks=2)[0]
    np.testing.assert_allclose(together.forces, alone.forces, rtol=0, atol=2e-5)


DYNAMICS = """\
units metal
newton {newton}
region box block 0 12 0 10 0 10
create_box 2 box
create_atoms 1 random 40 11 box overlap 1.0 maxtry 500
create_atoms 2 random 20 12 box overlap 1.0 maxtry 500
mass 1 1.008
mass 2 15.999
pair_style tdn
pair_coeff * * toy2.tdn.pth H O
minimize 0 0 20 20
velocity all create 600 99
neighbor 0.5 bin
fix 1 all nve
timestep 0.0002
thermo 100
thermo_style custom step pe etotal press
thermo_modify format float %.17g
run 300
"""


def test_trajectories_agree(lmp: LammpsRunner) -> None:
    """Atoms change ranks; energies after 300 steps differ by the growth of rounding alone."""
    from .conftest import thermo_rows

    alone = np.array(thermo_rows(lmp(DYNAMICS.format(newton="on")))[-1])
    for newton in ("on", "off"):
        together = np.array(thermo_rows(lmp(DYNAMICS.format(newton=newton), ranks=2))[-1])
        np.testing.assert_allclose(together, alone, rtol=1e-6)
