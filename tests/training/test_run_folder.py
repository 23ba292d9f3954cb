"""What a run leaves behind explains itself; TensorBoard; presets; compilation; precision."""

import sys

import pytest
import torch
import yaml
from training.helpers import write_config, write_frames

from tdn.config.presets import PRESETS
from tdn.config.yaml_file import load_config
from tdn.data.dataset.theory_levels import load_training_data
from tdn.training.cli import main
from tdn.training.run.csv_log import read_log
from tdn.training.run.folder import RUN_FILES
from tdn.training.trainer import Trainer


@pytest.fixture
def folder(tmp_path):
    write_frames(tmp_path / "train.xyz")
    return tmp_path


def test_readme_names_every_file(folder, capsys):
    assert main([str(write_config(folder))]) == 0
    text = (folder / "run" / "README.txt").read_text()
    for path in (folder / "run").iterdir():
        assert path.name in RUN_FILES and f"\n{path.name} " in text
    assert "tdn-export model.pt" in text
    assert main([str(folder / "config.yaml"), "--restart"]) == 0
    capsys.readouterr()


def test_configuration_in_the_folder_is_resolved(folder, capsys):
    """Species and neighbours are those that the data gave; it goes on with the same run."""
    assert main([str(write_config(folder))]) == 0
    values = yaml.safe_load((folder / "run" / "config.yaml").read_text())
    assert values["model"]["species"] == ["H", "O"]
    assert values["model"]["avg_num_neighbors"] > 0
    capsys.readouterr()
    assert main([str(folder / "run" / "config.yaml"), "train.max_epochs=4"]) == 0
    assert "epoch 4 of 4" in capsys.readouterr().out


def test_a_state_from_before_there_was_a_choice_of_optimiser(folder, capsys):
    """It says nothing about the optimiser, which was AdamW: the default of today is another."""
    config = write_config(folder, train={"optimizer": "adamw"})
    assert main([str(config)]) == 0
    path = folder / "run" / "last.pt"
    content = torch.load(path, weights_only=True)
    del content["config"]["train"]["optimizer"]
    torch.save(content, path)
    capsys.readouterr()
    assert main([str(config), "train.max_epochs=4"]) == 0
    assert "epoch 4 of 4" in capsys.readouterr().out
    torch.save(content, path)
    assert main([str(config), "train.max_epochs=5", "train.optimizer=soap"]) == 1
    assert "train.optimizer: 'adamw' there, 'soap' here" in capsys.readouterr().err


def test_tensorboard_has_the_numbers_of_the_log(folder, capsys):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config = write_config(folder, train={"tensorboard": True})
    assert main([str(config)]) == 0
    assert main([str(config), "train.max_epochs=5"]) == 0
    events = EventAccumulator(str(folder / "run" / "tensorboard"))
    events.Reload()
    rows = read_log(folder / "run" / "log.csv")
    written = events.Scalars("validation/forces_rmse")
    assert [e.step for e in written] == [row["step"] for row in rows]
    for event, row in zip(written, rows, strict=True):
        assert event.value == pytest.approx(row["valid_forces_rmse"], rel=1e-6)
    assert {"training/loss", "run/learning_rate", "run/epoch"} <= set(events.Tags()["scalars"])
    capsys.readouterr()


def test_missing_tensorboard_is_told_at_once(folder, capsys, monkeypatch):
    # None in this table makes an import fail
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    assert main([str(write_config(folder)), "train.tensorboard=true"]) == 1
    error = capsys.readouterr().err
    assert "pip install tensorboard" in error and error.count("\n") == 1
    assert not (folder / "run").exists()


@pytest.mark.parametrize("name", [n for n in PRESETS if n != "paper"])
def test_presets_train(folder, name):
    config = load_config(write_config(folder, model={}))
    values = yaml.safe_load((folder / "config.yaml").read_text())
    values["model"] = {"preset": name, "r_max": 3.0}
    (folder / "config.yaml").write_text(yaml.safe_dump(values))
    config = load_config(folder / "config.yaml")
    for key, value in PRESETS[name].items():
        assert getattr(config.model, key) == value
    trainer = Trainer(config, load_training_data(config))
    before = trainer.model.embedding.detach().clone()
    trainer._step([[0, 1]])
    assert not torch.equal(before, trainer.model.embedding)


def test_a_preset_gives_way_to_keys(folder):
    config = load_config(write_config(folder, model={"preset": "large", "num_channels": 16}))
    assert config.model.num_channels == 16 and config.model.radial_hidden == (64, 64)
    assert PRESETS["medium"] == {}


def test_accumulated_batches_are_one_batch(folder):
    """Two batches of two make the step of one batch of four, whatever labels they have."""
    config = load_config(write_config(folder, train={"clip_norm": 0}))
    weights = []
    for batches in ([[0, 1], [2, 3]], [[0, 1, 2, 3]]):
        trainer = Trainer(config, load_training_data(config))
        trainer._step(batches)
        weights.append(torch.cat([p.grad.flatten() for p in trainer.parameters]))
    torch.testing.assert_close(*weights, rtol=1e-10, atol=1e-13)


def test_matmul_precision(folder):
    before = torch.get_float32_matmul_precision()
    try:
        config = load_config(write_config(folder, train={"matmul_precision": "high"}))
        Trainer(config, load_training_data(config))
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision(before)


def test_a_network_that_cannot_be_compiled_is_trained_without(folder, capsys, monkeypatch):
    """Whatever the compiler throws: one line, and the run goes on as without it."""

    def refusing(model, **options):
        raise RuntimeError("torch.compile does not currently support double backward")

    monkeypatch.setattr(torch, "compile", refusing)
    assert main([str(write_config(folder)), "train.compile=true"]) == 0
    error = capsys.readouterr().err
    assert "train.compile: this network cannot be trained compiled" in error
    assert "double backward" in error and "Traceback" not in error


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("forces", ["gradient", "direct"])
def test_compilation_as_it_is(folder, capsys, forces):
    """Direct forces train compiled; forces as gradients say that they cannot."""
    keys = {"architecture": "attention", "forces": forces, "num_channels": 4, "num_heads": 2}
    config = write_config(folder, model=keys)
    assert main([str(config), "train.compile=true", "train.max_epochs=1"]) == 0
    refused = "cannot be trained compiled" in capsys.readouterr().err
    assert refused == (forces == "gradient")
