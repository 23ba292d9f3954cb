"""SOAP: the same updates as one matrix at a time, what it gains, the weights meant for it."""

import dataclasses
import re

import pytest
import torch
from structures import random_model
from torch import nn
from training.helpers import assert_same, trainer_of, write_config

from tdn.system.errors import TDNError
from tdn.training.optimizer.build import OptimizerPair, column_splits, mixing_matrices
from tdn.training.optimizer.flat_parameters import FlatParameters
from tdn.training.optimizer.soap import DECAY, EPSILON, RENEWAL, RIDGE, Soap
from tdn.training.trainer import Trainer

SHAPES = [(3, 6, 6), (6, 5), (2, 6, 6), (4, 7), (4, 0)]


def with_ridge(gram: torch.Tensor) -> torch.Tensor:
    n = len(gram)
    weights = torch.tensor([1 - 0.5 * i / (n - 1) for i in range(n)], dtype=gram.dtype)
    return gram + RIDGE * torch.diag(weights) * gram.trace() / n


class OneMatrix:
    """Algorithm 3 of arXiv 2409.11321 for a single matrix, step by step."""

    def __init__(self, weight: torch.Tensor, lr: float, decay: float) -> None:
        self.weight, self.lr, self.decay = weight.clone(), lr, decay
        self.steps = 0

    def step(self, g: torch.Tensor) -> None:
        self.steps += 1
        self.weight = (1 - self.lr * self.decay) * self.weight
        if self.steps == 1:
            self.grams = [(1 - DECAY) * g @ g.T, (1 - DECAY) * g.T @ g]
            self.bases = [torch.linalg.eigh(with_ridge(a))[1].flip(-1) for a in self.grams]
            self.mean, self.square = torch.zeros_like(g), torch.zeros_like(g)
            return
        ql, qr = self.bases
        self.mean = DECAY * self.mean + (1 - DECAY) * g
        self.square = DECAY * self.square + (1 - DECAY) * (ql.T @ g @ qr) ** 2
        correction = 1 - DECAY ** (self.steps - 1)
        mean, square = ql.T @ self.mean @ qr / correction, self.square / correction
        step = mean / (square.sqrt() + EPSILON * square.mean().sqrt())
        self.weight = self.weight - self.lr * ql @ step @ qr.T
        self.grams[0] = DECAY * self.grams[0] + (1 - DECAY) * g @ g.T
        self.grams[1] = DECAY * self.grams[1] + (1 - DECAY) * g.T @ g
        if (self.steps - 1) % RENEWAL == 1:
            for side, (q, a) in enumerate(zip(self.bases, self.grams, strict=True)):
                order = torch.diagonal(q.T @ with_ridge(a) @ q).argsort(descending=True)
                self.bases[side] = torch.linalg.qr(with_ridge(a) @ q[:, order])[0]
                self.square = self.square[order] if side == 0 else self.square[:, order]


def flat_weights() -> tuple[list[nn.Parameter], FlatParameters]:
    torch.manual_seed(1)
    weights = [nn.Parameter(torch.randn(shape, dtype=torch.float64)) for shape in SHAPES]
    return weights, FlatParameters([weights])


def test_as_one_matrix_at_a_time():
    weights, flat = flat_weights()
    optimizer = Soap(flat.tensors[0], flat.blocks(0), lr=0.02, weight_decay=0.1)
    expected = [
        [OneMatrix(m, 0.02, 0.1) for m in w.detach().reshape(-1, *w.shape[-2:])]
        for w in weights
        if w.numel()
    ]
    for _ in range(2 * RENEWAL + 3):  # two renewals of the bases after the first
        for weight, ones in zip(weights, expected, strict=False):
            weight.grad.copy_(torch.randn(weight.shape, dtype=torch.float64))
            for one, gradient in zip(ones, weight.grad.reshape(-1, *weight.shape[-2:])):
                one.step(gradient)
        optimizer.step()
    for weight, ones in zip(weights, expected, strict=False):
        value = torch.stack([one.weight for one in ones]).reshape(weight.shape)
        # rounding over the gap that the ridge makes in directions without gradients,
        # 7 * 1e-16 / (RIDGE / 2 / 7), or some 1e-9
        assert (weight.detach() - value).abs().max() < 1e-9


def test_maps_side_by_side_are_matrices_of_their_own():
    """The columns of two maps in one weight move as those of two weights do."""
    torch.manual_seed(2)
    whole = nn.Parameter(torch.randn(5, 8, dtype=torch.float64))
    parts = [nn.Parameter(part.clone()) for part in whole.detach().split(4, dim=1)]
    together, apart = FlatParameters([[whole]]), FlatParameters([parts])
    optimizers = [
        Soap(together.tensors[0], together.blocks(0), lr=0.02, splits=[2]),
        Soap(apart.tensors[0], apart.blocks(0), lr=0.02),
    ]
    for _ in range(RENEWAL + 3):
        whole.grad.copy_(torch.randn(whole.shape, dtype=torch.float64))
        for part, gradient in zip(parts, whole.grad.split(4, dim=1), strict=True):
            part.grad.copy_(gradient)
        for optimizer in optimizers:
            optimizer.step()
    assert torch.equal(whole.detach(), torch.cat([p.detach() for p in parts], dim=1))


def test_bases_stay_orthogonal_and_diagonal():
    """Where G G^T has fixed eigenvectors the power iteration finds them, largest first."""
    torch.manual_seed(3)
    scale = torch.diag(torch.tensor([1.0, 0.3, 0.1, 0.03], dtype=torch.float64))
    axes = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64))[0]
    weight = nn.Parameter(torch.zeros(4, 4, dtype=torch.float64))
    flat = FlatParameters([[weight]])
    optimizer = Soap(flat.tensors[0], flat.blocks(0), lr=0.0)
    for _ in range(40 * RENEWAL):
        weight.grad.copy_(axes @ scale @ torch.randn(4, 4, dtype=torch.float64))
        optimizer.step()
    state = optimizer.state[flat.tensors[0]]["4x4"]
    basis = state["left_basis"][0]
    assert (basis.T @ basis - torch.eye(4, dtype=torch.float64)).abs().max() < 1e-13
    # an average over about twenty samples leaves angles of some tenths of the ratio of scales
    overlap = (basis.T @ axes).abs()
    assert torch.diagonal(overlap).min() > 0.9


def loss_after(optimizer_of, steps: int = 300) -> float:
    """|| A W B - C ||^2 with ill-conditioned A and B: what mixing matrices meet in a network."""
    torch.manual_seed(4)
    decay = torch.logspace(0, -2, 12, dtype=torch.float64)
    bases = torch.linalg.qr(torch.randn(4, 12, 12, dtype=torch.float64))[0]
    a, b = bases[0] * decay @ bases[1], bases[2] * decay @ bases[3]
    c = a @ torch.randn(12, 12, dtype=torch.float64) @ b
    weight = nn.Parameter(torch.zeros(12, 12, dtype=torch.float64))
    flat = FlatParameters([[weight]])
    optimizer = optimizer_of(flat)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 0.1 * (1 - step / steps)
        flat.zero_grad()
        (a @ weight @ b - c).square().sum().backward()
        optimizer.step()
    rest = a @ weight.detach() @ b - c
    return float(rest.square().sum() / c.square().sum())


def test_ill_conditioned_problems_are_solved_faster():
    soap = loss_after(lambda flat: Soap(flat.tensors[0], flat.blocks(0), lr=0.1))
    adam = loss_after(lambda flat: torch.optim.Adam(flat.tensors, lr=0.1, betas=(0.95, 0.95)))
    assert soap < 0.1 * adam


def test_nothing_moves_without_a_gradient():
    _, flat = flat_weights()
    before = flat.tensors[0].detach().clone()
    optimizer = Soap(flat.tensors[0], flat.blocks(0), lr=0.1)
    for _ in range(3):
        optimizer.step()
    assert torch.equal(flat.tensors[0], before)


# weights per species, degree and channel, without the numbers of their layers
NO_MAPS = {
    "default": {
        "embedding",
        "radial.pair_scale",
        "product.linear.weight",
        "product.left.weight",
        "product.right.weight",
        "product.weight.weight",
        "residual.scale.weight",
    },
    "attention": {
        "embedding",
        "norm.weight",
        "norm1.weight",
        "norm2.weight",
        "attention.logit_weight",
    },
}


@pytest.mark.parametrize("architecture", list(NO_MAPS))
def test_every_linear_map_of_a_network_is_found(architecture):
    """Mixing matrices map channels or radial functions; scales and embeddings are no maps."""
    model = random_model(architecture).requires_grad_(True)
    found = {id(p) for p in mixing_matrices(model)}
    names = {n for n, p in model.named_parameters() if id(p) in found}
    rest = {n for n, p in model.named_parameters() if id(p) not in found and p.ndim >= 2}
    assert names and len(names) == len(found)
    for name in names:
        assert not any(word in name for word in ("scale", "product")), name
    kinds = {re.sub(r"\b(layers\.|blocks\.)?\d+\.", "", name) for name in rest}
    assert kinds == NO_MAPS[architecture]


def test_degrees_of_radial_functions_and_gates_are_maps_of_their_own():
    model = random_model("default")
    splits = column_splits(model)
    names = {n: splits[id(p)] for n, p in model.named_parameters() if id(p) in splits}
    degrees = model.l_max + 1
    for i, layer in enumerate(model.layers):
        last = len(layer.radial.weights) - 1
        assert names.pop(f"layers.{i}.radial.weights.{last}") == degrees
    # the last layer gives scalars only and has no gates
    assert names == {f"layers.{i}.gate.gates": degrees - 1 for i in range(len(model.layers) - 1)}


def test_state_of_another_version_is_refused():
    _, flat = flat_weights()
    optimizer = Soap(flat.tensors[0], flat.blocks(0), lr=0.1)
    optimizer.step()
    state = optimizer.state_dict()
    (stored,) = state["state"].values()
    stored["6x6"]["exp_avg"] = stored["6x6"].pop("mean")
    with pytest.raises(TDNError, match="--restart"):
        optimizer.load_state_dict(state)


def longer(config, epochs):
    return dataclasses.replace(config, train=dataclasses.replace(config.train, max_epochs=epochs))


def trained(folder, **train):
    trainer = trainer_of(write_config(folder, train={"optimizer": "soap", **train}))
    assert trainer.fit()
    return trainer


def test_all_weights_train_and_the_loss_falls(folder):
    trainer = trained(folder, max_epochs=1)
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    first = trainer.progress.best
    trainer.config = longer(trainer.config, 20)
    assert trainer.fit()
    assert isinstance(trainer.optimizer, OptimizerPair)
    for name, parameter in trainer.model.named_parameters():
        if parameter.numel():  # a layer of scalars has no gates
            assert not torch.equal(parameter, before[name]), name
    assert trainer.progress.best < 0.5 * first


def test_state_comes_back(folder, forbid_factors):
    """Weights after a stop and a resumption are those of a run without a stop."""
    whole = trained(folder, max_epochs=4, schedule="constant")
    part = trained(folder, max_epochs=2, schedule="constant")
    forbid_factors()  # a run that goes on needs none
    again = Trainer(longer(part.config, 4), part.dataset, resume=True)
    assert again.progress.epoch == 2 and again.fit()
    assert_same(dict(whole.model.named_parameters()), dict(again.model.named_parameters()))
