"""What a run leaves behind explains itself; TensorBoard; presets; compilation; precision."""

import sys

import pytest
import torch
import yaml
from training.helpers import trainer_of, write_config

from tdn.config.presets import PRESETS
from tdn.config.yaml_file import load_config
from tdn.training.cli import main
from tdn.training.run.csv_log import read_log
from tdn.training.run.folder import RUN_FILES

DIRECT = {"architecture": "attention", "forces": "direct", "num_heads": 2, "num_layers": 1}


def test_readme_names_every_file(finished):
    text = (finished / "run" / "README.txt").read_text()
    for path in (finished / "run").iterdir():
        assert path.name in RUN_FILES and f"\n{path.name} " in text
    assert "tdn-export model.pt" in text and "tdn-eval errors model.pt" in text
    assert main([str(finished / "config.yaml"), "--restart", "train.max_epochs=1"]) == 0


def test_configuration_in_the_folder_is_resolved(finished, capsys):
    """Species and neighbors are those that the data gave; it goes on with the same run."""
    values = yaml.safe_load((finished / "run" / "config.yaml").read_text())
    assert values["model"]["species"] == ["H", "O"]
    assert values["model"]["avg_num_neighbors"] > 0
    assert main([str(finished / "run" / "config.yaml"), "train.max_epochs=4"]) == 0
    assert "epoch 4 of 4" in capsys.readouterr().out


def test_tensorboard_has_the_numbers_of_the_log(folder, capsys):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config = write_config(folder, train={"tensorboard": True})
    assert main([str(config), "train.max_epochs=1"]) == 0
    assert main([str(config), "train.max_epochs=2"]) == 0
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
    values = yaml.safe_load(write_config(folder).read_text())
    values["model"] = {"preset": name, "r_max": 3.0}
    (folder / "config.yaml").write_text(yaml.safe_dump(values))
    trainer = trainer_of(folder / "config.yaml")
    for key, value in PRESETS[name].items():
        assert getattr(trainer.config.model, key) == value
    before = trainer.model.embedding.detach().clone()
    trainer._step([[0, 1]])
    assert not torch.equal(before, trainer.model.embedding)


def test_a_preset_gives_way_to_keys(folder):
    config = load_config(write_config(folder, model={"preset": "large", "num_channels": 16}))
    assert config.model.num_channels == 16 and config.model.radial_hidden == (64, 64)
    assert PRESETS["medium"] == {}


def test_accumulated_batches_are_one_batch(folder):
    """Two batches of two make the step of one batch of four, whatever labels they have."""
    config = write_config(folder, train={"clip_norm": 0})
    weights = []
    for batches in ([[0, 1], [2, 3]], [[0, 1, 2, 3]]):
        trainer = trainer_of(config)
        trainer._step(batches)
        weights.append(torch.cat([p.grad.flatten() for p in trainer.parameters]))
    torch.testing.assert_close(*weights, rtol=1e-10, atol=1e-13)


def test_matmul_precision(folder):
    before = torch.get_float32_matmul_precision()
    try:
        trainer_of(write_config(folder, train={"matmul_precision": "high"}))
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision(before)


def test_a_network_that_cannot_be_compiled_is_trained_without(folder, capsys, monkeypatch):
    """Whatever the compiler throws: one line, and the run goes on as without it."""

    def refusing(model, **options):
        raise RuntimeError("torch.compile does not currently support double backward")

    monkeypatch.setattr(torch, "compile", refusing)
    config = write_config(folder, model=DIRECT)
    assert main([str(config), "train.compile=true", "train.max_epochs=1"]) == 0
    error = capsys.readouterr().err
    assert "train.compile: this network cannot be trained compiled" in error
    assert "double backward" in error and "Traceback" not in error


def test_gradient_forces_are_not_compiled(folder, capsys):
    """They are differentiated twice, which PyTorch refuses for compiled code."""
    trainer = trainer_of(write_config(folder, train={"compile": True}))
    assert "cannot be trained compiled" in trainer.display.warnings[-1]
    assert trainer.potentials[0].model is trainer.model


@pytest.fixture
def without_vectors():
    """Compiled code of numbers instead of vectors, which the C++ compiler is done with sooner."""
    import torch._inductor.config

    with torch._inductor.config.patch({"cpp.simdlen": 1}):
        yield


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_direct_forces_train_compiled(folder, without_vectors):
    """With the gradients of the network itself, whatever the size of a batch.

    The smallest network with direct forces, since each function of it is compiled.
    """
    smallest = {"num_heads": 1, "radial_hidden": [], "subtract_isolated": False}
    config = write_config(folder, model=DIRECT | smallest, train={"max_epochs": 1, "clip_norm": 0})
    trainers = [trainer_of(config, f"train.compile={compiled}") for compiled in (False, True)]
    assert trainers[0].display.warnings == trainers[1].display.warnings
    step = trainers[1].optimizer.step
    for frames in ([0, 1, 2, 3, 4, 5], [3, 4]):
        gradients = []
        for trainer in trainers:
            trainer.optimizer.step = lambda: None
            trainer._step([frames])
            gradients.append(torch.cat([p.grad.flatten() for p in trainer.parameters]))
        # the same operations in another order
        scale = gradients[0].abs().max().item()
        torch.testing.assert_close(*gradients, rtol=0, atol=1e-12 * scale)
    trainers[1].optimizer.step = step
    assert trainers[1].fit()
