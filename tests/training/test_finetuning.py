"""Starting from another run's network: new elements, new E0, frozen parts."""

import ase
import ase.io
import numpy as np
import pytest
import torch
from ase.calculators.singlepoint import SinglePointCalculator
from training.helpers import TINY, labelled, trainer_of, water_like, write_config

from tdn.config import ModelConfig
from tdn.data import build_graphs, read_frames
from tdn.evaluation.errors import evaluate
from tdn.graph import graph_from_atoms
from tdn.network.build import build_model
from tdn.network.checkpoint import load_model, save_model
from tdn.network.elements import species_axes
from tdn.network.potential import Potential
from tdn.training.cli import main
from tdn.training.start.finetuning import most_alike
from tdn.training.trainer import Trainer

CONFIG = ModelConfig(**TINY, species=("H", "O"), avg_num_neighbors=2.5)


@pytest.fixture
def folder(folder):
    """A network that knows H and O, and frames with the same elements."""
    model = build_model(CONFIG, seed=3)
    scale = torch.tensor([0.7, 0.9], dtype=torch.float64)
    model.set_statistics(torch.tensor([-13.0, -2040.0]), scale)
    save_model(folder / "base.pt", model, {})
    return folder


def trainer_from(folder, resume=False, **keys) -> Trainer:
    train = {"init_from": "base.pt", **keys.pop("train", {})}
    return trainer_of(write_config(folder, train=train, **keys), resume=resume)


def test_the_same_elements_give_the_same_network(folder):
    trainer = trainer_from(folder, data={"atomic_energies": {"H": -13.0, "O": -2040.0}})
    base, _ = load_model(folder / "base.pt")
    assert trainer.config.model.avg_num_neighbors == 2.5
    atoms = water_like(0)
    one, other = (
        Potential(m)(graph_from_atoms(atoms, m.atomic_numbers, 3.0)) for m in (base, trainer.model)
    )
    torch.testing.assert_close(one["energy"], other["energy"], rtol=1e-14, atol=0)
    torch.testing.assert_close(one["forces"], other["forces"], rtol=1e-12, atol=1e-14)


def test_no_factors_are_looked_up(folder, forbid_factors):
    """The network comes from the checkpoint with its CP matrices, also when the run goes on."""
    forbid_factors()
    first = trainer_from(folder, train={"max_epochs": 1})
    (folder / "run").mkdir(exist_ok=True)
    assert first.fit()
    second = trainer_from(folder, resume=True, train={"max_epochs": 1})
    found = dict(second.model.named_buffers())
    for name, value in first.model.named_buffers():
        assert torch.equal(found[name], value), name
    assert found["layers.1.convolution.factors.input1"].abs().max() > 0


def test_new_elements_begin_as_the_most_alike_one(folder):
    frames = []
    for seed in range(6):
        atoms = water_like(seed)
        atoms.symbols[1] = "F" if seed % 2 else "H"
        atoms.symbols[0] = "S" if seed < 3 else "O"
        frames.append(labelled(atoms, {"H": -13.0, "O": -2040.0, "F": -2700.0, "S": -10800.0}))
    ase.io.write(folder / "train.xyz", frames)
    trainer = trainer_from(folder)
    base, _ = load_model(folder / "base.pt")
    model = trainer.model
    assert model.config.species == ("H", "O", "F", "S")
    h, o, f, s = range(4)
    torch.testing.assert_close(model.embedding[[h, o]], base.embedding, rtol=0, atol=0)
    assert model.scale.tolist() == [0.7, 0.9, 0.7, 0.9]  # F like H (one hole), S like O
    for new, like in ((f, 0), (s, 1)):
        row, known = model.embedding[new].detach(), base.embedding[like]
        assert not torch.equal(row, known)
        # ten per cent of noise: six standard deviations
        assert ((row - known).abs() <= 0.6 * known.abs()).all()
    # pairs of known elements are those of the old network, wherever they stand now
    pair_axes = {n: a for n, a in species_axes(CONFIG).items() if 2 in a.values()}
    for name, axes in pair_axes.items():
        (axis,) = axes
        there = base.state_dict()[name]
        here = model.state_dict()[name]
        assert here.shape[axis] == 16
        chosen = torch.tensor([4 * h + h, 4 * h + o, 4 * o + h, 4 * o + o])
        torch.testing.assert_close(here.index_select(axis, chosen), there, rtol=0, atol=0)
    # frames of known elements alone: the same energies but for E0
    atoms = water_like(9)
    one, other = (
        Potential(m)(graph_from_atoms(atoms, m.atomic_numbers, 3.0)) for m in (base, model)
    )
    torch.testing.assert_close(one["forces"], other["forces"], rtol=1e-12, atol=1e-14)


def test_energies_of_atoms_absorb_a_shift_of_the_reference(folder):
    """Labels of the network itself plus a shift per element: E0 from least squares find it."""
    base, _ = load_model(folder / "base.pt")
    shift = {"H": 3.0, "O": -5.0}
    frames = []
    for seed in range(6):
        # different compositions, so that both shifts are determined
        atoms = water_like(seed, molecules=1 + seed % 2)
        if seed % 3 == 0:
            del atoms[1]
        found = Potential(base)(graph_from_atoms(atoms, base.atomic_numbers, 3.0))
        energy = found["energy"].item() + sum(shift[s] for s in atoms.get_chemical_symbols())
        atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=found["forces"].numpy())
        frames.append(atoms)
    ase.io.write(folder / "train.xyz", frames)
    trainer = trainer_from(folder, data={"valid_fraction": 0.0})
    # the file has eight decimals of the energy
    np.testing.assert_allclose(trainer.model.atomic_energies, [-10.0, -2045.0], atol=1e-6)
    assert trainer.dataset.atomic_energies.values["O"] == pytest.approx(-2045.0, abs=1e-6)
    graphs = build_graphs(read_frames(folder / "train.xyz"), [1, 8], 3.0)
    found = evaluate(Potential(trainer.model), graphs)
    np.testing.assert_allclose(found.predicted.energy, found.reference.energy, atol=1e-5)


def test_fine_tuning_as_a_user_does_it(folder, capsys):
    keys = {"init_from": "base.pt", "freeze": ["layers.0", "emb*"], "max_epochs": 1}
    config = write_config(folder, train=keys)
    assert main([str(config)]) == 0
    base, _ = load_model(folder / "base.pt")
    tuned, metadata = load_model(folder / "run" / "model.pt")
    assert metadata["train"]["init_from"].endswith("base.pt")
    kept = {n for n, p in base.named_parameters() if n.startswith(("layers.0.", "embedding"))}
    assert kept
    for name, parameter in tuned.named_parameters():
        if not parameter.numel():  # gates of a layer without vectors
            continue
        assert torch.equal(parameter, dict(base.named_parameters())[name]) == (name in kept), name
    capsys.readouterr()
    assert main([str(folder / "run" / "config.yaml"), "train.max_epochs=2"]) == 0
    assert "epoch 2 of 2" in capsys.readouterr().out


@pytest.mark.parametrize("change", ["removed", "trained on"])
def test_a_run_goes_on_whatever_became_of_the_file(folder, capsys, change):
    """Weights, E0 and the E0 that model.pt names are those of the run."""
    config = write_config(folder, train={"init_from": "base.pt", "max_epochs": 2})
    assert main([str(config), "train.max_epochs=1"]) == 0
    if change == "removed":
        (folder / "base.pt").unlink()
    else:
        save_model(folder / "base.pt", build_model(CONFIG, seed=4), {})
    assert main([str(config)]) == 0
    assert "epoch 2 of 2" in capsys.readouterr().out
    model, metadata = load_model(folder / "run" / "model.pt", dtype="float64")
    found = dict(zip(model.config.species, model.atomic_energies.tolist(), strict=True))
    assert metadata["atomic_energies"] == found


@pytest.mark.parametrize(
    ("override", "code", "expected"),
    [
        ("train.freeze=[embeding]", 2, "did you mean 'embedding'?"),
        ("train.freeze=[layers.7]", 2, "no parameter matches 'layers.7'; did you mean 'layers"),
        ("train.freeze=['*']", 2, "leaves no parameter to train"),
        ("train.init_from=none.pt", 1, "checkpoint none.pt not found"),
        ("train.init_from=train.xyz", 1, "is not a checkpoint of TDN"),
        ("model.num_channels=6", 2, "model.num_channels = 6, but the network of train.init_from"),
    ],
)
def test_mistakes(folder, capsys, monkeypatch, override, code, expected):
    monkeypatch.chdir(folder)
    config = write_config(folder, train={"init_from": "base.pt"})
    assert main([str(config), override]) == code
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("tdn-train: error: ") and expected in error.replace(f"{folder}/", "")


def test_elements_alike():
    known = ("H", "C", "O", "Na", "Cl", "Fe")
    alike = {"O": "O", "S": "O", "K": "Na", "Br": "Cl", "Si": "C", "Co": "Fe", "N": "C"}
    for symbol, expected in alike.items():
        assert known[most_alike(symbol, known)] == expected, symbol


@pytest.mark.parametrize("architecture", ["convolution", "attention"])
def test_axes_of_elements_are_found(architecture):
    axes = species_axes(ModelConfig(**TINY, architecture=architecture, avg_num_neighbors=2.0))
    assert axes["embedding"] == {0: 1} and axes["scale"] == {0: 1}
    assert "readouts.0.weight" not in axes
