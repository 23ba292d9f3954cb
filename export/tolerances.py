"""How far results may deviate."""

from __future__ import annotations

import torch

# compiled against eager: relative to the largest energy of interaction, edge force and virial
BOUND = {"float64": 1e-10, "float32": 1e-5}
# in float32 also up to as many times the distance of the network from itself in float64
OWN_ROUNDING = 10.0
# a rotated structure takes other roundings all the way, as fused operators do against plain ones;
# copies of a cell only other sums
SYMMETRY_BOUND = {"float64": 1e-10, "float32": 1e-4}
# tables against the network they came from: errors of layers and orders of products add up
TABLE_AMPLIFICATION = 100.0
# how much of `BOUND` the tables may cause: rounding comes first
TABLE_SHARE = 0.1
# CP matrices less equivariant than this were chosen so: their error is reported, not refused
EXACT_FACTORS = 1e-9

# How many times the rounding error measured at export another build may be off. In float64 the
# error is scaled down from float32, and mathematical functions differ by some units in the last
# place between libraries and devices, hence the larger factor; TF32 arithmetic (2^-11) fails both.
ROUNDING_MARGIN = {torch.float32: 64.0, torch.float64: 4096.0}
ENERGY_ROUNDING = 64.0  # of the sum with E0, which can be thousands of eV


def ratio(difference: float, size: float) -> float:
    """A deviation relative to a size, which may be zero where nothing deviates."""
    if difference == 0.0:
        return 0.0
    return difference / size if 0.0 < size < float("inf") else float("inf")
