"""Networks of the released code of arXiv 2507.01131: constants, initial weights, import.

``tests/files/released_small.npz`` holds a small network of the released code (8 channels, one
block, 6 Gaussians, random weights), and its energies and forces of two clusters in float64.
"""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import ase
import numpy as np
import pytest
import torch

from tdn.config import (
    config_from_dict,
    config_to_dict,
    model_config_from_dict,
    stored_model_config,
)
from tdn.cp import load_factors
from tdn.graph import graph_from_atoms
from tdn.network.build import build_model
from tdn.network.checkpoint import load_model
from tdn.network.potential import Potential
from tdn.published import load_released
from tdn.system.errors import TDNError
from tdn.training.cli import main

SMALL = Path(__file__).parents[1] / "files" / "released_small.npz"
LARGER = Path(__file__).parents[3] / "shared" / "data" / "published"


def released_state(path):
    """The state in a file, and everything else that is in it."""
    with np.load(path) as archive:
        content = {name: archive[name] for name in archive.files}
    state = {k[6:]: torch.from_numpy(v) for k, v in content.items() if k.startswith("state/")}
    for name in content.get("copies_of_factors", []):
        state[str(name)] = state[f"edge_embed.tp.cp_tp.{str(name).rpartition('.')[2]}"]
    return state, content


def outputs(model, content):
    """Energies and forces of the molecules of a file."""
    energies, forces = [], []
    while f"molecule{len(energies)}/numbers" in content:
        name = f"molecule{len(energies)}"
        atoms = ase.Atoms(content[f"{name}/numbers"], content[f"{name}/positions"])
        result = Potential(model)(graph_from_atoms(atoms, model.atomic_numbers, model.r_max))
        energies.append(float(result["energy"]))
        forces.append(result["forces"].numpy())
    return np.array(energies), np.concatenate(forces)


def check_outputs(model, content, tolerance):
    energy, forces = outputs(model, content)
    assert np.abs(energy - content["energy"]).max() <= tolerance * np.abs(content["energy"]).max()
    assert np.abs(forces - content["forces"]).max() <= tolerance * np.abs(content["forces"]).max()


# --- import ---------------------------------------------------------------------------------------


def test_import_reproduces_energies_and_forces():
    state, content = released_state(SMALL)
    check_outputs(load_released(state), content, 1e-12)


@pytest.mark.parametrize("l_max", [1, 2])
def test_import_reproduces_larger_networks(l_max):
    path = LARGER / f"released_l{l_max}.npz"
    if not path.is_file():
        pytest.skip("the outputs of the released code are not here")
    state, content = released_state(path)
    model = load_released(state)
    check_outputs(model, content, 1e-12)
    # the constants matter: those of unit variance give something else
    config = dataclasses.replace(model.config, constants="unit_variance")
    scaled = build_model(config, seed=0)
    scaled.load_state_dict(model.state_dict())
    _, forces = outputs(scaled.requires_grad_(False).eval(), content)
    assert np.abs(forces - content["forces"]).max() > 0.05 * np.abs(content["forces"]).max()


def test_names_of_wrapped_modules():
    """``torch.compile`` and data parallelism change names."""
    state, content = released_state(SMALL)
    wrapped = {
        f"module.{k.replace('blocks.0.', 'blocks.0._orig_mod.')}": v.float()
        for k, v in state.items()
    }
    model = load_released(wrapped)
    assert model.embedding.dtype == torch.float32
    check_outputs(model, content, 1e-4)


def test_constants_that_a_state_does_not_tell():
    state, content = released_state(SMALL)
    model = load_released(state, avg_num_atoms=4 * 36.6)
    energy, _ = outputs(model, content)
    np.testing.assert_allclose(energy, content["energy"] / 2, rtol=1e-12)
    assert load_released(state, r_max=3.0).r_max == 3.0


def test_elements_of_the_embedding():
    """Row Z of the 80 rows is element Z, with the bias of the map."""
    state, _ = released_state(SMALL)
    model = load_released(state)
    assert len(model.config.species) == 79 and model.config.species[5] == "C"
    row = state["atom_embed.atom_type_lin.weight"][:, 6]
    assert torch.equal(model.embedding[5], row + state["atom_embed.atom_type_lin.bias"])


def test_number_of_parameters():
    """The released embedding has a row more and a bias, its force head a bias that is no force."""
    state, _ = released_state(SMALL)
    model = load_released(state)
    channels = model.config.num_channels
    released = sum(value.numel() for name, value in state.items() if "cp_tp" not in name)
    assert released == sum(p.numel() for p in model.parameters()) + 2 * channels + 1
    elements = ["H", "C", "N", "O", "F", "P", "S", "Cl"]
    full = build_model(model_config_from_dict({"preset": "paper", "species": elements}))
    count = sum(p.numel() for p in full.parameters())
    assert count == 4_457_987
    assert count + (80 - len(elements) + 1) * 256 + 1 == 4_476_676


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: s.pop("rbf.mean"), ["rbf.mean is missing"]),
        (lambda s: s.update(extra=torch.zeros(1)), ["has no extra"]),
        (lambda s: s.update({"rbf.std": torch.zeros(1, 7)}), ["shapes", "basis.width"]),
        (
            lambda s: s.update({"force_head.tp1.cp_tp.cp_b": torch.zeros(4, 7)}),
            ["force_head.tp1.cp_tp.cp_b differs"],
        ),
    ],
)
def test_other_states_are_refused(change, words):
    state, _ = released_state(SMALL)
    change(state)
    with pytest.raises(TDNError) as caught:
        load_released(state)
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


def test_command(tmp_path, capsys):
    state, content = released_state(SMALL)
    torch.save(state, tmp_path / "weights.pth")
    torch.save({"epoch": 3, "model_state_dict": state}, tmp_path / "checkpoint.pth")
    for name in ("weights", "checkpoint"):
        arguments = ["--import-released", str(tmp_path / f"{name}.pth")]
        arguments += ["-o", str(tmp_path / f"{name}.pt"), "model.r_max=4.5"]
        assert main(arguments) == 0
        assert "8 channels, 1 blocks, 79 elements" in capsys.readouterr().out
        model, _ = load_model(tmp_path / f"{name}.pt")
        check_outputs(model, content, 1e-12)
    few, _ = load_model(tmp_path / "weights.pt", species=["H", "C", "N", "O"])
    check_outputs(few, content, 1e-12)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--import-released", "FILE"], 2, ["-o FILE"]),
        (["--import-released", "FILE", "-o", "x.pt", "model.l_max=2"], 2, ["model.l_max=2"]),
        (["--import-released", "FILE", "-o", "x.pt", "model.r_max=far"], 2, ["expected a number"]),
        (["--import-released", "FILE", "--init", "a.xyz"], 2, ["exclude"]),
        (["--import-released", "nowhere.pth", "-o", "x.pt"], 1, ["nowhere.pth not found"]),
        (["--import-released", "TEXT", "-o", "x.pt"], 1, ["cannot be read"]),
        (["--import-released", "LIST", "-o", "x.pt"], 1, ["holds a list"]),
        (["--import-released", "FILE", "-o", "there.pt"], 1, ["exists already"]),
    ],
)
def test_bad_command_lines(arguments, code, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    torch.save(released_state(SMALL)[0], "FILE")
    torch.save([1], "LIST")
    (tmp_path / "TEXT").write_text("not a checkpoint")
    (tmp_path / "there.pt").touch()
    assert main(arguments) == code
    error = capsys.readouterr().err
    assert "Traceback" not in error
    for word in words:
        assert word in error


# --- constants, defaults and initial weights of the preset ----------------------------------------

TINY = {"num_channels": 64, "num_layers": 1, "num_gaussians": 16, "radial_hidden": [16, 16]}


def preset(**changes):
    values = {"preset": "paper", "species": ["H", "C"], **TINY, **changes}
    return build_model(model_config_from_dict(values), seed=3).requires_grad_(False)


def test_constants_of_the_preset():
    model = preset()
    config = model.config
    assert (config.constants, config.avg_num_neighbors, config.avg_num_atoms) == (
        "released", 18.6, 36.6,
    )  # fmt: skip
    gated = model.blocks[0].feed_forward.gated
    assert (gated.silu_scale, gated.gate_scale, model.energy_head.silu_scale) == (1.0, 1.0, 1.0)
    assert model.degree_embedding.norm == pytest.approx(1 / math.sqrt(18.6))
    bare = load_factors(1, "all", 7, free_coefficients=False, normalized=False)
    np.testing.assert_array_equal(model.factors.output, bare.output)
    # the defaults for molecular dynamics have unit variance
    default = preset(constants="unit_variance").blocks[0].feed_forward.gated
    assert (default.silu_scale, default.gate_scale) == (1.6765, 2.0)


def test_initial_weights_of_the_preset():
    """Uniform within 1 / sqrt(inputs): the largest of n draws is above (1 - 10 / n) of the bound
    but once in e^10, the standard deviation the bound over sqrt(3)."""
    model = preset()
    c = TINY["num_channels"]
    block = model.blocks[0]
    bounds = [
        (block.attention.merge_source.weight, 1 / math.sqrt(c)),
        (block.attention.merge_target.weight, 1 / math.sqrt(c)),
        (block.attention.value.value.weight, 1 / math.sqrt(c)),
        (block.attention.value.gate, 1 / math.sqrt(c)),
        (block.attention.logit_mixing, 1 / math.sqrt(c)),
        (block.attention.radial.weight, 1 / math.sqrt(16)),
        (block.attention.radial.hidden[0].weight, 1 / math.sqrt(16)),
        (block.feed_forward.out.weight, 1 / math.sqrt(c)),
        (model.energy_head.mixing, 1 / math.sqrt(c)),
        (block.attention.logit_weight, math.sqrt(6 / (4 + c / 4))),
    ]
    for parameter, bound in bounds:
        n = parameter.numel()
        largest = float(parameter.abs().max())
        assert (1 - 10 / n) * bound <= largest <= bound
        spread = float(parameter.square().mean().sqrt())
        # the fourth moment of a uniform variable is 9/5 of the square of the second: 6 sigma
        assert abs(spread * math.sqrt(3) / bound - 1) < 6 * math.sqrt(0.8 / n) / 2
    assert float(model.energy_head.weight.abs().max()) <= 1 / math.sqrt(c)
    for name, parameter in model.named_parameters():
        if name.endswith("bias") and "hidden" not in name:
            assert not parameter.any(), name
    # rows within one of each other, around a bias that they share
    assert 1.0 < float(model.embedding.abs().max()) + 1 / math.sqrt(80)
    assert float(model.embedding.abs().max()) < 1 + 1 / math.sqrt(80)


def test_defaults_of_data_and_training():
    config = config_from_dict({"model": {"preset": "paper"}})
    data, train = config.data, config.train
    assert (data.atomic_energies, data.energy_scale) == ("none", "none")
    assert (train.optimizer, train.weight_decay, train.learning_rate) == ("adamw", 0.0, 5e-4)
    assert (train.schedule, train.loss) == ("plateau", "molecule")
    assert (train.energy_weight, train.forces_weight) == (1.0, 1.0)
    written = {"data": {"atomic_energies": "auto"}, "train": {"loss": "mae", "learning_rate": 0.1}}
    config = config_from_dict({"model": {"preset": "paper"}, **written})
    assert (config.data.atomic_energies, config.data.energy_scale) == ("auto", "none")
    assert (config.train.loss, config.train.learning_rate) == ("mae", 0.1)
    assert config.train.schedule == "plateau"
    assert config_from_dict({}).train.schedule == "cosine"


def test_checkpoints_from_before_keep_their_constants():
    """A stored configuration is complete: what the preset says today does not change it."""
    stored = config_to_dict(preset().config)
    assert stored_model_config(stored).constants == "released"
    del stored["constants"]
    found = stored_model_config(stored)
    assert (found.preset, found.constants) == ("paper", "unit_variance")
