"""The compiled node product and channel mixing against their definition."""

import numpy as np
import pytest
import torch
from convolution_problems import TOLERANCE, assert_all_close, assert_close
from node_product_problems import (
    SHAPES,
    in_float64,
    make_node_problem,
    node_derivatives,
    node_product,
)
from threads import same_bits_on_threads

from tdn import ops
from tdn.ops import reference

pytestmark = pytest.mark.usefixtures("compiled")


def naive(arguments):
    """The definition, node by node in NumPy."""
    m, species, linear, left, right, weight, input1, input2, output = (
        x.detach().numpy() for x in arguments
    )
    degree = np.sqrt(np.arange(m.shape[1])).astype(int)
    outputs = degree[: linear.shape[1] ** 2]
    y = np.zeros((len(m), len(outputs), m.shape[2]))
    for n, z in enumerate(species):
        y[n] = m[n, : len(outputs)] * linear[z][outputs]
        power = m[n]
        for o in range(len(left)):
            p, q = input1.T @ (power * left[o, z][degree]), input2.T @ (m[n] * right[o, z][degree])
            power = output @ (p * q)
            y[n] += power[: len(outputs)] * weight[o, z][outputs]
    return torch.from_numpy(y)


@pytest.mark.parametrize("kind", ["compiled", "reference", "tensor"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_agrees_with_loops(shape, kind):
    arguments, _ = make_node_problem(**shape)
    assert_close(node_product(arguments, kind).detach(), naive(arguments))


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_value_and_derivative_agree_with_reference(shape, dtype):
    arguments, g = make_node_problem(dtype=dtype, **shape)
    found = node_derivatives(arguments, g)
    assert all(x.dtype == dtype for x in found)
    expected = node_derivatives(in_float64(arguments), g.double(), "reference")
    assert_all_close(found, expected, dtype)
    if dtype == torch.float64:
        assert_all_close(node_derivatives(arguments, g, "tensor"), expected)


def test_gradcheck():
    arguments, _ = make_node_problem(rank=3, channels=3, num_nodes=3)
    assert torch.autograd.gradcheck(lambda m: ops.node_product(m, *arguments[1:]), arguments[0])


def test_strided_inputs_and_expanded_cotangents():
    arguments, g = make_node_problem(channels=17)
    expected = node_derivatives(arguments, g)
    strided = [x.detach().transpose(0, -1).contiguous().transpose(0, -1) for x in arguments]
    assert not strided[0].is_contiguous()
    strided[0].requires_grad_()
    assert_all_close(node_derivatives(strided, g), expected)
    one = torch.ones((), dtype=torch.float64).expand_as(g)
    wanted = node_derivatives(arguments, torch.ones_like(g), "reference")
    assert_all_close(node_derivatives(arguments, one), wanted)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_same_bits_for_any_number_of_threads(dtype):
    arguments, g = make_node_problem(rank=17, channels=20, num_nodes=501, dtype=dtype)
    same_bits_on_threads(lambda: node_derivatives(arguments, g))


MISTAKES = [
    (0, lambda x: x[0], "expected m"),
    (0, lambda x: x[:, :-1], "do not fit together"),
    (0, lambda x: x[:-1], "do not fit together"),
    (0, lambda x: x[..., :-1], "do not fit together"),
    (1, lambda x: x.int(), "do not fit together"),
    (1, lambda x: x + 2, "species must lie in 0..1"),
    (1, lambda x: x - 2, "species must lie in 0..1"),
    (2, lambda x: x[..., :-1], "do not fit together"),
    (2, lambda x: x.float(), "one type"),
    (3, lambda x: x[:1], "do not fit together"),
    (4, lambda x: x[:, :1], "do not fit together"),
    (5, lambda x: x[:, :, :1], "do not fit together"),
    (6, lambda x: x[:-1], "do not fit together"),
    (7, lambda x: x[:, :-1], "do not fit together"),
    (8, lambda x: x[:4], "do not fit together"),
]


@pytest.mark.parametrize(("index", "change", "message"), MISTAKES)
def test_wrong_inputs_are_named(index, change, message):
    arguments, _ = make_node_problem()
    arguments[index] = change(arguments[index])
    with pytest.raises(ValueError, match=f"node_product: .*{message}"):
        node_product(arguments)


@pytest.mark.parametrize("index", [6, 7, 8])
def test_gradients_of_the_factors_are_refused(index):
    arguments, _ = make_node_problem()
    arguments[index].requires_grad_()
    with pytest.raises(RuntimeError, match="node_product: factors have no derivatives"):
        node_product(arguments)


@pytest.mark.parametrize("shape", SHAPES[:10], ids=str)
def test_derivatives_of_weights_and_second_derivatives(shape):
    """What training on forces needs, against the reference."""
    arguments, g = make_node_problem(**shape)
    variables = [arguments[k].requires_grad_() for k in (0, 2, 3, 4, 5)]
    g.requires_grad_()
    results = []
    for kind in ("compiled", "reference"):
        value = node_product(arguments, kind)
        first = torch.autograd.grad(value, variables, g, create_graph=True, materialize_grads=True)
        generator = torch.Generator().manual_seed(7)
        total = (torch.randn(first[0].shape, generator=generator).double() * first[0]).sum()
        second = torch.autograd.grad(total, [*variables, g], materialize_grads=True)
        results.append([value, *first, *second])
    assert_all_close(*results)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize(
    ("nodes", "degrees", "channels", "channels_out"),
    [(7, 3, 8, 8), (1, 1, 1, 1), (5, 1, 3, 17), (0, 2, 3, 4), (40, 4, 33, 3), (2, 7, 17, 33)],
)
def test_degree_linear(nodes, degrees, channels, channels_out, dtype):
    x = torch.randn(nodes, degrees**2, channels).to(dtype).requires_grad_()
    weight = torch.randn(degrees, channels, channels_out).to(dtype)
    g = torch.randn(nodes, degrees**2, channels_out).to(dtype)
    y = ops.degree_linear(x, weight)
    found = [y, *torch.autograd.grad(y, x, g)]
    exact = x.detach().double().requires_grad_()
    expected = reference.degree_linear(exact, weight.double())
    expected = [expected, *torch.autograd.grad(expected, exact, g.double())]
    assert all(value.dtype == dtype for value in found)
    assert_all_close(found, expected, dtype)
    rows = [x.detach()[:, k] @ weight[int(k**0.5)] for k in range(degrees**2)]
    assert_close(y.detach(), torch.stack(rows, 1).double(), dtype)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize(("nodes", "degrees", "channels"), [(7, 3, 8), (1, 1, 1), (0, 2, 3)])
def test_degree_linear_on_other_devices(nodes, degrees, channels, dtype):
    """Batched matrix products, run here, of the weights and of transposed ones."""
    key = torch._C.DispatchKey.CompositeExplicitAutograd
    x, g = (torch.randn(nodes, degrees**2, channels + n).to(dtype) for n in range(2))
    weight = torch.randn(degrees, channels, channels + 1).to(dtype)
    transposed = torch.randn(degrees, channels + 1, channels).to(dtype).transpose(1, 2)
    for w in (weight, transposed):
        found = torch.ops.tdn.degree_linear.default._op_dk(key, x, w)
        assert found.is_contiguous()
        assert_close(found, reference.degree_linear(x.double(), w.double()), dtype)
    found = torch.ops.tdn.degree_linear_weight.default._op_dk(key, x, g)
    rows = torch.einsum("nkc,nkd->kcd", x.double(), g.double())
    expected = [rows[l * l : (l + 1) ** 2].sum(0) for l in range(degrees)]
    assert_close(found, torch.stack(expected), dtype)


def test_degree_linear_has_second_derivatives():
    x = torch.randn(3, 9, 2, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(3, 2, 4, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: ops.degree_linear(x, weight), x)
    assert torch.autograd.gradgradcheck(lambda x: ops.degree_linear(x, weight).sin(), x)


@pytest.mark.parametrize(
    ("shape", "weight_shape"),
    [((3, 8, 2), (3, 2, 4)), ((3, 9, 2), (3, 3, 4)), ((9, 2), (3, 2, 4)), ((3, 9, 2), (9, 2))],
)
def test_degree_linear_names_wrong_shapes(shape, weight_shape):
    with pytest.raises(ValueError, match="degree_linear: expected x"):
        ops.degree_linear(torch.zeros(shape), torch.zeros(weight_shape))
