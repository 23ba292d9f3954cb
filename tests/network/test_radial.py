"""Radial functions: envelope, Bessel basis, radial network, ZBL."""

import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad

from tdn.network.radial import PolynomialEnvelope, RadialNetwork
from tdn.network.zbl import ZBL
from tdn.ops.reference import bessel_basis

pytestmark = pytest.mark.usefixtures("float64_default")


@pytest.mark.parametrize("p", [3, 6, 9])
def test_envelope(p):
    envelope = PolynomialEnvelope(5.0, p)
    r = torch.tensor([1e-12, 4.999999999, 5.0, 5.1], requires_grad=True)
    u = envelope(r)
    (slope,) = torch.autograd.grad(u.sum(), r, create_graph=True)
    (curvature,) = torch.autograd.grad(slope.sum(), r)
    # u ~ (1 - x)^3 p (p + 1) (p + 2) / 6 near the cutoff
    # polynomials with coefficients up to p^2 cancel near the cutoff
    np.testing.assert_allclose(u.detach(), [1, 0, 0, 0], atol=1e-16 * 4 * p**2)
    np.testing.assert_allclose(slope.detach(), [0, 0, 0, 0], atol=1e-10)
    np.testing.assert_allclose(curvature[1:], [0, 0, 0], atol=1e-6)
    near = torch.tensor([5.0 * (1 - 1e-3)])
    expected = p * (p + 1) * (p + 2) / 6 * 1e-9
    assert float(envelope(near)) == pytest.approx(expected, rel=5e-3 * p)
    assert (envelope(torch.linspace(0.01, 5, 300)).diff() <= 1e-15).all()


def test_bessel_basis_is_orthogonal():
    """Weighted with r^2 over [0, r_max], the functions are orthogonal with one common norm."""

    def product(n, m):
        def integrand(r):
            b = bessel_basis(torch.tensor([r]), 5, 4.0)[0]
            return float(b[n] * b[m]) * r**2

        return quad(integrand, 1e-9, 4.0, limit=200)[0]

    gram = np.array([[product(n, m) for m in range(5)] for n in range(5)])
    # sqrt(2) sin(n pi x) / (2 x): its square times r^2 integrates to r_max^3 / 4
    np.testing.assert_allclose(gram, 16.0 * np.eye(5), atol=1e-7)


def test_radial_network_vanishes_at_the_cutoff_with_two_derivatives():
    network = RadialNetwork(5.0, 6, 8, (16, 16), 3, 4, 2).requires_grad_(False)

    def value(r):
        return network.weights_at(torch.tensor([r]), torch.tensor([0]))[0]

    assert value(2.0).abs().max() > 0.1
    values = [float(value(5.0 - d).abs().max()) for d in (0.02, 0.01)]
    # three orders of the envelope and one of sin(n pi r / r_max): 2^4, less slack for higher orders
    assert values[0] / values[1] > 12
    assert value(5.0).abs().max() < 1e-14


def test_species_pairs_differ():
    network = RadialNetwork(5.0, 6, 8, (16,), 1, 4, 2)
    values = network.weights_at(torch.full((4,), 1.7), torch.arange(4))
    assert values.shape == (4, 1, 4)
    for i in range(4):
        for j in range(i):
            assert (values[i] - values[j]).abs().max() > 1e-6


def test_zbl_is_the_universal_potential_and_ends_smoothly():
    zbl = ZBL([1, 8], r_max=5.0)
    species = torch.tensor([1, 0])
    center, neighbor = torch.tensor([0, 1]), torch.tensor([1, 0])

    def energy(r):
        return float(zbl(torch.tensor([r, r]), species, center, neighbor, 2).sum())

    # the formula by hand at 0.3 angstrom: a = 0.46850 / (1^0.23 + 8^0.23)
    a = 0.46850 / (1 + 8**0.23)
    x = 0.3 / a
    phi = sum(
        c * math.exp(-d * x)
        for c, d in [(0.18175, 3.1998), (0.50986, 0.94229), (0.28022, 0.4029), (0.02817, 0.20162)]
    )
    y = 0.3 / (0.31 + 0.66)  # covalent radii of H and O in angstrom
    switch = 1 - 28 * y**6 + 48 * y**7 - 21 * y**8
    assert energy(0.3) == pytest.approx(14.3996454784 * 8 / 0.3 * phi * switch, rel=1e-9)
    assert energy(0.97) == 0.0
    assert energy(0.2) > energy(0.4) > energy(0.8) > 0


@pytest.mark.parametrize("smoothness", [0.0, 2.0])
def test_decay_leaves_little_of_fast_basis_functions(smoothness):
    torch.manual_seed(0)
    network = RadialNetwork(5.0, 6, 6, (4000,), 1, 1, 1, decay=1.0, smoothness=smoothness)
    weights = network._first(network.weights[0]).detach()
    rms = weights.square().mean(dim=1).sqrt()
    # each row is a sample of 4000 normal numbers: its RMS is known to 1 / sqrt(2 * 4000) = 1.1 %
    expected = torch.arange(1, 7) ** -(1.0 + smoothness)
    expected *= (weights.square().mean() / expected.square().mean()).sqrt()
    torch.testing.assert_close(rms, expected.to(rms), rtol=0.06, atol=0)
    assert abs(weights.square().sum(0).mean() - 1) < 0.06  # as without the order


@pytest.mark.parametrize("hidden", [(), (7,), (7, 5)], ids=str)
def test_smoothness_scales_rows_of_the_first_matrix_in_use(hidden):
    torch.manual_seed(0)
    smooth = RadialNetwork(5.0, 6, 6, hidden, 2, 3, 2, smoothness=1.5).double()
    plain = RadialNetwork(5.0, 6, 6, hidden, 2, 3, 2).double()
    plain.load_state_dict(smooth.state_dict())
    n = torch.arange(1, 7, dtype=torch.float64)
    scale = n**-1.5 / (n**-3.0).mean().sqrt()
    with torch.no_grad():
        plain.weights[0].mul_(scale[:, None])
    r, pair = torch.tensor([0.9, 2.0, 4.5], dtype=torch.float64), torch.tensor([0, 3, 1])
    found, expected = (net.weights_at(r, pair) for net in (smooth, plain))
    torch.testing.assert_close(found, expected, rtol=1e-13, atol=1e-13)
    # what an optimizer sees: gradients of fast functions are smaller
    found.square().sum().backward()
    expected.square().sum().backward()
    torch.testing.assert_close(
        smooth.weights[0].grad, plain.weights[0].grad * scale[:, None], rtol=1e-12, atol=1e-12
    )
