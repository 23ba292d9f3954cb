"""``tdn-train`` as a user drives it."""

import errno
import json
import os
import signal
import subprocess
import time
from pathlib import Path

import ase
import ase.io
import forks
import numpy as np
import pytest
import torch
from ase.calculators.singlepoint import SinglePointCalculator
from training.helpers import E0, water_like, write_config, write_frames

from tdn.network.checkpoint import load_model, read_checkpoint
from tdn.training.cli import main
from tdn.training.patience import Patience
from tdn.training.run import resume
from tdn.training.run.csv_log import read_log


@pytest.fixture
def folder(tmp_path):
    """A folder with eight labelled frames."""
    write_frames(tmp_path / "train.xyz")
    return tmp_path


def run(config, *arguments: str) -> int:
    return main([str(config), *arguments])


def last_weights(folder) -> dict[str, torch.Tensor]:
    return read_checkpoint(folder / "run" / "last.pt", "tdn-training")["model"]["state"]


def assert_same(a: dict, b: dict) -> None:
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name


def test_a_whole_run(folder, capsys, figures):
    frames = write_frames(folder / "test.xyz", 3, pbc=True)
    for atoms in frames[:2]:
        atoms.info["config_type"] = "crystal"
    isolated = [ase.Atoms(s) for s in E0]
    for atoms in isolated:
        atoms.calc = SinglePointCalculator(atoms, energy=E0[atoms.get_chemical_symbols()[0]])
    ase.io.write(folder / "isolated.xyz", isolated)
    config = write_config(folder, data={"test": "test.xyz", "isolated_atoms": "isolated.xyz"})
    assert run(config) == 0
    out = capsys.readouterr().out
    assert "6 training, 2 validation, 3 test, 2 isolated atoms" in out
    assert "RMSE" in out and "tdn-export" in out
    written = {path.name for path in (folder / "run").iterdir()}
    assert written == {
        *("model.pt", "last.pt", "log.csv", "config.yaml", "README.txt"),
        *("errors.json", "learning_curve.png", "parity.png"),
    }
    assert [row["epoch"] for row in read_log(folder / "run" / "log.csv")] == [1, 2, 3]
    model, metadata = load_model(folder / "run" / "model.pt")
    assert model.config.species == ("H", "O")
    np.testing.assert_allclose(model.atomic_energies, [E0["H"], E0["O"]])
    assert metadata["frames"] == {"train": 6, "valid": 2, "test": 3}
    errors = json.loads((folder / "run" / "errors.json").read_text())
    assert errors["test"]["all"]["stress"]["count"] == 27
    assert errors["test"]["all"]["forces"] == metadata["errors"]["test"]["forces"]
    # the copy of the configuration is complete: it starts the same run from anywhere
    assert main([str(folder / "run" / "config.yaml"), "--dry-run"]) == 0


def test_learning_lowers_the_loss(folder):
    """A small network learns two frames by heart: the loss falls by more than a factor of 100."""
    write_frames(folder / "train.xyz", 2)
    config = write_config(
        folder,
        model={"num_channels": 8},
        data={"valid_fraction": 0.0},
        train={"max_epochs": 120, "learning_rate": 0.02, "warmup_epochs": 5},
    )
    assert run(config) == 0
    rows = read_log(folder / "run" / "log.csv")
    assert rows[-1]["train_loss"] < 0.01 * rows[0]["train_loss"]
    errors = json.loads((folder / "run" / "errors.json").read_text())["train"]["all"]
    spread = np.sqrt(np.mean(np.concatenate([a.get_forces() for a in _frames(folder)]) ** 2))
    assert errors["forces"]["rmse"] < 0.1 * 1e3 * spread


def _frames(folder) -> list[ase.Atoms]:
    return ase.io.read(folder / "train.xyz", ":")


def test_resumed_run_ends_bitwise_equal(tmp_path):
    """Stop after some epochs, or in the middle of one: the same weights come out."""
    weights = {}
    for name in ("straight", "stopped"):
        folder = tmp_path / name
        folder.mkdir()
        write_frames(folder / "train.xyz")
        config = write_config(folder, train={"max_epochs": 4, "dtype": "float32"})
        if name == "stopped":
            _stop_after(config, batches=5)  # the second batch of the second epoch
            assert 0 < read_progress(folder)["batch"] < 3
        assert run(config) == 0
        weights[name] = last_weights(folder)
        best, _ = load_model(folder / "run" / "model.pt")
        weights[name] |= {f"best.{k}": v for k, v in best.state_dict().items()}
    assert_same(weights["straight"], weights["stopped"])
    logs = [read_log(tmp_path / name / "run" / "log.csv") for name in weights]
    for one, other in zip(*logs, strict=True):
        assert one["epoch"] == other["epoch"]
        assert one["train_loss"] == other["train_loss"]


def read_progress(folder) -> dict:
    return read_checkpoint(folder / "run" / "last.pt", "tdn-training")["progress"]


def _stop_after(config, batches: int) -> None:
    """Ctrl-C during a given batch of a run in this process."""
    from tdn.training.run.display import Display

    count = 0
    original = Display.step

    def step(self) -> None:
        nonlocal count
        original(self)
        count += 1
        if count == batches:
            os.kill(os.getpid(), signal.SIGINT)

    Display.step = step
    try:
        assert run(config) == 130
    finally:
        Display.step = original


def test_continue_with_more_epochs(folder, capsys):
    config = write_config(folder)
    assert run(config) == 0
    weights = last_weights(folder)
    assert run(config) == 0
    assert "this run is finished (3 epochs)" in capsys.readouterr().out
    assert_same(weights, last_weights(folder))
    assert run(config, "train.max_epochs=5") == 0
    assert "epoch 4 of 5" in capsys.readouterr().out
    assert [row["epoch"] for row in read_log(folder / "run" / "log.csv")] == [1, 2, 3, 4, 5]


def test_a_disk_that_is_full_leaves_nothing_in_the_way(folder, capsys, monkeypatch):
    """No room for the first last.pt: no model.pt either, from which no run could go on."""

    def full(content, path):
        Path(path).write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    config = write_config(folder, train={"max_epochs": 1})
    with monkeypatch.context() as patch:
        patch.setattr(resume.torch, "save", full)
        assert run(config) == 1
    assert "last.pt: No space left on device" in capsys.readouterr().err
    assert sorted(path.name for path in (folder / "run").glob("*.pt")) == []
    assert run(config) == 0


def test_a_run_that_ended_early_is_not_said_to_go_on(folder, capsys, monkeypatch):
    watch = Patience.watch
    monkeypatch.setattr(
        Patience, "watch", lambda self, _, progress: watch(self, progress.epoch, progress)
    )
    config = write_config(folder, train={"max_epochs": 40, "patience": 4})
    assert run(config) == 0  # lowest in the first epoch
    for override in ("train.max_epochs=40", "train.max_epochs=80"):
        capsys.readouterr()
        assert run(config, override) == 0
        out = capsys.readouterr().out
        assert "this run is finished (6 epochs)" in out
        assert "It ended early (train.patience)" in out and "Raise" not in out


def test_last_file_of_another_run(folder, capsys):
    config = write_config(folder)
    assert run(config, "train.max_epochs=1") == 0
    capsys.readouterr()
    assert run(config, "train.learning_rate=0.002") == 1
    error = capsys.readouterr().err
    assert "train.learning_rate: 0.005 there, 0.002 here" in error and "--restart" in error
    frames = _frames(folder)
    frames[0].positions[0, 0] += 0.01
    frames[0].calc = _frames(folder)[0].calc
    ase.io.write(folder / "train.xyz", frames)
    assert run(config, "train.max_epochs=1") == 1
    assert "other training frames" in capsys.readouterr().err
    assert run(config, "train.max_epochs=1", "--restart") == 0
    (folder / "run" / "last.pt").write_bytes(b"damaged")
    assert run(config) == 1
    assert "--restart" in capsys.readouterr().err
    (folder / "run" / "last.pt").unlink()
    assert run(config) == 1
    assert "holds a model.pt but no last.pt" in capsys.readouterr().err


def test_dry_run_writes_nothing(folder, capsys):
    config = write_config(folder)
    assert run(config, "--dry-run") == 0
    assert "dry run: everything is fine" in capsys.readouterr().out
    assert not (folder / "run").exists()


def test_same_seed_same_run(tmp_path):
    results = []
    for seed in (1, 1, 2):
        folder = tmp_path / str(len(results))
        folder.mkdir()
        write_frames(folder / "train.xyz", 4)
        assert run(write_config(folder, train={"max_epochs": 1, "seed": seed})) == 0
        results.append(last_weights(folder))
    assert_same(results[0], results[1])
    assert not torch.equal(results[0]["embedding"], results[2]["embedding"])


def test_data_mistakes_are_one_line(folder, capsys):
    """What a wrong data file gives on the terminal: exit code 1, one line, no traceback."""
    good = (folder / "train.xyz").read_text()
    lines = good.splitlines(keepends=True)
    comment = lines[6]  # of the second frame of five lines
    cases = {
        "": "is empty",
        "not a structure\n": "cannot be read",
        good.replace(comment, comment.replace("energy=", "other=")): "frame 2 of train.xyz has no",
        good.replace(comment, _with_energy(comment, "nan")): "frame 2 of train.xyz: 'energy'",
        good.replace(":forces:R:3", ":pull:R:3"): "has no forces under a common name (6 of 6",
        good.replace(":forces:R:3", ":tug:R:3"): "frames have none; under other keys: 'tug')",
        "".join(lines[:-2]): "frame 8 of",
    }
    config = write_config(folder)
    for text, expected in cases.items():
        (folder / "train.xyz").write_text(text)
        assert run(config) == 1
        error = capsys.readouterr().err
        assert expected in error, error
        assert error.startswith("tdn-train: error: ") and error.count("\n") == 1
    (folder / "train.xyz").unlink()
    assert run(config) == 1
    assert "train.xyz not found" in capsys.readouterr().err
    assert not (folder / "run").exists()


def _with_energy(comment: str, value: str) -> str:
    words = comment.split(" ")
    return " ".join(f"energy={value}" if w.startswith("energy=") else w for w in words)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["none.yaml"], "none.yaml not found"),
        ([], "no configuration file given"),
        (["config.yaml", "train.sed=1"], "did you mean 'seed'?"),
        (["config.yaml", "data.train=null"], "data.train is not set"),
        (["config.yaml", "train.device=tpu"], "expected auto, cpu, cuda"),
        (["config.yaml", "data.atomic_energies=magic"], "expected auto, isolated"),
        (["config.yaml", "model.species=[H, Zz]"], "'Zz' is not a chemical symbol"),
        (["config.yaml", "model.species=[H, O, H]"], "names H twice"),
    ],
)
def test_usage_mistakes(folder, capsys, monkeypatch, arguments, expected):
    write_config(folder)
    monkeypatch.chdir(folder)
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert expected in error and error.count("\n") == 1


def test_help_and_defaults(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    assert "--restart" in capsys.readouterr().out
    assert main(["--defaults"]) == 0
    assert "learning_rate:" in capsys.readouterr().out


def test_unwritable_run_folder(folder, capsys):
    (folder / "file").write_text("")
    for run_dir in (folder / "file", folder / "file" / "run"):
        assert run(write_config(folder), f"train.run_dir={run_dir}") == 1
        error = capsys.readouterr().err
        assert "is a file" in error and error.count("\n") == 1


@pytest.mark.slow
def test_ctrl_c_finishes_the_batch_and_says_how_to_go_on(folder):
    config = write_config(folder, train={"max_epochs": 100000})
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    command = [Path(forks.python()).with_name("tdn-train"), config]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )
    try:
        deadline = time.monotonic() + 120
        while not (folder / "run" / "model.pt").exists():
            assert process.poll() is None and time.monotonic() < deadline, "did not start"
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "Run the same command again to go on" in out
    assert "Traceback" not in err
    done = read_progress(folder)
    assert done["step"] > 0 and done["step"] == done["epoch"] * 3 + done["batch"]
    assert main([str(config), f"train.max_epochs={done['epoch'] + 1}"]) == 0


def test_periodic_frames_with_stress(tmp_path):
    write_frames(tmp_path / "train.xyz", 5, pbc=True, molecules=2)
    assert run(write_config(tmp_path)) == 0
    rows = read_log(tmp_path / "run" / "log.csv")
    assert all(row["valid_stress_rmse"] > 0 and row["train_stress_loss"] > 0 for row in rows)


def test_structures_differ():
    assert not np.allclose(water_like(0).positions, water_like(1).positions)
