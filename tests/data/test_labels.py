"""Labels are found under the names of all common writers, and nothing about them is silent."""

import ase
import ase.io
import numpy as np
import pytest
from copper import copper, write_renamed
from training.helpers import labelled, water_like

from tdn.config import config_from_dict
from tdn.data import LabelKeys, load_dataset, read_frames
from tdn.data.bad_frames import Problems
from tdn.data.cli import main
from tdn.data.database.store import FrameStore
from tdn.data.database.writer import StoreWriter
from tdn.system.errors import TDNError

NAMES = [
    ("energy", "forces", "virial"),
    ("REF_energy", "REF_forces", "REF_stress"),
    ("REF_energy", "REF_forces", "REF_virials"),
    ("DFT_energy", "DFT_forces", "DFT_virial6"),
    ("dft_energy", "dft_force", "dft_stress6"),
    ("mace_energy", "mace_forces", "mace_stress"),
    ("ref-Energy", "Forces", "virials"),
    ("total_energy", "force", "stress_tensor"),
    ("TotEnergy", "ref_force", "REF_virial"),
    ("free_energy", "forces", "virials6"),
]


@pytest.mark.parametrize("names", NAMES, ids=" ".join)
def test_common_names_are_found_by_every_command(folder, capsys, names):
    frames = copper(4)
    write_renamed("a.xyz", frames, dict(zip(("energy", "forces", "stress"), names, strict=True)))
    assert main(["convert", "a.xyz", "-o", "a.lmdb"]) == 0
    out = capsys.readouterr().out
    shown = [name for name in names[:2] if name not in ("energy", "forces")]
    assert all("4 frames have their" in out and repr(name) in out for name in shown)
    for path in ("a.xyz", "a.lmdb"):
        for found, frame in zip(read_frames(path), frames, strict=True):
            assert found.energy == pytest.approx(frame.get_potential_energy(), abs=1e-9)
            np.testing.assert_allclose(found.forces, frame.get_forces(), atol=1e-7)
            np.testing.assert_allclose(found.stress, frame.get_stress(voigt=False), atol=1e-7)
    for command in ("check", "stats"):
        main([command, "a.xyz"])
        out = capsys.readouterr().out
        assert "have no" not in out and all(repr(name) in out for name in shown)


def test_other_quantities_are_not_taken_for_labels(folder):
    atoms = water_like(0)
    for key in (
        "kinetic_energy",
        "energy_per_atom",
        "formation_energy",
        "d3_energy",
        "homo_energy",
    ):
        atoms.info[key] = 1.0
    atoms.arrays["net_forces"] = atoms.positions
    atoms.info["max_force"] = 3.0
    ase.io.write("a.xyz", atoms)
    frame = read_frames("a.xyz")[0]
    assert frame.energy is None and frame.forces is None


def test_keys_with_control_characters_are_escaped(folder, capsys):
    atoms = water_like(0)
    atoms.info["REF\x1b[31menergy\n"] = -1.0
    atoms.info["a\x1bb"] = 1.0
    ase.io.write("a.traj", atoms)
    main(["check", "a.traj"])
    main(["check", "a.traj", "--energy-key", "none"])
    captured = capsys.readouterr()
    text = captured.out + captured.err
    assert "\\x1b" in text and "\x1b" not in text


def test_of_two_methods_the_user_chooses(folder, capsys):
    atoms = water_like(0)
    atoms.info.update(pbe_energy=-1.0, ccsd_energy=-2.0)
    ase.io.write("a.xyz", [atoms, atoms])
    assert read_frames("a.xyz")[0].energy is None
    assert main(["check", "a.xyz"]) == 1
    out = capsys.readouterr().out
    assert "2 of 2 frames have no energy; under other keys: 'pbe_energy', 'ccsd_energy'" in out
    assert read_frames("a.xyz", LabelKeys(energy="ccsd_energy"))[0].energy == -2.0


def test_reference_values_come_before_predictions_and_both_are_named(folder):
    atoms = water_like(0)
    atoms.info.update(mace_energy=-1.0, REF_energy=-2.0)
    ase.io.write("a.xyz", atoms)
    problems = Problems()
    assert read_frames("a.xyz", problems=problems)[0].energy == -2.0
    text = "\n".join(problems.remarks())
    assert "under 'REF_energy'" in text
    assert "1 frames also have 'mace_energy', which differs from 'REF_energy', the one used" in text


def test_energies_under_an_unknown_key_are_named(folder, capsys):
    atoms = water_like(0)
    atoms.info.update(U0=-3.0, comment="text")
    ase.io.write("a.xyz", [atoms] * 3)
    assert main(["check", "a.xyz"]) == 1
    assert "3 of 3 frames have no energy; under other keys: 'U0'" in capsys.readouterr().out
    config = {"data": {"train": "a.xyz"}}
    with pytest.raises(TDNError, match=r"has no energy under a common name .*keys: 'U0'"):
        load_dataset(config_from_dict(config))


@pytest.mark.parametrize("label", ("energy", "forces", "stress"))
def test_a_named_key_that_matches_nothing_is_an_error(folder, capsys, label):
    write_renamed("a.xyz", copper(3), {"energy": "REF_energy", "forces": "REF_forces"})
    for command in (["check", "a.xyz"], ["stats", "a.xyz"], ["convert", "a.xyz", "-o", "a.lmdb"]):
        assert main([*command, f"--{label}-key", "dft"]) == 1
        err = capsys.readouterr().err
        assert f"no frame of a.xyz has the key 'dft' for its {label}" in err
        assert "'REF_energy', 'REF_forces'" in err and err.count("\n") == 1
    config = {"data": {"train": "a.xyz", f"{label}_key": "dft"}}
    with pytest.raises(TDNError, match=r"no frame of a.xyz has the key 'dft'"):
        load_dataset(config_from_dict(config))


def test_a_named_key_may_be_in_one_of_several_files(folder):
    write_renamed("a.xyz", copper(3), {"energy": "e", "forces": "f"})
    write_renamed("b.xyz", copper(2), {"energy": "e", "forces": "f", "stress": "s"})
    frames = read_frames(["a.xyz", "b.xyz"], LabelKeys("e", "f", "s"))
    assert [f.stress is None for f in frames] == [True] * 3 + [False] * 2
    keys = {"energy_key": "e", "forces_key": "f", "stress_key": "s"}
    dataset = load_dataset(config_from_dict({"data": {"train": ["a.xyz", "b.xyz"], **keys}}))
    assert len(dataset.train) + len(dataset.valid) == 5


def test_charge_and_spin_are_mentioned_once(folder, capsys):
    frames = copper(4)
    for atoms in frames:
        atoms.info.update(charge=1, spin=2)
    ase.io.write("a.xyz", frames)
    for command in (["check", "a.xyz"], ["convert", "a.xyz", "-o", "a.lmdb"]):
        assert main(command) == 0
        out = capsys.readouterr().out
        assert out.count("4 frames have 'charge', 'spin', which the network ignores") == 1
    warnings = load_dataset(config_from_dict({"data": {"train": "a.xyz"}})).warnings
    assert sum("'charge', 'spin'" in line for line in warnings) == 1


def test_weights_of_frames(folder):
    frames = copper(3)
    frames[1].info["config_weight"] = 2.5
    ase.io.write("a.xyz", frames)
    assert [f.weight for f in read_frames("a.xyz")] == [1.0, 2.5, 1.0]
    assert main(["convert", "a.xyz", "-o", "a.lmdb"]) == 0
    assert [f.weight for f in read_frames("a.lmdb")] == [1.0, 2.5, 1.0]
    plain = load_dataset(config_from_dict({"data": {"train": "a.xyz", "valid_fraction": 0}}))
    assert [g.weight.item() for g in plain.train.graphs] == [1.0, 2.5, 1.0]
    for value in (-1.0, float("nan")):
        frames[1].info["config_weight"] = value
        ase.io.write("b.xyz", frames)
        with pytest.raises(TDNError, match=r"frame 2 of b.xyz: config_weight is"):
            read_frames("b.xyz")


# --- E0 --------------------------------------------------------------------------------------


def isolated_copper(cell: float, energy: float, name: str | None = None) -> ase.Atoms:
    atoms = ase.Atoms("Cu", [[0.0, 0, 0]], cell=[cell] * 3, pbc=True)
    atoms.info["energy"] = energy
    if name is not None:
        atoms.info["config_type"] = name
    return atoms


@pytest.mark.parametrize("streaming", ("never", "always"))
@pytest.mark.parametrize(("cell", "name"), [(10.0, None), (6.0, None), (4.0, "IsolatedAtom")])
def test_an_atom_without_a_neighbour_is_e0(folder, cell, name, streaming):
    """The cutoff is 5.5 angstrom: cells shorter than two cutoffs, and one that is only named."""
    ase.io.write("a.xyz", [isolated_copper(cell, -0.5, name), *copper(12)])
    with StoreWriter("a.lmdb") as writer:
        for frame in read_frames("a.xyz"):
            writer.add(frame)
    values = {"model": {"r_max": 5.5}, "data": {"train": "a.lmdb", "streaming": streaming}}
    dataset = load_dataset(config_from_dict(values))
    assert dataset.atomic_energies.values == {"Cu": -0.5}
    assert dataset.num_isolated == 1 and dataset.train.total + len(dataset.valid) == 12
    assert FrameStore("a.lmdb").metadata["single_atoms"] == [0]


def test_the_best_isolated_atom_counts(folder):
    """Named ones first, then those in the largest cell; small cells are no contradiction."""
    atoms = [isolated_copper(6.0, -0.4), isolated_copper(9.0, -0.5), isolated_copper(7.0, -0.45)]
    for images, e0 in (
        (atoms, -0.5),
        ([*atoms, isolated_copper(6.5, -0.6, "isolated_atom")], -0.6),
    ):
        ase.io.write("a.xyz", [*images, *copper(12)])
        dataset = load_dataset(config_from_dict({"data": {"train": "a.xyz"}}))
        assert dataset.atomic_energies.values == {"Cu": e0}
        assert dataset.num_isolated == len(images)


def test_e0_that_contradict_the_energies(folder, capsys):
    """All-electron E0 and energies of a pseudopotential: 13.6 eV and 2041 eV per atom apart."""
    frames = [labelled(water_like(seed), {"H": -12.5, "O": -432.0}) for seed in range(8)]
    ase.io.write("a.xyz", frames)
    config = {"data": {"train": "a.xyz", "atomic_energies": {"H": -13.6, "O": -2041.0}}}
    warnings = load_dataset(config_from_dict(config)).warnings
    # (2 * 1.1 + 1609) / 3 = 537 eV per atom
    assert any("E0 contradict the energies" in w and "(largest: 537" in w for w in warnings)
    config["data"]["atomic_energies"] = {"H": -12.5, "O": -432.0}
    assert not any("E0" in w for w in load_dataset(config_from_dict(config)).warnings)
    atoms = [ase.Atoms("H"), ase.Atoms("O")]
    for one, energy in zip(atoms, (-13.6, -2041.0), strict=True):
        one.info["energy"] = energy
    ase.io.write("b.xyz", [*atoms, *frames])
    assert main(["check", "b.xyz"]) == 1
    assert "E0 contradict the energies" in capsys.readouterr().out
