"""The radial network as one operator: values and derivatives against plain PyTorch."""

import math

import pytest
import torch
from convolution_problems import assert_all_close, assert_close
from edge_problems import (
    R_MAX,
    RADIAL_SHAPES,
    check_radial,
    derivatives,
    in_float64,
    make_radial_problem,
)
from threads import same_bits_on_threads

from tdn import ops
from tdn.network.radial import RadialNetwork
from tdn.ops import reference

pytestmark = pytest.mark.usefixtures("compiled")


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("shape", RADIAL_SHAPES, ids=str)
def test_value_and_derivatives_agree_with_reference(shape, dtype):
    check_radial(shape, dtype)


def force_loss(function, arguments, create_graph=False):
    """Gradients by all inputs of a function of the derivative by r, as a force loss has them."""
    r, scale, weights = arguments[0], arguments[2], arguments[3]
    (slope,) = torch.autograd.grad(function(*arguments).sin().sum(), r, create_graph=True)
    loss = slope.square().sum()
    return torch.autograd.grad(loss, [scale, weights], create_graph=create_graph)


@pytest.mark.parametrize("shape", RADIAL_SHAPES[2:], ids=str)
def test_weights_of_a_force_loss(shape):
    """The path of training: the kernel of value and slope, not the composed derivatives."""
    arguments = make_radial_problem(**shape)
    found = force_loss(ops.radial, arguments)
    assert_all_close(found, force_loss(reference.radial, arguments))
    again = force_loss(ops.radial, arguments, create_graph=True)
    assert_all_close([x.detach() for x in again], [x.detach() for x in found])


def test_slope_is_the_derivative():
    """Of the second output, by central differences: error of order step^2, here below 1e-8."""
    arguments = in_float64(make_radial_problem())
    r, rest = arguments[0].detach()[:-3], [x for x in arguments[1:]]
    rest[0] = rest[0][:-3]
    _, slope = torch.ops.tdn.radial_slope(r, *rest)
    step = 1e-5
    difference = (ops.radial(r + step, *rest) - ops.radial(r - step, *rest)) / (2 * step)
    scale = slope.abs().max().item()
    torch.testing.assert_close(slope, difference.detach(), rtol=0, atol=1e-8 * max(scale, 1))


@pytest.mark.parametrize("widths", [[2, 3, 2], [3, 2, 2, 3]])
def test_gradcheck(widths):
    r, pair, scale, weights, *rest = make_radial_problem(widths, num_edges=4, num_pairs=2)

    def function(r, scale, weights):
        return ops.radial(r, pair, scale, weights, *rest)

    assert torch.autograd.gradcheck(function, (r, scale, weights))
    assert torch.autograd.gradgradcheck(function, (r, scale, weights))


def test_third_derivatives():
    arguments = make_radial_problem()
    found = derivatives(ops.radial, arguments, 3)
    assert_all_close(found, derivatives(reference.radial, arguments, 3))


@pytest.mark.parametrize("wanted", [(0,), (2,), (3,), (0, 2), (2, 3), (0, 3)], ids=str)
def test_only_some_inputs_need_gradients(wanted):
    arguments = make_radial_problem()
    changed = tuple(
        x.detach().requires_grad_(k in wanted) if k in (0, 2, 3) else x
        for k, x in enumerate(arguments)
    )
    found = derivatives(ops.radial, changed)
    assert_all_close(found, derivatives(reference.radial, changed))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_exact_zeros_from_the_cutoff_on(dtype):
    r = torch.tensor([R_MAX, math.nextafter(R_MAX, 9.0), 2 * R_MAX, 1e6], dtype=dtype)
    arguments = list(make_radial_problem(num_edges=4, dtype=dtype))
    arguments[0] = r.requires_grad_()
    values, slopes = torch.ops.tdn.radial_slope(*arguments)
    assert (values == 0).all()
    assert (slopes == 0).all()
    w = ops.radial(*arguments)
    (first,) = torch.autograd.grad(w.sum(), r, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), r)
    assert (first == 0).all()
    assert (second == 0).all()


def test_smooth_at_the_cutoff():
    """Value, slope and curvature vanish with the third, second and first power of the distance."""
    arguments = list(make_radial_problem(num_edges=1))
    for gap in (1e-2, 1e-3):
        arguments[0] = torch.tensor([R_MAX - gap], dtype=torch.float64, requires_grad=True)
        w = ops.radial(*arguments).sum()
        (slope,) = torch.autograd.grad(w, arguments[0], create_graph=True)
        (curvature,) = torch.autograd.grad(slope.sum(), arguments[0])
        sizes = [abs(x.item()) for x in (w, slope, curvature)]
        # the basis and the network multiply by some tens
        assert all(size < 1e3 * gap**power for size, power in zip(sizes, (3, 2, 1), strict=True))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_sigmoid_over_its_range(dtype):
    """silu(z) of the kernels' exponential for z of all sizes, against float64 and far beyond it."""
    eps = torch.finfo(dtype).eps
    # one Bessel function, one hidden column that scale multiplies, weight one: z = basis * scale
    r = torch.tensor([1.0], dtype=dtype)
    basis, _ = torch.ops.tdn.radial_slope(
        r, torch.zeros(1, dtype=torch.int64), *identity_network(dtype, 1.0), R_MAX, 6, 1.0
    )
    assert torch.isfinite(basis).all()
    z = torch.cat([torch.linspace(-120, 120, 4801), torch.linspace(-800, 800, 801)]).double()
    z = torch.cat([z, torch.logspace(-30, 2, 65).double(), -torch.logspace(-30, 2, 65).double()])
    one = basis_value(r)
    scale = (z / one).to(dtype).unsqueeze(1)
    pair = torch.arange(len(z))
    weights = torch.ones(2, dtype=dtype)
    found, _ = torch.ops.tdn.radial_slope(
        r.expand(len(z)), pair, scale, weights, [1, 1, 1], R_MAX, 6, 1.0
    )
    exact = scale.double() * one
    expected = torch.nn.functional.silu(exact)
    # rounding of z itself changes exp(-z) by |z| eps; below exp(-limit) everything counts as zero
    error = (found.squeeze(1).double() - expected.squeeze(1)).abs()
    bound = eps * (4 + 2 * exact.abs().squeeze(1)) * expected.abs().squeeze(1)
    assert (error <= bound + 200 * torch.finfo(dtype).tiny * exact.abs().squeeze(1)).all()


def identity_network(dtype, scale):
    """A network of one column in every layer: scale, weights, widths."""
    return torch.full((1, 1), scale, dtype=dtype), torch.ones(2, dtype=dtype), [1, 1, 1]


def basis_value(r):
    """The first basis function times the envelope, in float64."""
    r = r.double()
    frequency = torch.tensor([math.pi / R_MAX], dtype=torch.float64)
    bessel = reference.bessel_basis(r, frequency, R_MAX)
    return (bessel * reference.polynomial_envelope(r, R_MAX, 6).unsqueeze(1)).item()


def test_distance_zero_is_not_a_number():
    """Two atoms in one place: an error that must not pass for a number."""
    arguments = make_radial_problem(num_edges=4)
    r = torch.zeros(4, dtype=torch.float64)
    assert ops.radial(r, *arguments[1:]).isnan().all()
    assert reference.radial(r, *arguments[1:]).isnan().all()


@pytest.mark.parametrize("num_edges", [2003, 9001])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_same_bits_for_any_number_of_threads(dtype, num_edges):
    arguments = make_radial_problem([8, 32, 17, 48], num_edges=num_edges, dtype=dtype)
    same_bits_on_threads(
        lambda: [ops.radial(*arguments).detach(), *force_loss(ops.radial, arguments)]
    )


def test_non_contiguous_inputs():
    arguments = make_radial_problem()

    def strided(x):
        return torch.stack([x, x], dim=-1)[..., 0]

    changed = [
        strided(x.detach()).requires_grad_(x.requires_grad) if isinstance(x, torch.Tensor) else x
        for x in arguments
    ]
    assert not changed[0].is_contiguous()
    for x, y in zip(
        force_loss(ops.radial, changed), force_loss(ops.radial, arguments), strict=True
    ):
        assert_close(x, y)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("hidden", [(), (16,), (16, 8)], ids=str)
@pytest.mark.parametrize("smoothness", [0.0, 2.0])
def test_weights_at_is_the_network(smoothness, hidden, dtype):
    """One operator, or none where there is no hidden layer, as basis, envelope and layers do it."""
    torch.manual_seed(0)
    network = RadialNetwork(R_MAX, 6, 8, hidden, 3, 5, 2, smoothness=smoothness).to(dtype)
    r, pair = make_radial_problem(dtype=dtype)[:2]
    n = torch.arange(1, 9).to(dtype)
    basis = 2**0.5 * torch.sin(n * math.pi * r[:, None] / R_MAX) * R_MAX / (2 * r[:, None])
    basis = basis * reference.polynomial_envelope(r, R_MAX, 6).unsqueeze(1)
    rows = n**-smoothness
    first, *others = network.weights
    x = basis @ (first * (rows / rows.square().mean().sqrt())[:, None]) * network.pair_scale[pair]
    for weight in others:
        x = 1.6765 * torch.nn.functional.silu(x) @ weight
    found = network.weights_at(r, pair)
    assert found.shape == (len(r), 3, 5)
    assert_close(found.detach(), x.view(-1, 3, 5).detach(), dtype)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a.update(r=a["r"][:-1]), "expected r"),
        (lambda a: a.update(r=a["r"].unsqueeze(1)), "expected r"),
        (lambda a: a.update(pair=a["pair"].int()), "expected r"),
        (lambda a: a.update(pair=a["pair"] + 4), "pairs must lie in 0..3"),
        (lambda a: a.update(pair=a["pair"] - 4), "pairs must lie in 0..3"),
        (lambda a: a.update(scale=a["scale"][:, :-1]), "expected widths"),
        (lambda a: a.update(scale=a["scale"].float()), "one type and device"),
        (lambda a: a.update(weights=a["weights"][:-1]), "expected widths"),
        (lambda a: a.update(weights=a["weights"].float()), "one type and device"),
        (lambda a: a.update(widths=[8, 16]), "expected widths"),
        (lambda a: a.update(r_max=0.0), "must be positive"),
        (lambda a: a.update(power=0), "must be positive"),
    ],
)
def test_wrong_inputs_are_named(change, message):
    names = ("r", "pair", "scale", "weights", "widths", "r_max", "power", "silu_scale")
    arguments = dict(zip(names, make_radial_problem(), strict=True))
    change(arguments)
    with pytest.raises(ValueError, match=message):
        ops.radial(**arguments)


def test_row_dot_checks_its_gradient():
    x = torch.zeros(4, 3)
    for bad in ((x[:, 0], x, x[:3]), (x[:3, 0], x, x), (x[:, 0].double(), x, x)):
        with pytest.raises(ValueError, match="row_dot"):
            torch.ops.tdn.row_dot_adjoint(*bad, True, True)
    with pytest.raises(ValueError, match="row_dot"):
        torch.ops.tdn.row_dot(x, x[:, :2])
