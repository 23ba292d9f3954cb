"""Several levels of theory in one network."""

import ase
import ase.io
import pytest
import torch
import yaml
from ase.calculators.singlepoint import SinglePointCalculator
from training.helpers import E0, TINY, assert_same, labelled, trainer_of, water_like

from tdn import TDNCalculator
from tdn.data.dataset.theory_levels import head_slices
from tdn.network.base import exact_constants
from tdn.network.build import build_model
from tdn.network.checkpoint import load_model, read_checkpoint
from tdn.system.errors import UsageError
from tdn.training.cli import main
from tdn_export import export_model
from tdn_export.cli import main as export_main


def other_theory(atoms: ase.Atoms) -> ase.Atoms:
    """The same surface times 1.5, on other energies of atoms."""
    found = labelled(atoms, {"H": 0.0, "O": 0.0})
    counts = sum({"H": -10.0, "O": -1000.0}[s] for s in atoms.get_chemical_symbols())
    atoms = atoms.copy()
    atoms.calc = SinglePointCalculator(
        atoms,
        energy=1.5 * found.get_potential_energy() + counts,
        forces=1.5 * found.get_forces(),
    )
    return atoms


@pytest.fixture
def config(tmp_path):
    """A cheap level with eight frames, a good one with four."""
    cheap = [labelled(water_like(seed, molecules=1 + seed % 2)) for seed in range(8)]
    good = [other_theory(water_like(seed, molecules=1 + seed % 2)) for seed in range(20, 24)]
    ase.io.write(tmp_path / "cheap.xyz", cheap)
    ase.io.write(tmp_path / "good.xyz", good)
    values = {
        "model": dict(TINY),
        "data": {
            "valid_fraction": 0.25,
            "heads": {
                "cheap": {"train": "cheap.xyz", "atomic_energies": E0},
                "good": {"train": "good.xyz", "atomic_energies": {"H": -10.0, "O": -1000.0}},
            },
        },
        "train": {"max_epochs": 3, "batch_size": 4, "dtype": "float64", "device": "cpu"},
    }
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def test_frames_stay_with_their_head(config):
    trainer = trainer_of(config)
    dataset = trainer.dataset
    assert dataset.heads == ("cheap", "good")
    assert [len(r) for r in head_slices(dataset, "train")] == [6, 3]
    assert [len(r) for r in head_slices(dataset, "valid")] == [2, 1]
    names = [f.source for f in dataset.train.frames]
    assert names == ["cheap.xyz"] * 6 + ["good.xyz"] * 3
    one, other = trainer.model.networks
    assert one.layers is other.layers and one.embedding is other.embedding
    assert one.readouts is not other.readouts
    assert one.atomic_energies.tolist() == [-13.6, -2041.0]
    assert other.atomic_energies.tolist() == [-10.0, -1000.0]
    # body once, readouts twice
    count = sum(p.numel() for p in one.parameters())
    readout = sum(p.numel() for p in one.readouts.parameters())
    assert trainer.num_parameters == count + readout


def test_a_mixed_batch_is_the_sum_of_its_heads(config):
    """Gradients of a batch with both heads: those of its parts, weighted by their labels."""
    trainer = trainer_of(config, "train.clip_norm=0")

    def gradient(frames):
        trainer.optimizer.step = lambda: None
        trainer._step([frames])
        atoms = sum(len(trainer.dataset.train.frames[i].atoms) for i in frames)
        flat = torch.cat([p.grad.flatten() for p in trainer.parameters])
        return flat, len(frames), atoms

    trainer.loss = type(trainer.loss)(0.0, 1.0, 0.0)  # forces alone: counted by atoms
    mixed, _, atoms = gradient([0, 1, 7])
    (cheap, _, some), (good, _, rest) = gradient([0, 1]), gradient([7])
    assert some + rest == atoms
    expected = (some * cheap + rest * good) / atoms
    torch.testing.assert_close(mixed, expected, rtol=1e-11, atol=1e-14)


@pytest.mark.slow
def test_from_training_to_a_compiled_head(config, capsys):
    assert main([str(config)]) == 0
    output = capsys.readouterr()
    assert "head good: frames: 3 training, 1 validation" in output.out
    assert "validation, cheap" in output.out and "--head cheap" in output.out
    run = config.parent / "run"
    model_file = run / "model.pt"
    content = read_checkpoint(model_file)
    assert tuple(content["heads"]) == ("cheap", "good")
    (cheap, _), (good, metadata) = (load_model(model_file, head=n) for n in content["heads"])
    for name, parameter in cheap.named_parameters():
        same = torch.equal(parameter, dict(good.named_parameters())[name])
        assert same == (not name.startswith("readouts.")) or not parameter.numel(), name
    assert metadata["head"] == "good" and metadata["atomic_energies"]["O"] == -1000.0
    report = export_model(model_file, run / "good.tdn.pth", head="good")
    assert report.metadata["training"]["head"] == "good"
    atoms = water_like(30)
    energies = {}
    for key, calculator in {
        "compiled": TDNCalculator(run / "good.tdn.pth", "cpu"),
        "good": TDNCalculator(model_file, "cpu", head="good"),
        "cheap": TDNCalculator(model_file, "cpu", head="cheap"),
    }.items():
        atoms.calc = calculator
        energies[key] = atoms.get_potential_energy()
    assert energies["compiled"] == pytest.approx(energies["good"], rel=1e-9)
    assert abs(energies["good"] + 1020.0) < 20 and abs(energies["cheap"] + 2068.2) < 20
    capsys.readouterr()
    # going on reads all heads
    assert main([str(config), "train.max_epochs=4"]) == 0
    assert "epoch 4 of 4" in capsys.readouterr().out


def test_resumed_with_heads(config):
    """Three epochs at once, or two and one more: the same weights, readouts and E0."""
    schedule = "train.schedule=constant"
    straight = trainer_of(config, schedule)
    assert straight.fit()
    first = trainer_of(config, schedule, "train.max_epochs=2")
    assert first.fit()
    second = trainer_of(config, schedule, resume=True)
    assert second.fit()
    assert_same(straight.model.state_dict(), second.model.state_dict())


def test_fine_tuning_from_a_network_with_heads(config, capsys):
    assert main([str(config), "train.max_epochs=1"]) == 0
    values = yaml.safe_load(config.read_text())
    values["train"] |= {"init_from": "run/model.pt", "run_dir": "tuned", "freeze": ["layers"]}
    config.write_text(yaml.safe_dump(values))
    assert main([str(config), "train.max_epochs=1"]) == 0
    before, _ = load_model(config.parent / "run" / "model.pt", head="cheap")
    after, _ = load_model(config.parent / "tuned" / "model.pt", head="good")
    for one, other in zip(before.layers.parameters(), after.layers.parameters(), strict=True):
        assert torch.equal(one, other)
    capsys.readouterr()


@pytest.mark.parametrize("fitted, given", [("cheap", "good"), ("good", "cheap")])
def test_each_head_knows_where_its_energies_of_atoms_come_from(config, fitted, given):
    """Those that a user gives stay, those from least squares absorb what a network explains."""
    assert main([str(config), "train.max_epochs=1"]) == 0
    values = yaml.safe_load(config.read_text())
    values["train"] |= {"init_from": "run/model.pt", "run_dir": "tuned"}
    values["data"]["heads"][fitted]["atomic_energies"] = "least_squares"
    config.write_text(yaml.safe_dump(values))
    trainer = trainer_of(config)
    heads = trainer.dataset.heads
    found = dict(zip(heads, trainer.model.networks, strict=True))
    wanted = values["data"]["heads"][given]["atomic_energies"]
    assert found[given].atomic_energies.tolist() == [wanted["H"], wanted["O"]]
    before = dict(zip(heads, trainer.dataset.statistics, strict=True))[fitted][0]
    assert (found[fitted].atomic_energies - before).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("heads", "code", "expected"),
    [
        ({"a": {"trian": "cheap.xyz"}}, 2, "unknown key 'data.heads.a.trian'; did you mean"),
        ({"a": {"train": "none.xyz"}}, 1, "none.xyz not found"),
        ({"a": {}}, 2, "head 'a': data.train is not set"),
        ({"a": "cheap.xyz"}, 2, "data.heads.a = 'cheap.xyz': expected dict"),
    ],
)
def test_mistakes_in_heads(config, capsys, heads, code, expected):
    values = yaml.safe_load(config.read_text())
    values["data"]["heads"] = heads
    config.write_text(yaml.safe_dump(values))
    assert main([str(config)]) == code
    assert expected in capsys.readouterr().err


def test_heads_and_a_training_file_exclude_each_other(config, capsys):
    assert main([str(config), f"data.train={config.parent / 'cheap.xyz'}"]) == 2
    assert "data.train and data.heads exclude each other" in capsys.readouterr().err


def test_the_head_must_be_named(config, capsys):
    trainer = trainer_of(config, "train.max_epochs=1", "train.dtype=float32")
    assert trainer.fit()
    assert export_main([str(trainer.model_file)]) == 2
    assert "choose one (--head" in capsys.readouterr().err
    # the body is shared, yet its constants stay exact in the file
    exact = exact_constants(build_model(trainer.config.model, seed=0))
    state = read_checkpoint(trainer.model_file)["state"]
    assert all(torch.equal(state[name], value) for name, value in exact.items())
    with pytest.raises(UsageError, match=r"has the heads cheap, good; choose one"):
        load_model(trainer.model_file)
    with pytest.raises(UsageError, match="no head 'chep'; did you mean 'cheap'"):
        load_model(trainer.model_file, head="chep")
    assert load_model(trainer.model_file, head="cheap")[0].embedding.dtype == torch.float32
