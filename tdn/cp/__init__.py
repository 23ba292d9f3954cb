"""CP decompositions of coupling tensors: exact and approximate factors, shipped or solved for."""

from .factors import CPFactors, read_factors, restrict, save_factors
from .library import (
    SHIPPED,
    decompose,
    full_rank_factors,
    load_factors,
    paper_rank,
    shipped_ranks,
    smallest_exact,
)

__all__ = [
    "SHIPPED",
    "CPFactors",
    "decompose",
    "full_rank_factors",
    "load_factors",
    "paper_rank",
    "read_factors",
    "restrict",
    "save_factors",
    "shipped_ranks",
    "smallest_exact",
]
