"""The radial network as one operator: force losses, the cutoff, the sigmoid, mistakes."""

import math

import pytest
import torch
from threads import same_bits_on_threads

from tdn.network.radial import RadialNetwork
from tdn.ops import reference

from .cases import OPERATORS
from .closeness import DTYPES, assert_all_close, assert_close
from .problems import POWER, radial
from .problems import RADIAL_R_MAX as R_MAX

pytestmark = pytest.mark.usefixtures("compiled")


def force_loss(problem, kind="compiled", create_graph=False):
    """Gradients by all inputs of a function of the derivative by r, as a force loss has them."""
    total = problem.call(kind).sin().sum()
    (slope,) = torch.autograd.grad(total, problem["r"], create_graph=True)
    weights = [problem["scale"], problem["weights"]]
    return torch.autograd.grad(slope.square().sum(), weights, create_graph=create_graph)


@pytest.mark.parametrize("shape", OPERATORS["radial"][1][2:], ids=str)
def test_weights_of_a_force_loss(shape):
    """The path of training: the kernel of value and slope, not the composed derivatives."""
    problem = radial(**shape)
    found = force_loss(problem)
    assert_all_close(found, force_loss(problem, "reference"))
    again = force_loss(problem, create_graph=True)
    assert_all_close([x.detach() for x in again], found)


def test_slope_is_the_derivative():
    """Of the second output, by central differences: error of order step^2, here below 1e-8."""
    problem = radial().vary()
    problem = problem.but(r=problem["r"][:-3], pair=problem["pair"][:-3])
    _, slope = torch.ops.tdn.radial_slope(*problem.flat)
    step = 1e-5
    up, down = (problem.but(r=problem["r"] + h).call() for h in (step, -step))
    scale = slope.abs().max().item()
    difference = (up - down) / (2 * step)
    torch.testing.assert_close(slope, difference, rtol=0, atol=1e-8 * max(scale, 1))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_exact_zeros_from_the_cutoff_on(dtype):
    r = torch.tensor([R_MAX, math.nextafter(R_MAX, 9.0), 2 * R_MAX, 1e6], dtype=dtype)
    problem = radial(num_edges=4, dtype=dtype).but(r=r.requires_grad_())
    values, slopes = torch.ops.tdn.radial_slope(*problem.flat)
    assert (values == 0).all()
    assert (slopes == 0).all()
    (first,) = torch.autograd.grad(problem.call().sum(), r, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), r)
    assert (first == 0).all()
    assert (second == 0).all()


def test_smooth_at_the_cutoff():
    """Value, slope and curvature vanish with the third, second and first power of the distance."""
    for gap in (1e-2, 1e-3):
        r = torch.tensor([R_MAX - gap], dtype=torch.float64, requires_grad=True)
        w = radial(num_edges=1).but(r=r).call().sum()
        (slope,) = torch.autograd.grad(w, r, create_graph=True)
        (curvature,) = torch.autograd.grad(slope.sum(), r)
        sizes = [abs(x.item()) for x in (w, slope, curvature)]
        # the basis and the network multiply by some tens
        assert all(size < 1e3 * gap**power for size, power in zip(sizes, (3, 2, 1), strict=True))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_sigmoid_over_its_range(dtype):
    """silu(z) of the kernels' exponential for z of all sizes, against float64 and far beyond it."""
    eps = torch.finfo(dtype).eps
    # one Bessel function, one hidden column that scale multiplies, weight one: z = basis * scale
    r = torch.tensor([1.0], dtype=dtype)
    z = torch.cat([torch.linspace(-120, 120, 4801), torch.linspace(-800, 800, 801)]).double()
    z = torch.cat([z, torch.logspace(-30, 2, 65).double(), -torch.logspace(-30, 2, 65).double()])
    one = basis_value(r)
    scale = (z / one).to(dtype).unsqueeze(1)
    network = (scale, torch.ones(2, dtype=dtype), [1, 1, 1], R_MAX, POWER, 1.0)
    found, _ = torch.ops.tdn.radial_slope(r.expand(len(z)), torch.arange(len(z)), *network)
    exact = scale.double() * one
    expected = torch.nn.functional.silu(exact)
    # rounding of z itself changes exp(-z) by |z| eps; below exp(-limit) everything counts as zero
    error = (found.squeeze(1).double() - expected.squeeze(1)).abs()
    bound = eps * (4 + 2 * exact.abs().squeeze(1)) * expected.abs().squeeze(1)
    assert (error <= bound + 200 * torch.finfo(dtype).tiny * exact.abs().squeeze(1)).all()


def basis_value(r):
    """The first basis function times the envelope, in float64."""
    r = r.double()
    bessel = reference.bessel_basis(r, 1, R_MAX)
    return (bessel * reference.polynomial_envelope(r, R_MAX, POWER).unsqueeze(1)).item()


def test_distance_zero_is_not_a_number():
    """Two atoms in one place: an error that must not pass for a number."""
    problem = radial(num_edges=4).but(r=torch.zeros(4, dtype=torch.float64))
    assert problem.call().isnan().all()
    assert problem.call("reference").isnan().all()


@pytest.mark.parametrize("num_edges", [2003, 9001])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_force_loss_has_the_same_bits_for_any_number_of_threads(dtype, num_edges):
    problem = radial([8, 32, 17, 48], num_edges=num_edges, dtype=dtype)
    same_bits_on_threads(lambda: [problem.call().detach(), *force_loss(problem)])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("hidden", [(), (16,), (16, 8)], ids=str)
@pytest.mark.parametrize("smoothness", [0.0, 2.0])
def test_weights_at_is_the_network(smoothness, hidden, dtype):
    """One operator, or none where there is no hidden layer, as basis, envelope and layers do it."""
    torch.manual_seed(0)
    network = RadialNetwork(R_MAX, 6, 8, hidden, 3, 5, 2, smoothness=smoothness).to(dtype)
    problem = radial(dtype=dtype)
    r, pair = problem["r"], problem["pair"]
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
        (lambda p: {"r": p["r"][:-1]}, "expected r"),
        (lambda p: {"r": p["r"].unsqueeze(1)}, "expected r"),
        (lambda p: {"pair": p["pair"].int()}, "expected r"),
        (lambda p: {"pair": p["pair"] + 4}, "pairs must lie in 0..3"),
        (lambda p: {"pair": p["pair"] - 4}, "pairs must lie in 0..3"),
        (lambda p: {"scale": p["scale"][:, :-1]}, "expected widths"),
        (lambda p: {"scale": p["scale"].float()}, "one type and device"),
        (lambda p: {"weights": p["weights"][:-1]}, "expected widths"),
        (lambda p: {"weights": p["weights"].float()}, "one type and device"),
        (lambda p: {"widths": [8, 16]}, "expected widths"),
        (lambda p: {"r_max": 0.0}, "must be positive"),
        (lambda p: {"power": 0}, "must be positive"),
    ],
)
def test_wrong_inputs_are_named(change, message):
    problem = radial()
    with pytest.raises(ValueError, match=message):
        problem.but(**change(problem)).call()


def test_row_dot_checks_its_gradient():
    x = torch.zeros(4, 3)
    for bad in ((x[:, 0], x, x[:3]), (x[:3, 0], x, x), (x[:, 0].double(), x, x)):
        with pytest.raises(ValueError, match="row_dot"):
            torch.ops.tdn.row_dot_adjoint(*bad, True, True)
    with pytest.raises(ValueError, match="row_dot"):
        torch.ops.tdn.row_dot(x, x[:, :2])
