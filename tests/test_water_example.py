"""The data of the demo: what DATASET.md promises of every frame."""

from pathlib import Path

import ase.io
import numpy as np
import pytest

WATER = Path(__file__).parents[1] / "examples" / "water"


@pytest.fixture(scope="module")
def frames():
    return ase.io.read(WATER / "water.xyz.gz", ":")


def test_size_and_splits(frames):
    assert (WATER / "water.xyz.gz").stat().st_size <= 4_000_000
    assert 150 <= len(frames) <= 300
    splits = [frame.info["split"] for frame in frames]
    assert min(splits.count(name) for name in ("train", "valid", "test")) >= 20
    assert len(splits) == sum(splits.count(name) for name in ("train", "valid", "test"))


def test_every_frame_is_labelled_liquid_water(frames):
    for frame in frames:
        molecules, rest = divmod(len(frame), 3)
        assert rest == 0 and 16 <= molecules <= 32
        assert list(frame.symbols).count("O") == molecules
        assert frame.pbc.all()
        density = molecules * 18.015 / 0.602214 / frame.get_volume()
        assert 0.78 <= density <= 1.27  # state points of 0.85 to 1.15, cells strained by a few %
        # a molecule of GFN2-xTB has -137.98 eV; cohesion and heat move it by tenths, two frames
        # in which two oxygens have come close by 1.3
        assert -138.3 < frame.get_potential_energy() / molecules < -136.5
        forces = frame.get_forces()
        assert np.abs(forces.sum(axis=0)).max() < 1e-4
        assert 0.3 < np.sqrt(np.mean(forces**2)) < 4.0
        stress = frame.get_stress(voigt=False)
        assert np.abs(stress).max() < 0.2
        oxygen = frame[frame.symbols == "O"]
        distances = oxygen.get_all_distances(mic=True) + 10 * np.eye(molecules)
        assert distances.min() > 1.1


def test_reference_radial_distribution():
    r, g, error = np.loadtxt(WATER / "reference_rdf.csv", delimiter=",", skiprows=1).T
    assert (g[r < 2.3] == 0).all()
    peak = r[g.argmax()]
    assert 2.7 < peak < 3.0 and g.max() > 2
    # coordination within the box's inscribed sphere from g itself: 4 pi rho integral of r^2 g
    density = 32 / (32 * 18.015 / 0.602214)
    count = np.sum(4 * np.pi * density * r**2 * g) * (r[1] - r[0])
    assert count == pytest.approx(density * 4 / 3 * np.pi * 4.9**3 - 1, rel=0.15)
    assert (error >= 0).all()
