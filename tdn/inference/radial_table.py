"""Radial networks as tables of polynomials, for inference.

A radial network is a function of one number for each pair of species. Its values and slopes at the
Chebyshev points of some intervals determine one polynomial per interval, degree and channel, which
is far cheaper than the network and as exact as asked for. Neighboring polynomials share value and
slope at the point between them, so that forces are continuous.

Radial networks vary fastest at short distances, so intervals are equal in
x = (1 + a) y / (y + a) with y = r / r_max, which makes them 19 times shorter at 0 than at r_max.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tdn.network.radial import RadialNetwork
from tdn.ops import use_reference
from tdn.system.errors import TDNError

# channels that stand together in a table: a multiple of every vector width
TABLE_BLOCK = 16
# order of the polynomials (odd), and largest errors of values and slopes relative to the largest
# value and slope. The largest slope stands at short distance: where atoms are far apart and forces
# cancel, networks that are not smooth lose a factor of up to 50. Tables may change energies and
# forces by a tenth of what a compiled file may deviate, 1e-6 and 1e-11 (`tdn_export.table_error`);
# where they do more, finer ones are tried.
# A higher order needs fewer intervals; these decide how much rounding counts in slopes
ORDER = {torch.float32: 7, torch.float64: 11}
TOLERANCE = {torch.float32: 2e-8, torch.float64: 2e-13}
# good enough where rounding of the network itself, which finer intervals magnify, ends progress, or
# where there are so many elements that finer tables would be too large
ACCEPTED = {torch.float32: 1e-7, torch.float64: 1e-11}
STRETCH = 0.3  # the number a
# networks that were trained for long may bend within a hundredth of an angstrom where no atoms ever
# are; no table follows that, and it need not, being smooth and conservative there too. Whether it
# is right where atoms are, `tdn_export.table_error` sees, and asks for a finer one
FEWEST_INTERVALS, MAX_INTERVALS = 16, 1024
# as many times more where finer tables are asked for
FINER_INTERVALS = 4
# larger tables would not fit in processor caches by far, nor well in a file
MAX_BYTES = 256 * 2**20


@dataclass(frozen=True)
class RadialTable:
    """A tabulated radial network.

    Attributes
    ----------
    values : [S, S, K, blocks, L, order + 1, 16], coefficients of s = 2 (K x - k) - 1 for center and
        neighbor species and each of the intervals k < K, lowest power first
    error : largest error of values and slopes before rounding, relative to the largest value and
        slope of the function
    """

    values: Tensor
    error: float


def chebyshev_points(order: int) -> np.ndarray:
    """Points s_k = -cos(pi k / order), k = 0..order, which include both ends."""
    return -np.cos(np.pi * np.arange(order + 1) / order)


def tabulate(
    radial: RadialNetwork,
    dtype: torch.dtype,
    features: Tensor | None = None,
    stored: torch.dtype | None = None,
    fineness: float = 1.0,
) -> RadialTable:
    """Table of the weights w_l,c(r) of each pair of species.

    Parameters
    ----------
    radial : in float64
    dtype : of the table; decides its accuracy as well
    features : [S, C], features of the neighbors to be multiplied in (first layer)
    stored : precision of the coefficients, if it is not ``dtype``
    fineness : divides the error that is aimed at (not the one that is accepted); above 1 there
        may be more intervals

    Raises
    ------
    TDNError
        If the table would be larger than `MAX_BYTES` and still not exact enough.
    """
    num_species = radial.num_species
    order, tolerance = ORDER[dtype], TOLERANCE[dtype] / fineness
    blocks = -(-radial.num_channels // TABLE_BLOCK)
    per_interval = blocks * TABLE_BLOCK * radial.num_degrees * (order + 1) * dtype.itemsize

    def weights(r: Tensor) -> tuple[Tensor, Tensor]:  # [n] -> [S, S, n, L, C] and their slopes
        pairs = [torch.full(r.shape, pair, device=r.device) for pair in range(num_species**2)]
        parts = zip(*(_values_and_slopes(radial, r, pair) for pair in pairs), strict=True)
        both = [torch.stack(part).unflatten(0, (num_species, num_species)) for part in parts]
        if features is not None:
            both = [part * features[:, None, None] for part in both]
        return both[0], both[1]

    limit = MAX_INTERVALS * (FINER_INTERVALS if fineness > 1 else 1)
    most = min(limit, MAX_BYTES // (num_species**2 * per_interval))
    too_large = TDNError(
        f"tables of the radial network for {num_species} species need more than "
        f"{MAX_BYTES // 2**20} MB; export the elements of your simulations only, as in "
        "--species Cu,Zn,O, or all of them with --no-fused, which is slower"
    )
    intervals, best = FEWEST_INTERVALS, np.inf
    if intervals > most:
        raise too_large
    while True:
        finer = _fit(weights, radial.r_max, intervals, order)
        error = _error(weights, finer, radial.r_max, intervals)
        if best <= ACCEPTED[dtype] and error > best:
            break
        if error <= best:
            best, coefficients = error, finer
        if best <= tolerance or intervals >= most:
            break
        # the error falls with the power order of the width of an interval
        growth = (error / tolerance) ** (1 / order) if error < 1e-3 else 2.0
        smallest = 8 if best <= ACCEPTED[dtype] else 4  # rounding hides the gain of small steps
        intervals = min(most, max(intervals + smallest, int(np.ceil(intervals * growth))))
    if best > ACCEPTED[dtype] and most < limit:
        raise too_large
    values = torch.nn.functional.pad(
        coefficients, (0, blocks * TABLE_BLOCK - radial.num_channels)
    ).unflatten(-1, (blocks, TABLE_BLOCK))  # [S, S, K, order + 1, L, blocks, 16]
    values = values.permute(0, 1, 2, 5, 4, 3, 6).contiguous()
    return RadialTable(values.to(stored or dtype), best)


def _values_and_slopes(radial: RadialNetwork, r: Tensor, pair: Tensor) -> tuple[Tensor, Tensor]:
    """Weights w [n, L, C] at some distances and dw/dr, with the operators in plain PyTorch.

    Each weight depends on one distance, so that the gradient of sum(v w) by r, sum(v dw/dr), has
    the slopes as its derivative by v. (`torch.func.jvp` takes four times as long.)
    """
    with torch.enable_grad(), use_reference():
        r = r.detach().requires_grad_(True)
        w = radial.weights_at(r, pair)
        v = torch.zeros_like(w, requires_grad=True)
        (total,) = torch.autograd.grad(w, r, v, create_graph=True)
        (slope,) = torch.autograd.grad(total.sum(), v)
    return w.detach(), slope


def _distance(x: Tensor, r_max: float) -> tuple[Tensor, Tensor]:
    """Inverse of x = (1 + a) y / (y + a), y = r / r_max, and its slope dr/dx."""
    rest = 1 + STRETCH - x
    return r_max * STRETCH * x / rest, r_max * STRETCH * (1 + STRETCH) / rest**2


def _fit(weights, r_max: float, intervals: int, order: int) -> Tensor:
    """Coefficients [S, S, K, order + 1, L, C] with the right values and slopes at some points."""
    points = chebyshev_points((order - 1) // 2)
    k = np.arange(order + 1)
    powers = points[:, None] ** k
    slopes = k * points[:, None] ** np.maximum(k - 1, 0)
    inverse = torch.from_numpy(np.linalg.inv(np.concatenate([powers, slopes])))
    left = torch.arange(intervals, dtype=torch.float64)[:, None]
    x = ((left + torch.from_numpy((points + 1) / 2)) / intervals).flatten()
    r, dr_dx = _distance(x, r_max)
    # at r = 0 the basis is 0 / 0; its slope and that of the envelope are zero there
    dr_ds = torch.where(r > 0, dr_dx / (2 * intervals), 0.0)
    values, slopes = weights(r.clamp(min=1e-16 * r_max))
    slopes = slopes * dr_ds[:, None, None]
    values, slopes = (part.unflatten(2, (intervals, len(points))) for part in (values, slopes))
    # differences within an interval are small, and so is what rounding does to them
    first = values[:, :, :, :1]
    known = torch.cat([values - first, slopes], dim=3)
    coefficients = torch.einsum("kp,abipLc->abikLc", inverse, known)
    coefficients[:, :, :, :1] += first
    return coefficients


def _error(weights, coefficients: Tensor, r_max: float, intervals: int) -> float:
    """Largest relative error of values and slopes between the points of interpolation."""
    s = torch.tensor((-0.97, -0.35, 0.11, 0.62, 0.99), dtype=torch.float64)
    x = (torch.arange(intervals, dtype=torch.float64)[:, None] + (s + 1) / 2) / intervals
    r, dr_dx = _distance(x, r_max)
    ds_dr = 2 * intervals / dr_dx
    exact = (part.unflatten(2, x.shape) for part in weights(r.flatten()))
    k = torch.arange(coefficients.shape[3], dtype=torch.float64)
    powers = s[:, None] ** k
    slopes = k * s[:, None] ** (k - 1).clamp(min=0)
    worst = 0.0
    for wanted, factors, unit in zip(exact, (powers, slopes), (1.0, ds_dr[:, :, None, None])):
        found = torch.einsum("sk,abikLc->abisLc", factors, coefficients) * unit
        error = (found - wanted).abs().amax((0, 1, 2, 4, 5))
        largest = wanted.abs().amax((0, 1, 2, 4, 5)).clamp(min=1e-300)
        worst = max(worst, (error / largest).max().item())
    return worst
