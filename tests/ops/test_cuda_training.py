"""The operators of training on a GPU against the reference on the CPU, with second derivatives.

Needs a GPU and kernels built for it.
"""

from __future__ import annotations

import pytest
import torch
from convolution_problems import TOLERANCE
from cuda_problems import DEVICE, arguments_to_gpu, is_there, require_gpu, to_gpu
from edge_problems import (
    COMPONENT_SHAPES,
    RADIAL_SHAPES,
    SCALAR_SHAPES,
    derivatives,
    geometry,
    in_float64,
    make_component_problem,
    make_radial_problem,
    make_scalar_problem,
    make_vectors,
)
from training_problems import OPERATORS, check
from training_problems import derivatives as force_derivatives

from tdn import ops
from tdn.ops import reference

pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("gpu")]

DTYPES = [torch.float64, torch.float32]
# function, reference, problems of some shape, shapes
EDGE_OPERATORS = {
    "radial": (ops.radial, reference.radial, make_radial_problem, RADIAL_SHAPES),
    "scalar_message": (
        ops.scalar_message,
        reference.scalar_message,
        make_scalar_problem,
        SCALAR_SHAPES,
    ),
    "component_linear": (
        ops.component_linear,
        reference.component_linear,
        make_component_problem,
        COMPONENT_SHAPES,
    ),
}
EDGE_CASES = [(name, shape) for name, case in EDGE_OPERATORS.items() for shape in case[3]]


@pytest.fixture(scope="module", autouse=True)
def gpu(compiled) -> None:
    require_gpu()


def assert_all_close(found, expected, dtype) -> None:
    """There, and to the tolerance of the CPU times ten: other sums, other elementary functions."""
    for x, y in zip(found, expected, strict=True):
        assert is_there(x) and x.shape == y.shape
        assert torch.isfinite(x).all()
        if x.numel():
            scale = y.abs().max().clamp(min=1e-30)
            assert (x.cpu() - y).abs().max() <= 10 * TOLERANCE[dtype] * scale


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("name", "shape"), EDGE_CASES, ids=str)
def test_value_and_derivatives_agree_with_reference(name, shape, dtype):
    function, expected_function, make, _ = EDGE_OPERATORS[name]
    arguments = make(dtype=dtype, **shape)
    found = derivatives(function, arguments_to_gpu(arguments))
    assert all(x.dtype == dtype for x in found)
    assert_all_close(found, derivatives(expected_function, in_float64(arguments)), dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("l_max", [0, 1, 2, 3, 4, 7, 11])
def test_geometry_agrees_with_e3nn(l_max, dtype):
    vectors = (make_vectors(),)
    found = derivatives(geometry(l_max, dtype, ops), arguments_to_gpu(vectors))
    expected = derivatives(geometry(l_max, torch.float64, reference), vectors)
    assert_all_close(found, expected, dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", OPERATORS)
def test_force_losses_agree_with_reference(name, dtype):
    make, shapes, large = OPERATORS[name]
    for shape in [*shapes, large]:
        check(make(dtype=dtype, **shape), DEVICE)


def test_gradchecks():
    vectors = to_gpu(make_vectors(8))
    function = geometry(2, torch.float64, ops)
    assert torch.autograd.gradcheck(function, vectors)
    assert torch.autograd.gradgradcheck(function, vectors)
    r, pair, scale, weights, *rest = arguments_to_gpu(
        make_radial_problem([2, 3, 2], num_edges=4, num_pairs=2)
    )
    inputs = (r, scale, weights)

    def radial(r, scale, weights):
        return ops.radial(r, pair, scale, weights, *rest)

    # gradients of the rows of scale are sums of atomic operations
    assert torch.autograd.gradcheck(radial, inputs, nondet_tol=1e-12)
    assert torch.autograd.gradgradcheck(radial, inputs, nondet_tol=1e-12)
    *inputs, edges = arguments_to_gpu(
        make_scalar_problem(l_max=1, channels=2, num_edges=5, num_nodes=3, num_centres=3)
    )

    def message(*inputs):
        return ops.scalar_message(*inputs, edges)

    assert torch.autograd.gradcheck(message, inputs)
    assert torch.autograd.gradgradcheck(message, inputs)
    x, matrix = arguments_to_gpu(make_component_problem(3, 2, 2, num_nodes=2))
    matrix.requires_grad_()
    assert torch.autograd.gradcheck(ops.component_linear, (x, matrix))
    assert torch.autograd.gradgradcheck(ops.component_linear, (x, matrix))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_same_bits_every_time(dtype, monkeypatch):
    """With deterministic algorithms, which matrix products and sums over pairs ask for."""
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    shapes = {
        "radial": {"widths": [8, 32, 17, 48], "num_edges": 2003},
        "scalar_message": {"l_max": 3, "channels": 20, "num_edges": 9000},
        "component_linear": {"rows": 17, "components": 9, "channels": 33, "num_nodes": 500},
    }
    vectors = arguments_to_gpu((make_vectors(3001),))
    torch.use_deterministic_algorithms(True)
    try:
        for name, shape in shapes.items():
            function, _, make, _ = EDGE_OPERATORS[name]
            arguments = arguments_to_gpu(make(dtype=dtype, **shape))
            assert_repeats(lambda f=function, a=arguments: derivatives(f, a))
        assert_repeats(lambda: derivatives(geometry(3, dtype, ops), vectors))
        for make, _, large in OPERATORS.values():
            problem = make(dtype=dtype, **large).to(DEVICE)
            assert_repeats(lambda p=problem: force_derivatives(p))
    finally:
        torch.use_deterministic_algorithms(False)


def assert_repeats(run) -> None:
    first = run()
    for _ in range(3):
        assert all(torch.equal(x, y) for x, y in zip(first, run(), strict=True))
