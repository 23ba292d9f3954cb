"""The gate as one operator: values and two derivatives against plain PyTorch."""

import pytest
import torch
from threads import same_bits_on_threads

from tdn import ops

pytestmark = pytest.mark.usefixtures("compiled")


def problem(degrees: int, channels: int, num_nodes: int, dtype: torch.dtype = torch.float64):
    generator = torch.Generator().manual_seed(degrees * 100 + channels)
    x = torch.randn(num_nodes, degrees**2, channels, generator=generator, dtype=torch.float64)
    weight = torch.randn(channels, (degrees - 1) * channels, generator=generator).double()
    return x.to(dtype).requires_grad_(), (weight / channels**0.5).to(dtype).requires_grad_()


def evaluate(x: torch.Tensor, weight: torch.Tensor) -> list[torch.Tensor]:
    """Value, gradient, and the derivatives of a function of both, as a force loss has it."""
    y = ops.gate(x, weight, 1.7)
    direction = torch.cos(torch.arange(y.numel(), dtype=y.dtype)).view_as(y)
    energy = (y * direction).sum() + y.square().sum()
    (gradient,) = torch.autograd.grad(energy, x, create_graph=True)
    loss = gradient.pow(3).sum() + energy
    inputs = [x, weight] if weight.numel() else [x]
    return [y, gradient, *torch.autograd.grad(loss, inputs)]


@pytest.mark.parametrize("degrees", [1, 2, 3, 6])
@pytest.mark.parametrize(("channels", "num_nodes"), [(1, 1), (7, 5), (64, 20), (17, 0)])
def test_is_the_reference(degrees, channels, num_nodes):
    found = evaluate(*problem(degrees, channels, num_nodes))
    with ops.use_reference():
        expected = evaluate(*problem(degrees, channels, num_nodes))
    for value, want in zip(found, expected, strict=True):
        # sums of up to a hundred terms of order one, cubed
        scale = want.abs().max().item() if want.numel() else 0.0
        torch.testing.assert_close(value, want, rtol=0, atol=1e-13 * max(scale, 1.0))


def test_float32():
    found = evaluate(*problem(3, 32, 10, torch.float32))
    expected = evaluate(*problem(3, 32, 10))
    for value, want in zip(found, expected, strict=True):
        torch.testing.assert_close(
            value.double(), want, rtol=0, atol=1e-5 * want.abs().max().item()
        )


def test_gradcheck():
    x, weight = problem(3, 3, 4)
    assert torch.autograd.gradcheck(lambda a, b: ops.gate(a, b, 1.7), (x, weight))
    # second derivatives with respect to x and weight of the gradient of x
    g = torch.randn_like(x).requires_grad_()

    def gradient(g, x, weight):
        return torch.ops.tdn.gate_adjoint(g, x, weight, 1.7, False)[0]

    assert torch.autograd.gradcheck(gradient, (g, x, weight))


def test_threads_give_the_same():
    x, weight = problem(3, 64, 500)
    same_bits_on_threads(lambda: evaluate(x, weight))


@pytest.mark.parametrize("shape", [(4, 8, 3), (4, 9), (4, 9, 4)])
def test_wrong_shapes(shape):
    with pytest.raises(ValueError, match="gate: expected x"):
        ops.gate(torch.zeros(shape), torch.zeros(3, 6), 1.0)
