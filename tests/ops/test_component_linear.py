"""A constant matrix on components: values and derivatives against plain PyTorch."""

import pytest
import torch
from convolution_problems import assert_all_close, assert_close
from edge_problems import (
    COMPONENT_SHAPES,
    check_component_linear,
    derivatives,
    make_component_problem,
)
from threads import same_bits_on_threads

from tdn import ops
from tdn.ops import reference

pytestmark = pytest.mark.usefixtures("compiled")


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("shape", COMPONENT_SHAPES, ids=str)
def test_value_and_derivatives_agree_with_reference(shape, dtype):
    check_component_linear(shape, dtype)


def test_agrees_with_loops():
    x, matrix = make_component_problem(5, 4, 3)
    y = ops.component_linear(x, matrix)
    for n in range(x.shape[0]):
        assert_close(y[n].detach(), matrix @ x[n].detach())


@pytest.mark.parametrize("matrix_too", [False, True])
def test_gradcheck(matrix_too):
    x, matrix = make_component_problem(3, 2, 2, num_nodes=2)
    matrix.requires_grad_(matrix_too)
    assert torch.autograd.gradcheck(ops.component_linear, (x, matrix))
    assert torch.autograd.gradgradcheck(ops.component_linear, (x, matrix))


def test_third_derivatives():
    problem = make_component_problem()
    found = derivatives(ops.component_linear, problem, 3)
    assert_all_close(found, derivatives(reference.component_linear, problem, 3))


def test_no_rows_and_no_components():
    x = torch.ones(3, 4, 5)
    assert ops.component_linear(x, torch.ones(0, 4)).shape == (3, 0, 5)
    assert torch.equal(ops.component_linear(x[:, :0], torch.ones(2, 0)), torch.zeros(3, 2, 5))
    assert ops.component_linear(x[..., :0], torch.ones(2, 4)).shape == (3, 2, 0)


def test_non_contiguous_inputs():
    x, matrix = make_component_problem(6, 4, 9)
    strided = x.detach().transpose(0, 2).contiguous().transpose(0, 2).requires_grad_()
    expected = derivatives(ops.component_linear, (x, matrix))
    found = derivatives(ops.component_linear, (strided, matrix.t().contiguous().t()))
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_same_bits_for_any_number_of_threads(dtype):
    problem = make_component_problem(17, 9, 33, num_nodes=500, dtype=dtype)
    same_bits_on_threads(lambda: derivatives(ops.component_linear, problem))


def test_inference_mode_and_other_types():
    x, matrix = make_component_problem()
    expected = torch.matmul(matrix, x).detach()
    with torch.inference_mode():
        assert_close(ops.component_linear(x.detach().clone(), matrix), expected)
    half = ops.component_linear(x.detach().bfloat16(), matrix.bfloat16())
    torch.testing.assert_close(half.double(), expected, rtol=0.05, atol=0.1)


@pytest.mark.parametrize(
    ("x", "matrix"),
    [
        (torch.zeros(4, 5), torch.zeros(3, 4)),
        (torch.zeros(2, 4, 5), torch.zeros(3, 5)),
        (torch.zeros(2, 4, 5), torch.zeros(4)),
        (torch.zeros(2, 4, 5), torch.zeros(3, 4).double()),
    ],
)
def test_wrong_inputs_are_named(x, matrix):
    with pytest.raises(ValueError, match="component_linear: expected x"):
        ops.component_linear(x, matrix)
