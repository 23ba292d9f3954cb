"""Errors, their tables, and ``tdn-eval`` as a user drives it."""

import json
import os
import shutil
from pathlib import Path

import ase
import ase.io
import numpy as np
import pytest
import torch
from training.helpers import labelled, water_like

from tdn.config import ModelConfig
from tdn.data import build_graphs, read_frames
from tdn.evaluation import stability
from tdn.evaluation.cli import main
from tdn.evaluation.errors import (
    Evaluation,
    Values,
    error_tables,
    errors,
    evaluate,
    format_rows,
    frame_errors,
)
from tdn.evaluation.worst_frames import worst_frames
from tdn.network.build import build_model
from tdn.network.checkpoint import save_model
from tdn.network.potential import Potential, stress_of_virial

LAMMPS = ("--engine", "lammps")
CONFIG = ModelConfig(
    species=("H", "O"), r_max=3.0, l_max=1, num_channels=4, correlation=2, avg_num_neighbors=2.0
)


@pytest.fixture(scope="module")
def model():
    return build_model(CONFIG, seed=1)


@pytest.fixture(scope="module")
def files(tmp_path_factory, model):
    root = tmp_path_factory.mktemp("evaluation")
    save_model(root / "model.pt", model, {})
    frames = []
    for seed in range(5):
        atoms = labelled(water_like(seed, pbc=seed < 2))
        atoms.info["config_type"] = "crystal" if seed < 2 else "gas"
        frames.append(atoms)
    ase.io.write(root / "frames.xyz", frames)
    return root


@pytest.fixture
def folder(files, tmp_path):
    """A random model, and frames of two types of which one has no stress."""
    return shutil.copytree(files, tmp_path, dirs_exist_ok=True)


def test_error_arithmetic():
    """Energies per atom, forces and stresses per component, in units of 10^-3."""
    nan = np.nan
    volume = np.array([1.0, 5.0, 2.0])
    reference = Values(
        np.array([-10.0, -20.0, nan]),
        np.array([[0.0, 0, 0]] * 3 + [[nan] * 3] * 3),
        np.stack([np.zeros((3, 3)), np.full((3, 3), nan), np.full((3, 3), nan)]),
        volume,
    )
    forces = np.zeros((6, 3))
    forces[0], forces[1] = [0.003, 0.0, 0.0], [0.0, -0.006, 0.0]
    virial = np.full((3, 3, 3), -0.002) * volume[:, None, None]  # a stress of 0.002
    predicted = Values(np.array([-9.99, -20.04, -3.0]), forces, virial, volume)
    evaluation = Evaluation(predicted, reference, np.array([1, 2, 3]), np.array([0, 1, 1, 0, 0, 0]))
    found = errors(evaluation)
    assert found["energy"].mae == pytest.approx(15.0)
    assert found["energy"].rmse == pytest.approx(np.sqrt((10**2 + 20**2) / 2))
    assert found["forces"].mae == pytest.approx(1.0) and found["forces"].count == 9
    assert found["forces"].rmse == pytest.approx(np.sqrt(45 / 9))
    assert found["stress"].mae == pytest.approx(2.0) and found["stress"].count == 9
    tables = error_tables(evaluation, ["a", "b", None], ["H", "O"])
    assert tables["config_types"]["a"]["energy"].mae == pytest.approx(10.0)
    assert tables["config_types"]["b"]["stress"] is None
    assert tables["config_types"]["(none)"]["energy"] is None
    assert tables["elements"]["H"]["forces"].mae == pytest.approx(1.0)
    assert tables["elements"]["O"]["forces"].rmse == pytest.approx(np.sqrt(36 / 6))
    text = format_rows({"all": tables["all"], **tables["config_types"]})
    assert "meV/atom" in text and "15.000" in text and len(text.splitlines()) == 6
    assert error_tables(evaluation, [None] * 3, ["H", "O"])["config_types"] == {}


def test_predictions_that_are_nan_are_not_hidden():
    virial = np.zeros((2, 3, 3))
    virial[0, 0, 0] = np.nan
    values = Values(np.array([np.nan, 1.0]), np.zeros((2, 3)), virial, np.ones(2))
    labels = Values(np.ones(2), np.zeros((2, 3)), np.zeros((2, 3, 3)), np.ones(2))
    found = errors(Evaluation(values, labels, np.array([1, 1]), np.array([0, 0])))
    assert np.isnan(found["energy"].mae) and np.isnan(found["stress"].rmse)
    assert found["forces"].rmse == 0.0


def test_batches_do_not_matter(folder, model):
    graphs = build_graphs(read_frames(folder / "frames.xyz"), [1, 8], CONFIG.r_max)
    one, many = (evaluate(Potential(model), graphs, batch_size=n) for n in (1, 4))
    np.testing.assert_allclose(one.predicted.energy, many.predicted.energy, rtol=1e-12)
    np.testing.assert_allclose(one.predicted.forces, many.predicted.forces, atol=1e-11)
    np.testing.assert_array_equal(one.reference.forces, many.reference.forces)
    assert np.isnan(one.reference.stress[2:]).all()
    assert np.isfinite(one.predicted.stress[:2]).all()


def test_command(folder, capsys):
    json_file = folder / "errors.json"
    arguments = ["errors", str(folder / "model.pt"), str(folder / "frames.xyz")]
    assert main([*arguments, "--output", str(folder / "out"), "--json", str(json_file)]) == 0
    out = capsys.readouterr().out
    assert "5 frames, 15 atoms; with energy 5, forces 5, stress 2" in out
    for word in ("crystal", "gas", "all", "H ", "O ", "meV/A^3"):
        assert word in out
    values = json.loads(json_file.read_text())
    assert values == json.loads((folder / "out" / "errors.json").read_text())
    assert values["config_types"]["crystal"]["stress"]["count"] == 18
    assert "stress" not in values["config_types"]["gas"]
    assert values["elements"]["O"]["forces"]["count"] == 15
    assert (folder / "out" / "parity.png").stat().st_size > 1000


def test_missing_labels_are_left_out(folder, capsys):
    frames = ase.io.read(folder / "frames.xyz", ":")
    frames[3].calc = None
    del frames[4].calc.results["energy"]
    frames[2].calc.results["forces"][0, 0] = np.nan
    ase.io.write(folder / "some.xyz", frames)
    assert main(["errors", str(folder / "model.pt"), str(folder / "some.xyz")]) == 0
    output = capsys.readouterr()
    assert "with energy 3, forces 3, stress 2" in output.out
    assert "1 of 5 frames have labels" in output.err


def test_perfect_model_has_no_error(folder, model, capsys):
    """Frames labelled by the model itself: errors are rounding of the file."""
    frames = ase.io.read(folder / "frames.xyz", ":")
    graphs = build_graphs(read_frames(folder / "frames.xyz"), [1, 8], CONFIG.r_max)
    for atoms, graph in zip(frames, graphs, strict=True):
        result = Potential(model)(graph)
        atoms.calc.results["energy"] = result["energy"].item()
        atoms.calc.results["forces"] = result["forces"].numpy()
        if atoms.pbc.all():
            stress = stress_of_virial(result["virial"], graph.volume)[0].numpy()
            atoms.calc.results["stress"] = stress[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]
    ase.io.write(folder / "own.xyz", frames)
    json_file = folder / "e.json"
    arguments = ["errors", str(folder / "model.pt"), str(folder / "own.xyz")]
    assert main([*arguments, "--json", str(json_file)]) == 0
    for error in json.loads(json_file.read_text())["all"].values():
        assert error["rmse"] < 1e-4  # the file has eight decimals
    capsys.readouterr()


@pytest.mark.parametrize(
    ("arguments", "code", "expected"),
    [
        (["none.pt", "frames.xyz"], 1, "none.pt not found"),
        (["frames.xyz", "frames.xyz"], 1, "is not a checkpoint of TDN"),
        (["none.tdn.pth", "frames.xyz"], 1, "compiled file none.tdn.pth not found"),
        (["model.pt", "frames.xyz", "--json", "pipe"], 1, "a device or a pipe"),
        (["model.pt", "none.xyz"], 1, "none.xyz not found"),
        (["model.pt", "foreign.xyz"], 1, "frame 1 of foreign.xyz: element C is not known"),
        (["model.pt", "bare.xyz"], 1, "no frame of bare.xyz has energy"),
        (["model.pt", "frames.xyz", "--device", "tpu"], 2, "--device = 'tpu'"),
        (["model.pt", "frames.xyz", "--batch-size", "0"], 2, "--batch-size 0"),
        (["model.pt", "frames.xyz", "--json", "no/where.json"], 1, "does not exist"),
    ],
)
def test_mistakes(folder, capsys, monkeypatch, arguments, code, expected):
    monkeypatch.chdir(folder)
    if not os.path.exists("pipe"):
        os.mkfifo("pipe")
    ase.io.write("foreign.xyz", ase.Atoms("CH", positions=[[0, 0, 0], [0, 0, 1.1]]))
    ase.io.write("bare.xyz", water_like(0))
    assert main(["errors", *arguments]) == code
    error = capsys.readouterr().err
    assert expected in error and error.count("\n") == 1


def test_single_precision_on_request(folder, capsys):
    arguments = ["errors", str(folder / "model.pt"), str(folder / "frames.xyz")]
    assert main([*arguments, "--dtype", "float32"]) == 0
    assert torch.get_default_dtype() == torch.float32
    assert "5 frames" in capsys.readouterr().out


def test_worst_frames_are_written(folder, model, capsys):
    """The worst first, with labels, predictions and errors that fit together."""
    arguments = ["errors", str(folder / "model.pt"), str(folder / "frames.xyz")]
    worst = folder / "worst.xyz"
    assert main([*arguments, "--worst", "3", "-o", str(worst)]) == 0
    assert "worst 3 frames" in capsys.readouterr().out
    found = ase.io.read(worst, ":")
    original = ase.io.read(folder / "frames.xyz", ":")
    rmse = [1e3 * np.sqrt(np.mean((a.arrays["tdn_forces"] - a.get_forces()) ** 2)) for a in found]
    assert rmse == sorted(rmse, reverse=True)
    graphs = build_graphs(read_frames(folder / "frames.xyz"), [1, 8], CONFIG.r_max)
    everything = evaluate(Potential(model), graphs)
    expected = np.sort(frame_errors(everything)[1])[::-1][:3]
    np.testing.assert_allclose(rmse, expected, rtol=1e-5)
    for atoms, error in zip(found, rmse, strict=True):
        assert atoms.info["force_rmse_meV_per_A"] == pytest.approx(error, rel=1e-5)
        twin = original[atoms.info["frame"] - 1]
        np.testing.assert_allclose(atoms.positions, twin.positions)
        assert atoms.get_potential_energy() == pytest.approx(twin.get_potential_energy())
        difference = abs(atoms.info["tdn_energy"] - atoms.get_potential_energy()) / len(atoms)
        assert atoms.info["energy_error_meV_per_atom"] == pytest.approx(1e3 * difference, rel=1e-5)
    assert main([*arguments, "--worst", "2", "-o", str(folder / "out")]) == 0
    assert {p.name for p in (folder / "out").iterdir()} == {
        *("errors.json", "parity.png", "cumulative.png", "worst.xyz")
    }
    capsys.readouterr()


def test_errors_of_frames():
    """Frames without labels come never, those whose prediction is no number first."""
    nan = np.nan
    forces = np.zeros((6, 3))
    forces[1], forces[3], forces[5] = [3.0, 0, 0], [nan, 0, 0], [0, 0.6, 0]
    labels = np.zeros((6, 3))
    labels[0] = nan
    evaluation = Evaluation(
        Values(np.array([1.0, 2.0, 3.0, 4.0]), forces, np.zeros((4, 3, 3)), np.ones(4)),
        Values(np.array([nan, 2.5, 3.0, 4.0]), labels, np.zeros((4, 3, 3)), np.ones(4)),
        np.array([1, 2, 1, 2]),
        np.zeros(6, int),
    )
    energy, rmse = frame_errors(evaluation)
    assert energy[1] == pytest.approx(250.0) and np.isnan(energy[0])
    assert rmse[1] == pytest.approx(1e3 * np.sqrt(9 / 6))
    assert rmse[3] == pytest.approx(1e3 * np.sqrt(0.36 / 6))
    assert worst_frames(evaluation, 9) == [2, 1, 3]
    assert worst_frames(evaluation, 1) == [2]


@pytest.mark.parametrize(
    ("command", "arguments", "code", "expected"),
    [
        ("errors", "--worst 3", 2, "--worst needs a place"),
        ("errors", "--worst 0 -o worst.xyz", 2, "--worst 0: expected at least 1"),
        ("errors", "-o worst.xyz", 2, "a file with frames needs --worst"),
        ("errors", "--worst 1 -o no/worst.xyz", 1, "does not exist"),
        ("errors", "--split-key part", 2, "--split-key needs --split"),
        ("errors", "--head dft", 2, "has no heads"),
        ("md", "--frame 9", 2, "has 5 frames"),
        ("md", "--timestep 0", 2, "--timestep 0: expected a positive number"),
        ("scan", "0 7", 2, "there is no atom 7"),
        ("scan", "1 1", 2, "two different atoms"),
    ],
)
def test_mistakes_of_commands(folder, capsys, monkeypatch, command, arguments, code, expected):
    monkeypatch.chdir(folder)
    assert main([command, "model.pt", "frames.xyz", *arguments.split()]) == code
    error = capsys.readouterr().err
    assert expected in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        ("errors", "--engine lammps"),
        ("errors", "--frame 2"),
        ("md", "--worst 1 -o worst.xyz"),
        ("md", "--points 99"),
        ("md", "--energy-key energy"),
        ("scan", "0 1 --steps 2000"),
    ],
)
def test_commands_have_only_options_with_an_effect(folder, capsys, command, arguments):
    with pytest.raises(SystemExit) as caught:
        main([command, str(folder / "model.pt"), str(folder / "frames.xyz"), *arguments.split()])
    assert caught.value.code == 2
    assert "unrecognized arguments: --" in capsys.readouterr().err


def test_a_missing_command_is_named(capsys):
    assert main(["model.pt", "frames.xyz"]) == 2
    error = capsys.readouterr().err
    assert (
        "expected errors, md, scan, compare, as in: tdn-eval errors model.pt frames.xyz\n" in error
    )
    assert error.count("\n") == 1


def test_an_engine_that_is_not_installed_is_named(folder, capsys, monkeypatch):
    monkeypatch.setattr(stability, "entry_points", lambda **options: [])
    assert main(["md", str(folder / "model.pt"), str(folder / "frames.xyz"), *LAMMPS]) == 1
    error = capsys.readouterr().err
    assert "no installed package runs dynamics in lammps" in error and "pip install" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("command", [["errors"], ["md"], ["md", *LAMMPS], ["scan", "0", "1"]])
@pytest.mark.parametrize("choice", [["--dtype", "float64"], ["--head", "dft"]])
def test_what_export_has_fixed_cannot_be_chosen(folder, capsys, command, choice):
    """Of a compiled file, in every kind of evaluation: not ignored, but refused."""
    name, *options = command
    compiled = Path(__file__).parents[1] / "files" / "compiled_format_1.tdn.pth"
    assert main([name, str(compiled), str(folder / "frames.xyz"), *options, *choice]) == 2
    error = capsys.readouterr().err
    assert f"{choice[0]} does not apply to a compiled file" in error
    assert f"tdn-export model.pt {' '.join(choice)}\n" in error
