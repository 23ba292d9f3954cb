"""The first structures: sizes, kinds, reproducibility."""

from __future__ import annotations

import ase
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, molecule

from tdn.config.distillation import SeedsConfig
from tdn.data.supercell import supercell
from tdn.data.vacuum import matter_directions
from tdn.system.errors import UsageError
from tdn.training.distillation.matter import is_molecular
from tdn.training.distillation.seeds import make_seeds, read_structures


@pytest.mark.parametrize(
    "atoms, wanted, expected",
    [
        (bulk("Cu", cubic=True), 64, 108),  # a cube stays a cube
        (bulk("NaCl", "rocksalt", a=5.6, cubic=True), 64, 64),
        (bulk("Cu", cubic=True) * (1, 1, 4), 64, 64),  # the long axis waits
        (molecule("H2O"), 64, 3),
        (fcc111("Cu", (1, 1, 4), vacuum=None), 60, 64),  # a slab repeats in its plane only
        (bulk("Cu", cubic=True) * 2, 64, 64),  # a cube of 256 atoms would cost four times as much
    ],
)
def test_supercells_are_large_enough_and_compact(atoms, wanted, expected):
    big = supercell(atoms, wanted)
    assert len(big) == expected
    if big.pbc.all():
        lengths = big.cell.lengths()
        doubled = 2 if len(atoms) == 32 else 1
        assert lengths.max() < 1.05 * max(doubled * lengths.min(), atoms.cell.lengths().max())


def test_a_slab_in_a_periodic_cell_is_a_slab():
    slab = fcc111("Cu", (1, 1, 4), vacuum=6.0)
    slab.pbc = True
    assert matter_directions(slab).tolist() == [True, True, False]
    assert supercell(slab, 60).cell.lengths()[2] == slab.cell.lengths()[2]
    kinds = {candidate.kind for candidate in make_seeds([slab], config(), melting=True)}
    assert kinds == {"structure", "rattle", "strain", "vacancy", "contact"}
    # 3.35 angstrom between layers is no vacuum, and neither is the edge of a cell
    layers = ase.Atoms("C2", [[0, 0, 0.1], [0, 1.42, 3.3]], cell=[2.46, 4.26, 6.7], pbc=True)
    assert matter_directions(layers).all()
    assert not matter_directions(molecule("H2O")).any()


def config(**values) -> SeedsConfig:
    return SeedsConfig(structures=("x",), **values)


def strain_of(atoms: ase.Atoms, start: ase.Atoms) -> np.ndarray:
    """What the cell was multiplied by, less one, [3, 3]."""
    return np.linalg.solve(start.cell.array, atoms.cell.array) - np.eye(3)


def test_kinds_do_what_they_are_called():
    salt = bulk("NaCl", "rocksalt", a=5.6, cubic=True) * 2
    values = config(substitutions={"Na": "K"}, strains=11, strain=0.05)
    found: dict[str, list] = {}
    for candidate in make_seeds([salt], values, melting=True):
        found.setdefault(candidate.kind, []).append(candidate.atoms)
    assert {kind: len(frames) for kind, frames in found.items()} == {
        "structure": 1,
        "rattle": values.rattles,
        "strain": 11,
        "shear": values.shears,
        "elastic": values.elastic,
        "vacancy": values.vacancies,
        "surface": values.surfaces,
        "exchange": values.exchanges,
        "substitution": values.replaced,
        "disorder": values.disordered,
        "contact": values.contacts,
    }
    volumes = np.array([a.get_volume() for a in found["strain"]]) / salt.get_volume()
    # lengths from 1 + 0.05 (2/11 - 1) to 1.05, in equal steps
    assert np.allclose(volumes ** (1 / 3), 1 + 0.05 * (2 * np.arange(1, 12) / 11 - 1), atol=1e-12)
    moved = [np.sqrt(((a.positions - salt.positions) ** 2).mean()) for a in found["rattle"]]
    assert 0.8 * values.rattle < max(moved) < 1.2 * values.rattle
    for kind in ("strain", "shear"):  # of atoms at rest, and of displaced ones
        places = [a.get_scaled_positions(wrap=False) for a in found[kind]]
        calm = [np.allclose(p, salt.get_scaled_positions(), atol=1e-9) for p in places]
        assert 2 <= sum(calm) <= len(calm) - 2
    strains = [strain_of(a, salt) for a in found["elastic"]]
    assert all(np.allclose(s, s.T, atol=1e-14) and abs(s).max() <= 0.03 for s in strains)
    # all six components take both signs: no elastic constant is left out
    voigt = np.array([s[np.triu_indices(3)] for s in strains])
    assert (voigt.max(0) > 0.003).all() and (voigt.min(0) < -0.003).all()
    assert all(
        np.allclose(
            a.get_scaled_positions(wrap=False), salt.get_scaled_positions(wrap=False), atol=1e-9
        )
        for a in found["elastic"]
    )
    assert all(len(a) == 63 for a in found["vacancy"])
    assert all(
        np.isclose(a.cell.lengths().max(), 11.2 + values.vacuum) and len(a) == 64
        for a in found["surface"]
    )
    for atoms in found["exchange"]:
        assert (atoms.numbers != salt.numbers).sum() == 2
        assert sorted(atoms.numbers) == sorted(salt.numbers)
    potassium = [(a.numbers == 19).sum() for a in found["substitution"]]
    assert potassium == [8, 16, 24, 32]
    assert all((a.numbers == 17).sum() == 32 for a in found["substitution"])


def test_a_shear_is_a_pure_strain():
    atoms = bulk("Cu", cubic=True) * 2
    for candidate in make_seeds([atoms], config()):
        if candidate.kind == "shear":
            strain = strain_of(candidate.atoms, atoms)
            assert np.allclose(strain, strain.T, atol=1e-14)
            assert np.abs(strain).max() <= 0.05


def test_a_molecule_is_only_rattled_and_squeezed():
    kinds = {candidate.kind for candidate in make_seeds([molecule("H2O")], config(), melting=True)}
    assert kinds == {"structure", "rattle", "contact"}


def test_what_does_not_melt_keeps_its_order():
    atoms = bulk("Cu", "fcc", a=3.6, cubic=True)
    kinds = [{c.kind for c in make_seeds([atoms], config(), melting)} for melting in (False, True)]
    assert kinds[1] - kinds[0] == {"disorder"}


def test_the_same_seed_gives_the_same_structures():
    atoms = bulk("NaCl", "rocksalt", a=5.6, cubic=True)
    one, same, other = (
        np.concatenate([c.atoms.positions for c in make_seeds([atoms], config(seed=seed))])
        for seed in (1, 1, 2)
    )
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


def test_single_atoms_are_refused(workplace):
    bulk("Cu", "fcc", a=3.6).write("one.cif")
    with pytest.raises(UsageError, match=r"single atom \(Cu\), expected at least two.*seeds.atoms"):
        read_structures(SeedsConfig(structures="one.cif", atoms=1))
    assert len(read_structures(SeedsConfig(structures="one.cif", atoms=2))[0]) >= 2
    Atoms("He").write("atom.xyz")
    with pytest.raises(UsageError, match=r"single atom \(He\)"):
        read_structures(SeedsConfig(structures="atom.xyz"))


def test_substituting_what_is_not_there_is_refused(workplace):
    values = SeedsConfig(structures="cu.cif", substitutions={"Na": "K"})
    with pytest.raises(UsageError, match=r"no structure contains 'Na'; they contain Cu"):
        read_structures(values)
    values = SeedsConfig(structures="cu.cif", substitutions={"Cu": "Kx"})
    with pytest.raises(UsageError, match=r"'Kx' is not a chemical symbol"):
        read_structures(values)


def graphite() -> ase.Atoms:
    """Two layers in a cell, AB."""
    places = [[0, 0, 0.25], [1 / 3, 2 / 3, 0.25], [0, 0, 0.75], [2 / 3, 1 / 3, 0.75]]
    return ase.Atoms("C4", scaled_positions=places, cell=[2.46, 2.46, 6.7, 90, 90, 120], pbc=True)


def test_molecular_matter_is_recognized():
    dry_ice = bulk("C", "fcc", a=5.6, cubic=True)
    for atom in list(dry_ice):
        for shift in (-1.16, 1.16):
            dry_ice += type(dry_ice)("O", [atom.position + np.array([1, 1, 1]) * shift / 3**0.5])
    assert is_molecular(dry_ice)
    assert is_molecular(molecule("H2O"))
    assert not is_molecular(bulk("C", "diamond", a=3.57, cubic=True))
    assert not is_molecular(bulk("NaCl", "rocksalt", a=5.6, cubic=True))
    assert not is_molecular(graphite())
