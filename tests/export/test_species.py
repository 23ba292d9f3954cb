"""``tdn-export --species``: the same network for fewer elements, in files of their size."""

import dataclasses

import ase
import ase.io
import numpy as np
import pytest
import torch
from ase.build import molecule
from ase.data import chemical_symbols
from structures import CONFIGS

from tdn.inference.calculator import TDNCalculator
from tdn.network.base import set_dtype
from tdn.network.build import build_model
from tdn.network.checkpoint import load_model, read_checkpoint, save_model, write_checkpoint
from tdn.system.errors import TDNError
from tdn_export import export_model
from tdn_export.cli import main

ELEMENTS = ("H", "C", "N", "O")


def universal(path, name: str, dtype: str = "float64"):
    """A checkpoint of four elements with weights, energies and scales at random."""
    config = dataclasses.replace(
        CONFIGS[name], species=ELEMENTS, avg_num_neighbors=6.0, r_max=4.0, avg_num_atoms=5.0
    )
    model = build_model(config, seed=3).requires_grad_(False)
    model.set_statistics(torch.tensor([-13.6, -1030.0, -1480.0, -2040.0]), 1.3)
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():  # elements must differ in everything that they can
        parameter *= 1 + 0.2 * torch.randn(parameter.shape, generator=generator).to(parameter)
    if dtype == "float32":
        set_dtype(model, torch.float32)
    save_model(path, model, {})
    return path


def alcohol() -> ase.Atoms:
    atoms = molecule("CH3OH")
    atoms.positions += 0.05 * np.random.default_rng(1).normal(size=(len(atoms), 3))
    return atoms


@pytest.mark.slow
@pytest.mark.parametrize("name", ["l3", "one_layer", "attention_l2"])
def test_kept_elements_compute_what_they_did(name, tmp_path):
    """Energies with E0, forces and energies of atoms, whatever the order of the symbols."""
    path = universal(tmp_path / "model.pt", name)
    results = {}
    for which, species in (("all", None), ("some", ["O", "H", "C"])):
        report = export_model(path, tmp_path / f"{which}.tdn.pth", species=species)
        atoms = alcohol()
        atoms.calc = TDNCalculator(report.path, "cpu")
        results[which] = (atoms.get_potential_energies(), atoms.get_forces(), report)
    assert results["some"][2].metadata["species"] == ["H", "C", "O"]
    assert results["some"][2].metadata["atomic_numbers"] == [1, 6, 8]
    for some, both in zip(results["some"][:2], results["all"][:2], strict=True):
        # either file has tables of its own, which may change results by 1e-12 (test_table_error)
        np.testing.assert_allclose(some, both, rtol=0, atol=1e-11 * np.abs(both).max())
    if name == "l3":  # where most of the file are tables, which have 9 pairs of 16
        assert results["some"][2].size < 0.8 * results["all"][2].size


def test_checkpoint_is_exact(tmp_path):
    """Without tables nothing is rounded: not a bit differs from the whole network."""
    path = universal(tmp_path / "model.pt", "l3")
    whole, _ = load_model(path)
    part, _ = load_model(path, species=["N", "H"])
    assert part.config.species == ("H", "N")
    atoms = molecule("NH3")
    energies = []
    for model in (whole, part):
        save_model(tmp_path / "one.pt", model, {})
        atoms.calc = TDNCalculator(tmp_path / "one.pt", "cpu")
        energies.append(atoms.get_potential_energy())
    assert energies[0] == energies[1]


def test_elements_that_are_missing_or_left_out_are_named(tmp_path, capsys):
    path = universal(tmp_path / "model.pt", "scalars", "float32")
    assert main([str(path), "--species", "H,Fe"]) == 1
    assert "has no element Fe; it knows H, C, N, O" in capsys.readouterr().err
    assert main([str(path), "--species", " , "]) == 2
    assert "--species: expected chemical symbols" in capsys.readouterr().err
    assert main(["--species", "H", "--inspect", str(path)]) == 2
    assert "--species does not go with --inspect" in capsys.readouterr().err
    ase.io.write(tmp_path / "methane.xyz", molecule("CH4"))
    assert main([str(path), "--species", "H O", "--verify", str(tmp_path / "methane.xyz")]) == 1
    assert "contains C, but --species keeps only H, O" in capsys.readouterr().err
    assert main([str(path), "--species", "H O"]) == 0
    atoms = molecule("CH4")
    atoms.calc = TDNCalculator(tmp_path / "model.tdn.pth", "cpu")
    with pytest.raises(TDNError, match="C"):
        atoms.get_potential_energy()


def test_a_checkpoint_whose_weights_do_not_fit_is_refused(tmp_path):
    """Rows for elements that are missing would be those of others."""
    path = universal(tmp_path / "model.pt", "scalars")
    content = read_checkpoint(path)
    content["state"]["embedding"] = content["state"]["embedding"][:3]
    write_checkpoint(path, content)
    with pytest.raises(TDNError, match="embedding has 3 rows for elements, expected 4"):
        load_model(path, species=["H"])


@pytest.mark.slow
def test_many_elements_are_told_what_to_do(tmp_path, capsys):
    """90 elements of the default size: tables would be too large, those of two are not."""
    config = dataclasses.replace(
        CONFIGS["default"],
        num_channels=64,
        species=tuple(chemical_symbols[1:91]),
        avg_num_neighbors=6.0,
    )
    path = tmp_path / "model.pt"
    save_model(path, build_model(config, seed=0).requires_grad_(False), {})
    assert main([str(path)]) == 1
    assert "--species Cu,Zn,O" in capsys.readouterr().err
    assert not (tmp_path / "model.tdn.pth").exists()
    assert main([str(path), "--species", "H,O"]) == 0
