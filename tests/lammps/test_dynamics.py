"""Long trajectories on several ranks, and the heat flux."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from .conftest import LammpsRunner, Structure, setup, thermo_rows
from .test_closed_form import random_structure
from .test_settings import lattice

# rebuilds every 5 steps; the skin is wide enough for that at this temperature
LONG = """\
pair_coeff * * toy2.tdn.pth H O
neighbor 0.6 bin
neigh_modify every 5 delay 0 check no
velocity all create 2000 5 loop geom mom yes
{twin}timestep 0.0005
compute where all property/atom proc
dump where all custom {nvt} where.dump id c_where
dump_modify where sort id
dump path all custom 20 path.dump id xu yu zu
dump_modify path sort id format float %.17g
fix 1 all nvt temp 1500 1500 0.1
thermo 20
thermo_style custom step pe temp econserve etotal
thermo_modify format float %.17g
run {nvt}
unfix 1
undump where
undump path
fix 1 all nve
run {nve}
"""


@pytest.mark.slow
def test_long_trajectory_on_four_ranks(lmp: LammpsRunner, tmp_path: Path) -> None:
    """While atoms change ranks: the same as on one rank until rounding errors have grown.

    Energies: errors start at 1e-16 and grow by the Lyapunov exponent of a hot liquid, a few per ps,
    hence by much less than a factor of 1e6 over 100 steps of 0.5 fs. Positions: see
    `grown_rounding`. Afterwards energy is conserved equally well.
    """
    structure = lattice(repeats=2, constant=2.2)
    structure.write(tmp_path / "data.start")
    script = setup(structure, "data.start") + LONG
    drift, rows, paths = {}, {}, {}
    for ranks in (1, 4):
        output = lmp(script.format(nvt=800, nve=240, twin=""), ranks=ranks, time_limit=900)
        assert "Neighbor list builds = 160" in output
        paths[ranks] = read_path(tmp_path / "path.dump")
        rows[ranks] = np.array(thermo_rows(output))
        nvt, nve = rows[ranks][:41], rows[ranks][41:]
        assert nvt[-1, 0] == 800 and nve[-1, 0] == 1040
        drift[ranks] = (np.ptp(nvt[:, 3]), np.ptp(nve[:, 4]))
        assert np.ptp(nve[:, 1]) > 20 * drift[ranks][1]  # energy does go back and forth
    np.testing.assert_allclose(rows[4][:6, 1:], rows[1][:6, 1:], rtol=1e-10)
    # trajectories of the same length and temperature, so drifts of the same size
    assert drift[4][0] < 3 * drift[1][0] and drift[4][1] < 3 * drift[1][1]
    lines = (tmp_path / "where.dump").read_text().splitlines()
    first, last = (np.loadtxt(lines[k : k + 64]) for k in (9, 9 + 64 + 9))
    assert set(first[:, 1]) == {0, 1, 2, 3}
    assert np.count_nonzero(first[:, 1] != last[:, 1]) > 10  # atoms have migrated

    lmp(script.format(nvt=100, nve=0, twin=TWIN))
    twin = read_path(tmp_path / "path.dump")
    found = root_mean_square(paths[4][:6] - paths[1][:6])
    assert np.all(found <= grown_rounding(root_mean_square(twin - paths[1][:6])))
    assert found[-1] > 0  # the order of sums does differ


TWIN = "displace_atoms all random 1e-9 1e-9 1e-9 7\n"


def read_path(path: Path) -> np.ndarray:
    """Unwrapped positions of all frames, [frames, N, 3], sorted by id."""
    frames = path.read_text().split("ITEM: TIMESTEP")[1:]
    return np.array([np.loadtxt(frame.splitlines()[9:])[:, 1:] for frame in frames])


def root_mean_square(values: np.ndarray) -> np.ndarray:
    return np.sqrt((values**2).mean(axis=(1, 2)))


def grown_rounding(twin: np.ndarray) -> np.ndarray:
    """How far rounding alone takes a trajectory from another, every 20 steps, in angstrom.

    A twin trajectory, which started 1e-9 angstrom away in random directions, has measured by how
    much such differences grow. Every step adds rounding that grows in the same way from then on.
    Of positions below 16 angstrom it is 2^-49 / sqrt(12). Forces are sums of some 1e2 terms, the
    partial sums as large, which makes 10 * 2^-49 / sqrt(12) eV/A and, over the time in which a
    hydrogen atom responds (1/w = 2 fs), 9649 / 1.008 * 0.002^2 times that in angstrom. Two
    trajectories have twice the variance, and all steps are independent. Each is taken to have grown
    by the largest factor until then.
    """
    position = 2.0**-49 / np.sqrt(12)
    force = 10 * position * 9649 / 1.008 * 0.002**2
    steps = 1 + 20 * np.arange(len(twin))
    growth = np.maximum.accumulate(twin / twin[0])
    return np.sqrt(2 * steps * (position**2 + force**2)) * growth


FLUX = """\
pair_coeff * * toy1.tdn.pth H O
compute ke all ke/atom
compute pe all pe/atom
compute stress all centroid/stress/atom NULL virial
compute flux all heat/flux ke pe stress
velocity all create 300 5 loop geom mom yes
fix 1 all nve
variable px equal vcm(all,x)
variable py equal vcm(all,y)
variable pz equal vcm(all,z)
thermo_style custom step c_flux[1] c_flux[2] c_flux[3] v_px v_py v_pz
thermo_modify format float %.17g norm no
thermo 1
dump 1 all custom 1 flux.dump id xu yu zu c_ke c_pe
dump_modify 1 sort id format float %.17g
"""


def test_heat_flux_is_the_derivative_of_the_energy_moment(
    lmp: LammpsRunner, tmp_path: Path
) -> None:
    """J = d/dt sum_i r_i e_i by central differences, in a cluster, which has no images.

    Exact for one layer with the centroid virial. The error of the difference is O(h^2) of motions
    with some 0.01 ps, h = 1e-5 ps, and of rounding, 1e-16 * 100 eV A / h.
    """
    structure = random_structure(1, 9, None)
    structure.write(tmp_path / "data.start")
    step = 1e-5
    script = setup(structure, "data.start") + FLUX + f"timestep {step}\nrun 2\n"
    for ranks in (1, 2):
        flux = np.array(thermo_rows(lmp(script, ranks=ranks)))[1, 1:4]
        tables = (tmp_path / "flux.dump").read_text().split("c_ke c_pe")[1:]
        moments = []
        for text in tables:
            rows = text.strip().splitlines()[: len(structure.species)]
            atoms = np.array([[float(word) for word in row.split()] for row in rows])
            moments.append((atoms[:, 1:4] * (atoms[:, 4] + atoms[:, 5])[:, None]).sum(0))
        slope = (moments[2] - moments[0]) / (2 * step)
        np.testing.assert_allclose(flux, slope, rtol=0, atol=1e-5 * np.abs(slope).max())


def test_heat_flux_of_a_crystal(lmp: LammpsRunner, tmp_path: Path) -> None:
    """It is finite, the same on ranks, and no momentum builds up."""
    structure: Structure = lattice(repeats=2)
    structure.write(tmp_path / "data.start")
    script = setup(structure, "data.start") + FLUX.replace("toy1", "toy2") + "run 20\n"
    alone, together = (np.array(thermo_rows(lmp(script, ranks=ranks))) for ranks in (1, 2))
    assert np.all(np.isfinite(alone)) and np.abs(alone[:, 1:4]).max() > 0
    scale = np.abs(alone[:, 1:4]).max()
    np.testing.assert_allclose(together[:, 1:4], alone[:, 1:4], rtol=0, atol=1e-9 * scale)
    speed = np.sqrt(8.314 * 300 / 0.001) / 100  # A/ps of a hydrogen atom
    assert np.abs(alone[:, 4:]).max() < 1e-12 * speed
