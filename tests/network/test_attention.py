"""The attention network: structure, the naive form of its layers, ghosts, files, training."""

import dataclasses
from pathlib import Path

import ase
import ase.io
import numpy as np
import pytest
import torch
from structures import evaluate, random_model, small_cell, water_cluster

from tdn.config import config_to_dict, model_config_from_dict
from tdn.cp import load_factors
from tdn.graph import graph_from_atoms
from tdn.inference.calculator import TDNCalculator
from tdn.inference.torchscript import plain_execution
from tdn.network import attention_model as attention
from tdn.network.attention_layers import EquivariantLayerNorm, neighbor_softmax, smooth_leaky_relu
from tdn.network.attention_model import AttentionModel, GraphAttention, TransformerBlock
from tdn.network.attention_radial import RadialProfile
from tdn.network.base import model_dtype, set_dtype
from tdn.network.build import build_model
from tdn.network.checkpoint import load_model, save_model
from tdn.network.potential import Potential
from tdn.ops import sort_edges
from tdn.system.errors import TDNError
from tdn.training.loss import Loss
from tdn_export.script import script

# elements of PubChemQCR's molecules that matter here: only the embedding depends on their number
ELEMENTS = ["H", "C", "N", "O", "F", "P", "S", "Cl"]
PUBLISHED_PARAMETERS = 4.5e6


def published(**changes):
    values = {"preset": "paper", "species": ELEMENTS, "avg_num_neighbors": 18.6, **changes}
    return model_config_from_dict(values)


def count(module):
    return sum(p.numel() for p in module.parameters())


# --- structure ------------------------------------------------------------------------------------


def test_published_network():
    """arXiv 2507.01131, appendix C: six layers, 256 channels, l_max 1, rank 7, 4.5 M parameters."""
    model = build_model(published(), seed=0)
    assert isinstance(model, AttentionModel)
    assert abs(count(model) - PUBLISHED_PARAMETERS) < 0.03 * PUBLISHED_PARAMETERS
    assert len(model.blocks) == 6
    assert model.embedding.shape == (len(ELEMENTS), 256)
    assert model.r_max == 4.5
    assert model.basis.mean.shape == model.basis.width.shape == (256,)
    assert model.factors.output.shape == (4, 7)
    assert model.direct_forces
    c, hidden, gaussians = 256, 64, 256
    radial = (gaussians * hidden + hidden) + (hidden**2 + hidden) + 4 * hidden + hidden * c + c
    linear = c * c + c
    # merge (source, target without bias), radial weights, logits, gated value of 2 C, projection
    block_attention = linear + c * c + radial + (linear + c) + 2 * linear + linear
    for block in model.blocks:
        assert isinstance(block, TransformerBlock)
        assert count(block.attention) == block_attention
        assert sum(isinstance(m, RadialProfile) for m in block.modules()) == 1, "weights are shared"
        # two norms (l_max + 1 weights and a bias), feed-forward C -> 2 C -> C
        assert count(block) == block_attention + 2 * 3 * c + 2 * linear + linear
    assert count(model.force_head) == block_attention + c
    assert model.blocks[0].attention.num_heads == 4


def test_what_is_written_overrides_the_preset():
    config = published(l_max=2, envelope=5, forces="gradient")
    assert (config.l_max, config.envelope, config.forces) == (2, 5, "gradient")
    assert config.rank == 28, "the rank follows l_max: 7 L^2"
    assert config.num_channels == 256
    assert model_config_from_dict(config_to_dict(config)) == config
    assert published(rank=9).rank == 9


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"num_channels": 6}, ["num_channels = 6", "num_heads = 4"]),
        ({"forces": "direct", "l_max": 0}, ["direct", "l_max"]),
        ({"architecture": "convolution", "forces": "direct"}, ["forces", "attention"]),
        ({"architecture": "convolution", "envelope": None}, ["envelope", "attention"]),
        ({"architecture": "convolution", "preset": "paper"}, ["'attention'", "convolution"]),
    ],
)
def test_options_that_do_not_go_together(changes, words):
    values = {"architecture": "attention", "species": ["H"], "avg_num_neighbors": 1, **changes}
    with pytest.raises(TDNError) as caught:
        build_model(model_config_from_dict(values))
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


# --- layers against their naive form --------------------------------------------------------------


def test_attention_against_loops():
    """Edge by edge, with the dense coupling tensor and an explicit softmax."""
    config = random_model("attention_l2").config
    layer = random_model("attention_l2").blocks[0].attention.requires_grad_(False)
    coupling = torch.from_numpy(load_factors(2).tensor())
    num_atoms, c, heads = 5, config.num_channels, config.num_heads
    index = torch.tensor([[0, 0, 0, 1, 1, 3, 4, 4], [1, 2, 2, 0, 4, 0, 1, 3]])
    x = torch.randn(num_atoms, 9, c, dtype=torch.float64)
    y = torch.randn(index.shape[1], 9, dtype=torch.float64)
    basis = torch.rand(index.shape[1], config.num_gaussians, dtype=torch.float64)
    envelope = torch.rand(index.shape[1], dtype=torch.float64)
    for name, parameter in layer.named_parameters():
        if name.endswith("bias"):
            parameter.copy_(torch.randn_like(parameter))
    edges = sort_edges(index, num_atoms, num_atoms)
    matrix = torch.einsum("kij,ej->eki", coupling, y)
    found = layer(x, matrix, basis, envelope, edges, num_atoms)

    def bias(value, scalar_bias):
        value = value.clone()
        value[0] += scalar_bias
        return value

    w = layer.radial(basis)
    scores, values = [], []
    for e, (i, j) in enumerate(index.T.tolist()):
        merged = bias(x[j] @ layer.merge_source.weight, layer.merge_source.bias)
        merged = merged + x[i] @ layer.merge_target.weight
        z = torch.einsum("kij,ic,j->kc", coupling, merged, y[e]) * w[e]
        hidden = (z[0] @ layer.logit_mixing + layer.logit_bias).view(heads, -1)
        scores.append((smooth_leaky_relu(hidden) * layer.logit_weight).sum(1))
        v = bias(z @ layer.value.value.weight, layer.value.value.bias)
        gate = 2 * torch.sigmoid(z[0] @ layer.value.gate + layer.value.gate_bias)
        v = torch.cat([1.6765 * torch.nn.functional.silu(v[:1]), v[1:] * gate])
        values.append(torch.einsum("kij,ic,j->kc", coupling, v, y[e]) * w[e])
    expected = torch.zeros_like(x)
    for i in range(num_atoms):
        own = [e for e in range(index.shape[1]) if index[0, e] == i]
        total = 1 + sum(envelope[e] * scores[e].exp() for e in own)
        for e in own:
            weight = envelope[e] * scores[e].exp() / total
            expected[i] += values[e] * weight.repeat_interleave(c // heads)
    expected = expected @ layer.projection.weight
    expected[:, 0] += layer.projection.bias
    assert torch.allclose(found, expected, rtol=1e-12, atol=1e-12)


@pytest.fixture
def fan():
    """Three atoms with 3, 0 and 2 neighbors."""
    return sort_edges(torch.tensor([[0, 0, 0, 2, 2], [1, 2, 1, 0, 1]]), 3, 3)


def test_softmax(fan):
    logits = torch.randn(5, 2, dtype=torch.float64, requires_grad=True)
    ones = torch.ones(5, dtype=torch.float64)
    plain = neighbor_softmax(logits, ones, fan, 0.0)
    assert torch.allclose(plain[:3], logits[:3].softmax(0), rtol=1e-14)
    assert torch.allclose(plain[3:], logits[3:].softmax(0), rtol=1e-14)
    envelope = torch.rand(5, dtype=torch.float64, requires_grad=True)
    smooth = neighbor_softmax(logits, envelope, fan, 1.0)
    terms = envelope.unsqueeze(1) * logits.exp()
    assert torch.allclose(smooth[:3], terms[:3] / (1 + terms[:3].sum(0)), rtol=1e-14)
    assert torch.autograd.gradcheck(
        lambda s, u: neighbor_softmax(s, u, fan, 1.0), (logits, envelope)
    )
    assert torch.autograd.gradgradcheck(
        lambda s, u: neighbor_softmax(s, u, fan, 1.0), (logits, envelope)
    )


def test_softmax_of_huge_logits(fan):
    logits = torch.tensor([[9e4], [9e4], [-9e4], [-9e4], [-9e4]])
    weights = neighbor_softmax(logits, torch.ones(5), fan, 1.0)
    assert weights[:, 0].tolist() == pytest.approx([0.5, 0.5, 0, 0, 0])


def test_layer_norm():
    norm = EquivariantLayerNorm(16, 2, 1e-12)
    x = 7 * torch.randn(5, 9, 16) + 3
    y = norm(x)
    for l in range(3):
        square = y[:, l * l : (l + 1) ** 2].square().mean(dim=(1, 2))
        assert torch.allclose(square, torch.ones(5), rtol=1e-4)
    assert y[:, 0].mean(dim=1).abs().max() < 1e-5
    x[:, 1:] = 0
    assert norm(x)[:, 1:].abs().max() == 0


def test_dropout_in_training_only():
    model = random_model("attention", attention_dropout=0.5)
    energies = [float(evaluate(model.train(), water_cluster())["energy"]) for _ in range(2)]
    assert energies[0] != energies[1]
    energies = [float(evaluate(model.eval(), water_cluster())["energy"]) for _ in range(2)]
    assert energies[0] == energies[1]


# --- ghosts and compiled form ---------------------------------------------------------------------


def test_ghost_atoms_through_exchange(monkeypatch):
    """Periodic images as atoms of their own, whose features come from their owners."""
    model = random_model("attention")
    atoms = small_cell()
    graph = graph_from_atoms(atoms, model.atomic_numbers, model.r_max)
    expected = Potential(model)(graph)
    n = len(atoms)
    center, neighbor = graph.edge_index
    images, inverse = torch.unique(
        torch.cat([neighbor.unsqueeze(1).double(), graph.edge_shift], dim=1),
        dim=0,
        return_inverse=True,
    )
    owner = images[:, 0].long()
    owners = torch.cat([torch.arange(n), owner])
    calls = []

    def transport(x, num_all):
        calls.append(x.shape)
        assert (x.shape[0], num_all) == (n, len(owners))
        return x[owners]

    monkeypatch.setattr(attention, "exchange", transport)
    edges = sort_edges(torch.stack([center, n + inverse]), n, len(owners))
    vectors = graph.edge_vec.detach()
    energy = model(graph.species[owners], edges, vectors, n)
    assert torch.allclose(energy, expected["atom_energy"], rtol=1e-13)
    assert len(calls) == model.config.num_layers, "one exchange before each block"


def test_radial_functions_without_hidden_layers():
    """They are linear in the basis."""
    profile = RadialProfile(6, (), 3)
    basis = torch.rand(5, 6)
    torch.testing.assert_close(profile(basis), basis @ profile.weight + profile.offset)


@pytest.mark.parametrize("forces", ["gradient", "direct"])
def test_scripted_network(forces):
    model = random_model("attention", forces=forces)
    compiled = script(model)
    for atoms in (water_cluster(), small_cell(), ase.Atoms("H"), ase.Atoms()):
        graph = graph_from_atoms(atoms, model.atomic_numbers, model.r_max)
        edges = sort_edges(graph.edge_index, len(atoms), len(atoms))
        arguments = (graph.species, edges, graph.edge_vec, len(atoms))
        with plain_execution():
            energy = compiled(*arguments)
            found = compiled.energies_and_forces(*arguments) if forces == "direct" else ()
        assert torch.allclose(energy, model(*arguments), rtol=1e-13)
        if forces == "direct":
            for a, b in zip(found, model.energies_and_forces(*arguments), strict=True):
                assert torch.allclose(a, b, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("forces", ["gradient", "direct"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_checkpoint(tmp_path, forces, dtype):
    model = set_dtype(random_model("attention", forces=forces), dtype).eval()
    save_model(tmp_path / "model.pt", model, {})
    loaded, _ = load_model(tmp_path / "model.pt")
    assert (loaded.config, model_dtype(loaded)) == (model.config, dtype)
    assert loaded.atomic_energies.dtype == torch.float64
    before, after = evaluate(model, water_cluster()), evaluate(loaded, water_cluster())
    assert torch.equal(before["energy"], after["energy"])
    assert torch.equal(before["forces"], after["forces"])


def test_checkpoint_with_factors_in_every_layer():
    """Names and values as they were stored before the network held its factors once."""
    model = random_model("attention", forces="direct")
    state = model.state_dict()
    factors = {name: value for name, value in state.items() if name.startswith("factors.")}
    layers = [f"blocks.{i}.attention" for i in range(len(model.blocks))]
    layers += ["degree_embedding", "force_head.attention"]
    for layer in layers:
        state |= {f"{layer}.{name}": value for name, value in factors.items()}
    other = random_model("attention", forces="direct", seed=2)
    other.load_state_dict(state)
    before, after = evaluate(model, water_cluster()), evaluate(other, water_cluster())
    assert torch.equal(before["energy"], after["energy"])
    assert torch.equal(before["forces"], after["forces"])


def test_single_precision_is_close():
    model = random_model("attention")
    expected = evaluate(model, water_cluster())
    found = evaluate(set_dtype(model, torch.float32), water_cluster())
    scale = float(expected["forces"].abs().max())
    # some hundred operations of relative rounding 6e-8
    assert (found["forces"] - expected["forces"]).abs().max() < 1e-4 * scale


# --- direct forces --------------------------------------------------------------------------------


def test_direct_forces(tmp_path):
    model = random_model("attention", forces="direct").eval()
    atoms = water_cluster()
    result = evaluate(model, atoms)
    assert result["forces"].shape == (len(atoms), 3)
    assert result["forces"].dtype == torch.float64
    assert result["virial"].isnan().all() and result["stress"].isnan().all()
    alone = evaluate(model, ase.Atoms("HO", positions=[[0, 0, 0], [9, 0, 0]]))
    assert torch.equal(alone["forces"], torch.zeros(2, 3, dtype=torch.float64))
    save_model(tmp_path / "model.pt", model, {})
    atoms.calc = TDNCalculator(tmp_path / "model.pt", device="cpu")
    np.testing.assert_allclose(atoms.get_forces(), result["forces"], rtol=1e-12)
    with pytest.raises(RuntimeError, match="no direct forces"):
        random_model("attention").energies_and_forces(None, None, torch.zeros(0, 3), 0)


def test_direct_forces_train_without_second_derivatives():
    model = random_model("attention", forces="direct").requires_grad_(True)
    graph = graph_from_atoms(small_cell(), model.atomic_numbers, model.r_max)
    graph.energy = torch.zeros(1, dtype=torch.float64)
    graph.forces = torch.zeros(graph.num_atoms, 3, dtype=torch.float64)
    graph.stress = torch.zeros(1, 3, 3, dtype=torch.float64)
    loss = Loss(stress_weight=0.0)
    terms = loss.terms(Potential(model)(graph, training=True), graph)
    loss.weighted(terms).backward()
    for name, parameter in model.named_parameters():
        assert torch.isfinite(parameter.grad).all(), name
    assert model.force_head.weight.grad.abs().max() > 0
    assert model.blocks[0].attention.radial.weight.grad.abs().max() > 0


# --- learning -------------------------------------------------------------------------------------

ACAC = Path(__file__).parents[3] / "shared" / "data" / "acac" / "train_300K.xyz"


@pytest.mark.slow
@pytest.mark.skipif(not ACAC.is_file(), reason="the AcAc frames are not here")
@pytest.mark.parametrize("preset, epochs", [("none", 5), ("paper", 16)])
def test_learns_forces_of_a_molecule(preset, epochs, tmp_path):
    """Small networks, 100 frames, some epochs: the force error falls below half."""
    from tdn.config import config_from_dict
    from tdn.data import load_dataset
    from tdn.evaluation.errors import errors
    from tdn.training.trainer import Trainer

    frames = ase.io.read(ACAC, ":100")
    ase.io.write(tmp_path / "frames.xyz", frames)
    config = config_from_dict(
        {
            "model": {
                "preset": preset,
                "architecture": "attention",
                "num_channels": 32,
                "num_layers": 2,
                "num_gaussians": 32,
                "r_max": 4.0,
                "l_max": 1,
                "attention_dropout": 0.0,
            },
            "data": {
                "train": str(tmp_path / "frames.xyz"),
                "valid_fraction": 0.2,
                # the preset takes labels as they are, as the released code does
                "atomic_energies": "auto",
                "energy_scale": "global",
            },
            "train": {
                "run_dir": str(tmp_path),
                "max_epochs": epochs,
                "learning_rate": 0.002,
                "batch_size": 2,
                "ema_decay": 0.9,
                "energy_weight": 0.1,
                "forces_weight": 10.0,
                "device": "cpu",
                "num_threads": 1,
            },
        }
    )
    trainer = Trainer(config, load_dataset(config))
    before = errors(trainer.evaluate("valid"))["forces"].rmse
    assert trainer.fit()
    with trainer.average.applied():
        after = errors(trainer.evaluate("valid"))["forces"].rmse
    print(f"preset {preset}: force RMSE {before:.0f} -> {after:.0f} meV/A")
    assert after < 0.5 * before


def test_presets_and_shared_modules_survive_replace():
    """`dataclasses.replace` keeps what the preset gave."""
    config = dataclasses.replace(published(), num_layers=1)
    assert (config.num_layers, config.rank, config.envelope) == (1, 7, None)
    assert isinstance(build_model(config).force_head.attention, GraphAttention)
