"""Radial networks as tables: accuracy, continuity, the end at the cutoff, refusals."""

import functools

import numpy as np
import pytest
import torch
from structures import TRAINED_MODEL, random_model

from tdn import ops
from tdn.inference import radial_table as tabulation
from tdn.inference.radial_table import ORDER, STRETCH, TABLE_BLOCK, TOLERANCE, tabulate
from tdn.network.checkpoint import load_model
from tdn.network.radial import RadialNetwork
from tdn.ops import reference, use_reference
from tdn.system.errors import TDNError

DTYPES = [torch.float32, torch.float64]


NETWORKS = ["default", "l1", "one_layer", "trained"]


@functools.cache
def network_of(name):
    """The last radial network of a model."""
    if name == "trained":
        model = load_model(TRAINED_MODEL, dtype="float64")[0]
    else:
        model = random_model(name)
    return model.layers[-1].radial


@functools.cache
def table_of(name, dtype):
    return tabulate(network_of(name), dtype)


@functools.cache
def exact_of(name):
    """Weights and slopes of the network at `random_distances`."""
    network = network_of(name)
    return exact(network, random_distances(network.r_max))


def small_network(num_channels=4, num_species=2, hidden=(8,), seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        radial = RadialNetwork(4.0, 6, 8, hidden, 3, num_channels, num_species)
    return radial.double().requires_grad_(False)


def random_distances(r_max, count=3000):
    return torch.from_numpy(np.random.default_rng(1).uniform(0, r_max, count))


def exact(radial, r):
    """Weights and slopes of the network itself, each [S, S, n, L, C]."""
    num_species = radial.num_species

    def weights(r):
        pairs = [radial.weights_at(r, torch.full(r.shape, p)) for p in range(num_species**2)]
        return torch.stack(pairs).unflatten(0, (num_species, num_species))

    with use_reference():
        return [x.numpy() for x in torch.func.jvp(weights, (r,), (torch.ones_like(r),))]


def interpolate(values, r, r_max, num_channels):
    """Weights and slopes from a table, computed in float64, and how far rounding may change them.

    Rounded coefficients differ by half a last place each; |s| is at most one.
    """
    table, y = values.numpy(), r.numpy() / r_max
    intervals, order = table.shape[2], table.shape[5] - 1
    x = intervals * (1 + STRETCH) * y / (y + STRETCH)
    k = np.minimum(x.astype(int), intervals - 1)
    s = (2 * (x - k) - 1)[:, None, None, None]
    slope = (2 * intervals * (1 + STRETCH) * STRETCH / (y + STRETCH) ** 2 / r_max)[:, None, None]
    rows = table[:, :, k].astype(np.float64)  # [S, S, n, blocks, L, order + 1, 16]
    half_place = np.finfo(table.dtype).eps / 2
    weights = sum(rows[..., n, :] * s**n for n in range(order + 1))
    slopes = sum(n * rows[..., n, :] * s ** (n - 1) for n in range(1, order + 1))
    sums = np.abs(rows).sum(axis=-2)
    powers = np.arange(order + 1)[:, None]
    slope_sums = (np.abs(rows) * powers).sum(axis=-2)

    def unpack(x):  # [S, S, n, blocks, L, 16] -> [S, S, n, L, C]
        x = np.moveaxis(x, 3, 4)
        return x.reshape(*x.shape[:4], -1)[..., :num_channels]

    return (
        (unpack(weights), half_place * unpack(sums).max()),
        (unpack(slopes) * slope, half_place * (unpack(slope_sums) * slope).max()),
    )


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", NETWORKS)
def test_error_is_what_it_says(name, dtype):
    """Measured at many distances it is at most twice, and not far below, what was estimated.

    The estimate samples five points of each interval; the error has order + 1 humps per interval.
    """
    radial = network_of(name)
    table = table_of(name, dtype)
    rounding = 3e-12 if dtype == torch.float64 else 0.0  # of the network, may end progress
    assert table.error <= max(TOLERANCE[dtype], rounding)
    assert table.values.dtype == dtype
    r = random_distances(radial.r_max)
    measured = 0.0
    found = interpolate(table.values, r, radial.r_max, radial.num_channels)
    for (value, rounding), wanted in zip(found, exact_of(name), strict=True):
        largest = np.abs(wanted).max()
        # the table is relative to what is largest anywhere, as is this sample of 3000 distances
        # up to some percent
        error = np.abs(value - wanted).max()
        assert error <= 2 * table.error * largest + rounding
        measured = max(measured, (error + rounding) / largest)
    assert measured >= 0.3 * table.error


@pytest.mark.parametrize("name", NETWORKS)
def test_shape_and_filling(name):
    radial = network_of(name)
    table = table_of(name, torch.float64).values
    blocks = -(-radial.num_channels // TABLE_BLOCK)
    assert table.shape[:2] == (radial.num_species, radial.num_species)
    assert table.shape[3:] == (blocks, radial.num_degrees, ORDER[torch.float64] + 1, TABLE_BLOCK)
    unused = blocks * TABLE_BLOCK - radial.num_channels
    assert unused > 0 and (table[:, :, :, -1, :, :, TABLE_BLOCK - unused :] == 0).all()
    assert (table[:, :, :, -1, :, 0, : TABLE_BLOCK - unused] != 0).any()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", NETWORKS)
def test_continuous_at_the_knots(name, dtype):
    """Values of both sides agree to rounding, slopes to twice the error of the table."""
    table = table_of(name, dtype)
    rows = table.values.double()
    powers = torch.arange(rows.shape[5], dtype=torch.float64)[:, None]
    signs = (-1.0) ** powers
    left, right = rows[:, :, :-1], rows[:, :, 1:]
    end, start = left.sum(dim=5), (signs * right).sum(dim=5)
    # half a last place of every coefficient on both sides; in float64 also what inverting the
    # Vandermonde matrix (condition 1e4) loses
    rounding = torch.finfo(dtype).eps * rows.abs().sum(dim=5).max()
    slack = 1e4 * torch.finfo(torch.float64).eps * rows.abs().max()
    assert (end - start).abs().max() <= rounding + slack
    end, start = (powers * left).sum(dim=5), (-signs * powers * right).sum(dim=5)
    # d s / d r at the knots, in angstrom^-1
    intervals = rows.shape[2]
    x = torch.arange(1, intervals) / intervals
    y = STRETCH * x / (1 + STRETCH - x)
    scale = 2 * intervals * (1 + STRETCH) * STRETCH / (y + STRETCH) ** 2 / network_of(name).r_max
    jumps = ((end - start).abs().amax(dim=(0, 1, 3, 4, 5)) * scale).max()
    largest = np.abs(exact_of(name)[1]).max()
    steepest = (powers * rows.abs()).sum(dim=5)[:, :, 1:].amax(dim=(0, 1, 3, 4, 5))
    rounding = torch.finfo(dtype).eps * (steepest * scale).max()
    assert jumps <= 2 * 2 * table.error * largest + rounding


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_ends_at_the_cutoff(dtype):
    """Exactly zero from there on, value and slope; nearly zero just before."""
    network = small_network()
    r_max = network.r_max
    table = tabulate(network, dtype)
    r = torch.tensor([r_max - 1e-9, r_max, np.nextafter(r_max, 9), 6.0, 1e9], dtype=torch.float64)
    edge_index = torch.stack([torch.arange(5), torch.arange(1, 6)])
    edges = ops.sort_edges(edge_index, 6, 6)
    edge_vec = torch.zeros(5, 3, dtype=torch.float64)
    edge_vec[:, 0] = r
    edge_vec.requires_grad_()
    species = torch.arange(6) % 2
    largest = [np.abs(x).max() for x in exact(network, random_distances(r_max))]
    found = interpolate(table.values, r[:1], r_max, 4)
    # coefficients are rounded, and so is each step of Horner's rule
    rounding = [2 * ORDER[dtype] * x[1] for x in found]
    value_bound, slope_bound = (2 * table.error * x + y for x, y in zip(largest, rounding))
    for evaluate in (ops.density, reference.density):
        a = evaluate(edge_vec, species, table.values, r_max, STRETCH, 4, edges)
        (slope,) = torch.autograd.grad(a.sum(), edge_vec)
        assert (a[1:] == 0).all() and (slope[1:] == 0).all()
        # harmonics are at most sqrt(5); 9 of them and 4 channels add up in the slope
        assert a[0].abs().max() <= 5**0.5 * value_bound
        assert slope[0, 0].abs() <= 36 * 5**0.5 * slope_bound
    assert value_bound < 1e-5 * largest[0] and slope_bound < 1e-4 * largest[1]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_features_of_the_neighbor_are_multiplied_in(dtype):
    network = small_network(num_channels=5)
    features = torch.randn(2, 5, dtype=torch.float64)
    r = random_distances(4.0)
    table = tabulate(network, dtype, features)
    found = interpolate(table.values, r, 4.0, 5)
    for (value, rounding), weights in zip(found, exact(network, r), strict=True):
        # [center, neighbor, n, L, C]: those of the second index
        wanted = weights * features[None, :, None, None].numpy()
        error = np.abs(value - wanted).max()
        assert error <= 2 * table.error * np.abs(wanted).max() + rounding
        # the center's would be far off
        assert np.abs(value - weights * features[:, None, None, None].numpy()).max() > 0.1


def test_float64_is_finer_than_float32():
    network = small_network()
    fine, coarse = (tabulate(network, dtype) for dtype in (torch.float64, torch.float32))
    assert fine.error < 1e-2 * coarse.error
    assert fine.values.shape[2] >= coarse.values.shape[2]


def test_the_network_is_not_changed():
    network = small_network()
    before = [p.clone() for p in network.parameters()]
    tabulate(network, torch.float32)
    for parameter, old in zip(network.parameters(), before, strict=True):
        assert torch.equal(parameter, old) and parameter.dtype == torch.float64


def test_too_many_species():
    # 16 intervals of 64 channels, 3 degrees, order 9 and 8 bytes fit for up to 33 species
    network = small_network(num_channels=64, num_species=34, hidden=(2,))
    with pytest.raises(TDNError, match="for 34 species need more than 256 MB"):
        tabulate(network, torch.float64)


def test_as_fine_as_memory_allows(monkeypatch):
    """Between what is aimed at and what is accepted the limit decides; below that it refuses."""
    network = small_network()
    usual = tabulate(network, torch.float32)
    intervals, per_interval = usual.values.shape[2], 4 * usual.values[:, :, 0].numel()
    fewer = int(0.9 * intervals)  # of order 7: twice the error
    monkeypatch.setattr(tabulation, "MAX_BYTES", fewer * per_interval)
    found = tabulate(network, torch.float32)
    assert found.values.shape[2] == fewer
    assert usual.error <= tabulation.TOLERANCE[torch.float32] < found.error
    assert found.error <= tabulation.ACCEPTED[torch.float32]
    monkeypatch.setattr(tabulation, "MAX_BYTES", 17 * per_interval)
    with pytest.raises(TDNError, match="--species Cu,Zn,O"):
        tabulate(network, torch.float32)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_function_that_varies_too_fast(dtype):
    """Steep steps of the activation at many distances: the finest table, and how far it is off."""
    network = small_network(num_channels=1, num_species=1, hidden=(8, 8))
    for weight in network.weights:
        weight *= 100.0
    found = tabulate(network, dtype)
    assert found.error > tabulation.ACCEPTED[dtype]


def test_finer_tables_may_have_more_intervals(monkeypatch):
    network = network_of("default")
    monkeypatch.setattr(tabulation, "MAX_INTERVALS", 48)
    found = tabulate(network, torch.float32)
    assert found.values.shape[2] == 48 and found.error > tabulation.ACCEPTED[torch.float32]
    finer = tabulate(network, torch.float32, fineness=10.0)
    assert 48 < finer.values.shape[2] <= 4 * 48
    assert finer.error <= tabulation.ACCEPTED[torch.float32]
