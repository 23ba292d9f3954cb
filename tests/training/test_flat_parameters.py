"""Weights in one array train as they do one by one."""

import copy

import pytest
import torch
from torch import nn

from tdn.training.optimizer.flat_parameters import FlatParameters
from tdn.training.optimizer.weight_average import WeightAverage


class Toy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.vector = nn.Parameter(torch.randn(5))
        self.matrix = nn.Parameter(torch.randn(3, 7))
        self.unused = nn.Parameter(torch.randn(2, 2))
        self.tensor = nn.Parameter(torch.randn(2, 3, 5))

    def forward(self) -> torch.Tensor:
        return (self.matrix.sum(0)[:5] * self.vector).sin().sum() + self.tensor.pow(3).sum()


def adamw(decayed, rest):
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=0.01)


def groups_of(model):
    return [p for p in model.parameters() if p.ndim > 1], [
        p for p in model.parameters() if p.ndim == 1
    ]


def one_by_one(model, steps, limit):
    optimizer = adamw(*groups_of(model))
    average = WeightAverage(model.parameters(), 0.9)
    for _ in range(steps):
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        model().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), limit)
        optimizer.step()
        average.update()
    return average


def together(model, steps, limit):
    flat = FlatParameters(groups_of(model))
    optimizer = adamw(flat.tensors[:1], flat.tensors[1:])
    average = WeightAverage(flat.tensors, 0.9)
    for _ in range(steps):
        flat.zero_grad()
        model().backward()
        flat.clip_grad_norm(limit)
        optimizer.step()
        average.update()
    return average


def assert_same(model, other):
    for (name, a), b in zip(model.named_parameters(), other.parameters(), strict=True):
        assert (a - b).abs().max() <= 1e-14 * b.abs().max(), name


@pytest.fixture
def models():
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    try:
        model = Toy()
    finally:
        torch.set_default_dtype(torch.float32)
    return model, copy.deepcopy(model)


@pytest.mark.parametrize("limit", [0.1, 1e9])
def test_same_weights_as_one_by_one(models, limit):
    model, other = models
    expected = one_by_one(other, 20, limit)
    average = together(model, 20, limit)
    assert_same(model, other)
    with average.applied(), expected.applied():
        assert_same(model, other)


def test_norm_is_that_of_all_gradients(models):
    model, _ = models
    flat = FlatParameters(groups_of(model))
    flat.zero_grad()
    model().backward()
    gradients = torch.cat([p.grad.flatten() for p in model.parameters()])
    expected = gradients.norm()
    norm = flat.clip_grad_norm(0.5 * float(expected))
    assert abs(norm - expected) <= 1e-14 * expected
    clipped = torch.cat([p.grad.flatten() for p in model.parameters()])
    assert (clipped - 0.5 * gradients).abs().max() <= 1e-5 * gradients.abs().max()  # 1e-6 / norm
