r"""CP factors of coupling tensors: where they come from.

The coupling tensor of :mod:`tdn.cp.couplings` in CANDECOMP/PARAFAC (CP) form

.. math:: M_{kij} = \sum_{r=1}^{R} C_{kr} A_{ir} B_{jr}

turns the Clebsch-Gordan product into :math:`z = C\,((A^T x) \odot (B^T y))` (arXiv 2507.01131,
section 3). Converged factors ship with the package; anything else is solved on demand and cached
in ``$TDN_CACHE_DIR`` (default ``~/.cache/tdn``).

Normalization: blocks carry sqrt((2 l3 + 1) / number of paths into l3), see
:mod:`tdn.cp.couplings`, so inputs of unit variance give outputs of variance close to 1.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import numpy as np

from tdn.system.errors import TDNError

from .algebra import CPProblem, orthogonal_terms
from .couplings import coupling_paths, coupling_tensor, dimension
from .factors import (
    CPFactors,
    degree_scale,
    measured_factors,
    read_factors,
    restrict,
    save_factors,
    without_normalization,
)
from .newton import levenberg_marquardt
from .options import SolverOptions
from .solver import scan_ranks, solve_cp

try:
    import fcntl
except ImportError:  # Windows: atomic renames still keep files whole, work may be done twice
    fcntl = None

SHIPPED = Path(__file__).parent / "shipped"


def _degrees(l_max: int, l_max2: int | None, l_max3: int | None) -> tuple[int, int, int]:
    """Largest degrees of inputs and output; those left open are that of the first input."""
    return l_max, l_max if l_max2 is None else l_max2, l_max if l_max3 is None else l_max3


def decompose(
    l_max: int,
    rank: int,
    paths: str = "parity",
    *,
    l_max_input2: int | None = None,
    l_max_output: int | None = None,
    normalized: bool = True,
    options: SolverOptions | None = None,
    progress: Callable[[str], None] | None = None,
) -> CPFactors:
    """Solve for CP factors (see :mod:`tdn.cp.solver`), without looking at files.

    Parameters
    ----------
    l_max : int
        Largest degree of the first input.
    rank : int
        Number of rank-one terms.
    paths : {"parity", "all"}
    l_max_input2, l_max_output : int, optional
        Largest degrees of the second input and of the output (default ``l_max``).
    normalized : bool
        Of the tensor with the normalization per output degree, or of the bare sum of Wigner blocks.
    options : SolverOptions, optional
    progress : callable, optional
        Receives one line per random start.
    """
    wanted = _degrees(l_max, l_max_input2, l_max_output)
    path_list = coupling_paths(*wanted, paths)
    options = options or SolverOptions()
    solution = solve_cp(CPProblem.from_degrees(path_list, *wanted), rank, options, progress)
    factors, coefficients = solution.factors, solution.coefficients
    if normalized:
        factors[0] = factors[0] * degree_scale(path_list, wanted[2])[:, None]
        if not solution.exact:  # an approximation is best in the metric of the normalized tensor
            problem = CPProblem.from_degrees(path_list, *wanted, normalized=True)
            factors, coefficients = levenberg_marquardt(problem, factors, coefficients, options)
    return measured_factors(factors, coefficients, *wanted, paths, normalized)


def smallest_exact(
    l_max: int,
    paths: str = "parity",
    *,
    l_max_input2: int | None = None,
    l_max_output: int | None = None,
    options: SolverOptions | None = None,
    progress: Callable[[str], None] | None = None,
) -> CPFactors:
    """Exact factors of the smallest rank the solver finds; parameters as :func:`decompose`."""
    wanted = _degrees(l_max, l_max_input2, l_max_output)
    path_list = coupling_paths(*wanted, paths)
    solution = scan_ranks(CPProblem.from_degrees(path_list, *wanted), options, progress)
    factors = solution.factors
    factors[0] = factors[0] * degree_scale(path_list, wanted[2])[:, None]
    return measured_factors(factors, solution.coefficients, *wanted, paths)


def full_rank_factors(
    l_max: int,
    paths: str = "parity",
    *,
    l_max_input2: int | None = None,
    l_max_output: int | None = None,
    rank: int | None = None,
    normalized: bool = True,
) -> CPFactors:
    """Exact factors with c_p = 1 from singular value decompositions, without a solver.

    See :func:`tdn.cp.algebra.orthogonal_terms`; there are at most (L + 1)^4 terms, the full rank
    of arXiv 2507.01131. With ``rank`` only the terms of largest norm are kept.
    """
    wanted = _degrees(l_max, l_max_input2, l_max_output)
    path_list = coupling_paths(*wanted, paths)
    ones = np.ones(len(path_list))
    _, factors = orthogonal_terms(coupling_tensor(path_list, *wanted, ones, normalized))
    factors = [f[:, :rank] for f in factors]
    return measured_factors(factors, ones, *wanted, paths, normalized)


def file_name(
    l_max1: int,
    l_max2: int,
    l_max3: int,
    paths: str,
    rank: int,
    free_coefficients: bool,
    normalized: bool = True,
) -> str:
    """Name of the file of a decomposition, in the package and in the cache."""
    gauge = "free" if free_coefficients else "fixed"
    metric = "" if normalized else "_bare"
    return f"cp_{l_max1}-{l_max2}-{l_max3}_{paths}_r{rank}_{gauge}{metric}.npz"


def cache_folder() -> Path:
    """``$TDN_CACHE_DIR`` or ``~/.cache/tdn``."""
    custom = os.environ.get("TDN_CACHE_DIR")
    return Path(custom).expanduser() if custom else Path.home() / ".cache" / "tdn"


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock for ``path`` so that only one process solves for it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path.with_name(path.name + ".lock"), "w") as stream:
        if fcntl is not None:
            fcntl.flock(stream, fcntl.LOCK_EX)
        yield  # closing the file releases the lock, also when the process dies


def load_factors(
    l_max: int,
    paths: str = "parity",
    rank: int | None = None,
    *,
    l_max_input2: int | None = None,
    l_max_output: int | None = None,
    free_coefficients: bool = True,
    normalized: bool = True,
    exact_only: bool = False,
    progress: Callable[[str], None] | None = None,
) -> CPFactors:
    """CP factors of a coupling tensor: shipped, from the cache, or solved now and cached.

    Parameters
    ----------
    l_max : int
        Largest degree of the first input.
    paths : {"parity", "all"}
        Coupling paths, see :func:`tdn.cp.couplings.coupling_paths`.
    rank : int, optional
        CP rank. Default: the exact decomposition that ships with the package (for different
        degrees of inputs and output: its restriction to them).
    l_max_input2, l_max_output : int, optional
        Largest degrees of the second input and of the output (default ``l_max``).
    free_coefficients : bool
        Whether path coefficients c_p are solved for within a band around 1, or fixed at 1 as in
        arXiv 2507.01131. Fixing them needs an explicit ``rank``.
    normalized : bool
        Of the tensor with the normalization per output degree, or of the bare sum of Wigner blocks,
        as in the code of arXiv 2507.01131.
    exact_only : bool
        Raise unless the decomposition is exact.
    progress : callable, optional
        Receives one line per random start when factors have to be solved for.

    Returns
    -------
    CPFactors

    Raises
    ------
    TDNError
        For unknown ``paths``, a missing rank, or an approximate result with ``exact_only``.

    Examples
    --------
    >>> factors = load_factors(2)
    >>> factors.rank, factors.output.shape
    (17, (9, 17))
    """
    wanted = _degrees(l_max, l_max_input2, l_max_output)
    coupling_paths(*wanted, paths)  # checks the arguments
    if rank is None:
        factors = _default_factors(wanted, paths, free_coefficients)
        factors = factors if normalized else without_normalization(factors)
    else:
        factors = _factors_of_rank(wanted, paths, rank, free_coefficients, normalized, progress)
    if exact_only and not factors.exact:
        raise TDNError(
            f"the rank-{factors.rank} decomposition for degrees {wanted}, paths={paths!r} has a "
            f"relative error of {factors.relative_error:.1e}, expected an exact one; raise the "
            "rank or find the smallest exact one with: tdn-cp --scan"
        )
    return factors


@cache
def shipped_ranks() -> dict[tuple[str, int], int]:
    """Ranks of the exact factors in the package by (paths, l_max)."""
    result: dict[tuple[str, int], int] = {}
    for path in SHIPPED.glob("cp_*_free.npz"):
        factors = read_factors(path)
        key = (factors.paths, factors.l_max)
        if factors.exact and factors.rank < result.get(key, 10**9):
            result[key] = factors.rank
    return result


def _default_factors(wanted: tuple[int, int, int], paths: str, free: bool) -> CPFactors:
    """Exact shipped factors, restricted if the degrees differ."""
    largest = max(wanted)
    if not free:
        raise TDNError("factors with fixed path coefficients need a rank, e.g. 7 * l_max**2")
    ranks = shipped_ranks()
    if (paths, largest) not in ranks:
        known = sorted(n for p, n in ranks if p == paths)
        raise TDNError(
            f"no exact factors ship for l_max={largest}, paths={paths!r} (there are some for "
            f"l_max {known}); give a rank, e.g. 7 * l_max**2 = {7 * largest**2}"
        )
    name = file_name(largest, largest, largest, paths, ranks[paths, largest], True)
    factors = read_factors(SHIPPED / name)
    return factors if wanted == (largest,) * 3 else restrict(factors, *wanted)


def full_rank(wanted: tuple[int, int, int]) -> int:
    """Rank at which a decomposition exists for every coupling tensor of these degrees."""
    d1, d2, d3 = (dimension(n) for n in wanted)
    return d3 * min(d1, d2)


def _factors_of_rank(
    wanted: tuple[int, int, int],
    paths: str,
    rank: int,
    free: bool,
    normalized: bool,
    progress: Callable[[str], None] | None,
) -> CPFactors:
    """Factors of a given rank from the package, the cache, or the solver."""
    if rank < 1:
        raise TDNError(f"CP rank is {rank}, expected at least 1")
    name = file_name(*wanted, paths, rank, free, normalized)
    if (SHIPPED / name).is_file():
        return read_factors(SHIPPED / name)
    if not normalized:  # exact factors of the one tensor are exact factors of the other
        shipped = SHIPPED / file_name(*wanted, paths, rank, free)
        if shipped.is_file() and (factors := read_factors(shipped)).exact:
            return without_normalization(factors)
    if rank >= full_rank(wanted):
        return full_rank_factors(
            wanted[0],
            paths,
            l_max_input2=wanted[1],
            l_max_output=wanted[2],
            normalized=normalized,
        )
    cached = cache_folder() / name
    if cached.is_file():
        return read_factors(cached)
    with locked(cached):
        if cached.is_file():  # another process was faster
            return read_factors(cached)
        options = SolverOptions(free_coefficients=free, num_starts=6, max_seconds=100)
        factors = decompose(
            wanted[0],
            rank,
            paths,
            l_max_input2=wanted[1],
            l_max_output=wanted[2],
            normalized=normalized,
            options=options,
            progress=progress,
        )
        save_factors(cached, factors)
        return factors


def paper_rank(schedule: str, l_max: int) -> int:
    """CP rank of a schedule of the paper: ``7L``, ``7L^2``, ``16log^2(L+1)`` or ``(L+1)^4``.

    The third is rounded up; its form in the released code, which cuts the square of the logarithm
    to an integer first, is ``16int(log^2(L+1))`` (16 for L = 2 and 3, 32 for L = 4, and 0, taken as
    one, for L = 1).
    """
    schedules = {
        "7L": 7 * l_max,
        "7L^2": 7 * l_max**2,
        "16log^2(L+1)": math.ceil(16 * math.log(l_max + 1) ** 2),
        "16int(log^2(L+1))": 16 * int(math.log(l_max + 1) ** 2),
        "(L+1)^4": (l_max + 1) ** 4,
    }
    if schedule not in schedules:
        raise TDNError(f"rank schedule is {schedule!r}, expected one of {', '.join(schedules)}")
    return max(schedules[schedule], 1)
