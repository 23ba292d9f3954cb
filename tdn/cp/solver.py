r"""Solver for CP decompositions of coupling tensors with free path coefficients.

Finds factors A [D1, R], B [D2, R], C [D3, R] and path coefficients c such that

.. math:: \sum_r C_{kr} A_{ir} B_{jr} \approx M(c)_{kij} = \sum_p c_p W_{p,kij} .

Any nonzero c is as equivariant as c = 1, so c is solved for together with the factors, inside a
band around 1: that turns a good approximation into an exact decomposition at a much lower rank.

Stage 1 is regularized alternating least squares (ALS, float64): each factor in turn solves its
linear least-squares problem with a Tikhonov term that decays geometrically, and each c_p is the
projection of the current reconstruction on its Wigner block, clipped to the band. Stage 2 is
Levenberg-Marquardt on factors and coefficients together, which converges quadratically to machine
precision where an exact decomposition exists.

Stage 1 works with plain Wigner blocks, whose symmetry in the three modes makes for the best
convergence. A factor per output degree on top (:func:`tdn.cp.couplings.path_normalization`) only
rescales rows of C, so it changes neither rank nor exactness.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import scipy.linalg

from tdn.system.errors import TDNError

from .algebra import CPProblem, Factors, balance, khatri_rao, reconstruct, relative_residual
from .newton import levenberg_marquardt
from .options import SolverOptions

EXACT_TOLERANCE = 1e-11
"""Relative Frobenius error below which a decomposition counts as exact."""
ALS_SWEEPS = 600
TIKHONOV = (1e-3, 1e-5)
"""Regularization at the first and at the last sweep."""
FREE_AFTER = 0.2
"""Fraction of the sweeps after which the path coefficients are let go."""
POLISH_BELOW = 5e-3
"""Relative error after ALS below which a start is polished at once."""


def alternating_least_squares(
    problem: CPProblem,
    factors: Factors,
    c: np.ndarray,
    options: SolverOptions,
) -> tuple[Factors, np.ndarray]:
    """Regularised ALS with projected path coefficients (stage 1)."""
    rank = factors[0].shape[1]
    factors = list(factors)
    tensor = problem.tensor(c)
    first, last = TIKHONOV
    diagonal = np.diag_indices(rank)
    for sweep in range(ALS_SWEEPS):
        progress = sweep / (ALS_SWEEPS - 1)
        ridge = first * (last / first) ** progress
        for mode in range(3):
            a, b = (factors[m] for m in range(3) if m != mode)
            gram = (a.T @ a) * (b.T @ b)
            gram[diagonal] += ridge
            unfolded = np.moveaxis(tensor, mode, 0).reshape(tensor.shape[mode], -1)
            right = unfolded @ khatri_rao(a, b)
            factors[mode] = scipy.linalg.solve(gram, right.T, assume_a="pos", check_finite=False).T
        if options.free_coefficients and progress >= FREE_AFTER:
            c = problem.project(reconstruct(factors))
            # The ridge shrinks the reconstruction; without this the scale would drift downwards.
            c = c / np.sqrt(np.sum(c**2 * problem.weights) / np.sum(problem.weights))
            c = np.clip(c, *options.band)
            tensor = problem.tensor(c)
        factors = balance(factors)
    return factors, c


@dataclass
class CPSolution:
    """Outcome of :func:`solve_cp`: factors of the plain (not normalized) problem."""

    factors: Factors
    coefficients: np.ndarray
    relative_error: float
    num_starts: int
    seconds: float

    @property
    def exact(self) -> bool:
        """Whether the decomposition is exact to machine precision."""
        return self.relative_error < EXACT_TOLERANCE


def random_factors(shape: Sequence[int], rank: int, seed: int) -> Factors:
    """Gaussian starting factors."""
    generator = np.random.default_rng(seed)
    return [0.5 * generator.standard_normal((dim, rank)) for dim in shape]


def solve_cp(
    problem: CPProblem,
    rank: int,
    options: SolverOptions | None = None,
    progress: Callable[[str], None] | None = None,
) -> CPSolution:
    """Best CP decomposition of a coupling tensor from several random starts.

    Parameters
    ----------
    problem : CPProblem
    rank : int
    options : SolverOptions, optional
    progress : callable, optional
        Receives one line per start.

    Returns
    -------
    CPSolution
        The first exact decomposition, or else the best of all starts.

    Raises
    ------
    TDNError
        If ``rank`` is less than 1 or the band is not 0 < low <= 1 <= high.
    """
    options = options or SolverOptions()
    if rank < 1:
        raise TDNError(f"CP rank is {rank}, expected at least 1")
    low, high = options.band
    if not 0 < low <= 1 <= high:
        raise TDNError(f"coefficient band is {options.band}, expected 0 < low <= 1 <= high")
    began = time.perf_counter()
    best: CPSolution | None = None
    count = 0
    for start in range(options.num_starts):
        elapsed = time.perf_counter() - began
        if start and options.max_seconds is not None and elapsed > options.max_seconds:
            break
        count += 1
        factors = random_factors(problem.shape, rank, options.seed + start)
        c = np.ones(len(problem.paths))
        factors, c = alternating_least_squares(problem, factors, c, options)
        error = relative_residual(problem, factors, c)
        if error < POLISH_BELOW:
            factors, c = levenberg_marquardt(problem, factors, c, options)
            error = relative_residual(problem, factors, c)
        if progress is not None:
            progress(f"start {start + 1}: relative error {error:.2e}")
        if best is None or error < best.relative_error:
            best = CPSolution(factors, c, error, count, 0.0)
        if best.exact:
            break
    assert best is not None
    if options.polish_best and best.relative_error >= POLISH_BELOW:
        factors, c = levenberg_marquardt(problem, best.factors, best.coefficients, options)
        best = CPSolution(factors, c, relative_residual(problem, factors, c), count, 0.0)
    return CPSolution(
        best.factors, best.coefficients, best.relative_error, count, time.perf_counter() - began
    )


def scan_ranks(
    problem: CPProblem,
    options: SolverOptions | None = None,
    progress: Callable[[str], None] | None = None,
) -> CPSolution:
    """Exact decomposition of the smallest rank found: brackets it, then bisects.

    A rank counts as too small when no start converges, so more starts (``options.num_starts``)
    may find a smaller rank.
    """
    options = replace(options or SolverOptions(), polish_best=False)
    sizes = np.array(problem.shape)
    full = int(sizes[0] * min(sizes[1], sizes[2]))  # always exact, see orthogonal_terms
    lower = int(sizes.max()) - 1  # an unfolding of full rank D needs at least D terms
    rank = int(np.clip(round(0.6 * sizes.prod() / (sizes.sum() - 2)), lower + 1, full))
    upper, best = None, None
    while upper is None or upper - lower > 1:
        solution = solve_cp(problem, rank, options)
        if progress is not None:
            progress(
                f"rank {rank}: relative error {solution.relative_error:.2e} "
                f"({solution.num_starts} starts, {solution.seconds:.1f} s)"
            )
        if solution.exact:
            upper, best = rank, solution
        else:
            lower = rank
        if upper is None:
            if rank == full:
                raise TDNError(f"no exact decomposition found up to rank {full}; try more starts")
            rank = min(full, max(rank + 1, round(1.25 * rank)))
        else:
            rank = (lower + upper) // 2
    assert best is not None
    return best
