r"""Solver for CP decompositions of coupling tensors with free path coefficients.

Finds factors A [D1, R], B [D2, R], C [D3, R] and path coefficients c such that

.. math:: \sum_r C_{kr} A_{ir} B_{jr} \approx M(c)_{kij} = \sum_p c_p W_{p,kij} .

Any nonzero c is as equivariant as c = 1, so c is solved for together with the factors, inside a
band around 1: that turns a good approximation into an exact decomposition at a much lower rank.

Stage 1 is regularised alternating least squares (ALS, float64): each factor in turn solves its
linear least-squares problem with a Tikhonov term that decays geometrically, and each c_p is the
projection of the current reconstruction on its Wigner block, clipped to the band. Stage 2 is
Levenberg-Marquardt on factors and coefficients together, which converges quadratically to machine
precision where an exact decomposition exists.

Stage 1 works with plain Wigner blocks, whose symmetry in the three modes makes for the best
convergence. A factor per output degree on top (:func:`tdn.couplings.path_normalisation`) only
rescales rows of C, so it changes neither rank nor exactness.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from collections.abc import Callable, Sequence

import numpy as np
import scipy.linalg

from .couplings import CouplingPath, degree_slice, dimension, path_normalisation, wigner_3j
from .errors import TDNError

EXACT_TOLERANCE = 1e-11
"""Relative Frobenius error below which a decomposition counts as exact."""

Factors = list[np.ndarray]  # [output [D3, R], input1 [D1, R], input2 [D2, R]]


@dataclass(frozen=True)
class SolverOptions:
    """Settings of :func:`solve_cp`.

    Parameters
    ----------
    band : (float, float)
        Allowed range of the path coefficients.
    free_coefficients : bool
        Whether the path coefficients are solved for; otherwise they stay 1.
    num_starts : int
        Random starts tried before giving up (it stops at the first exact one).
    als_iterations : int
        ALS sweeps per start.
    regularisation : (float, float)
        Tikhonov term at the first and the last sweep.
    free_after : float
        Fraction of the sweeps after which the coefficients are let go.
    polish_iterations : int
        Levenberg-Marquardt iterations at the end.
    polish_below : float
        Only starts whose relative error after ALS is below this are polished on the way; the best
        start is always polished in the end.
    max_polish_unknowns : int
        Larger problems are polished by conjugate-gradient steps instead of Cholesky ones.
    max_seconds : float or None
        No new start once this much time has passed.
    seed : int
        Seed of the first start; start n uses ``seed + n``.
    """

    band: tuple[float, float] = (0.8, 1.25)
    free_coefficients: bool = True
    num_starts: int = 10
    als_iterations: int = 600
    regularisation: tuple[float, float] = (1e-3, 1e-5)
    free_after: float = 0.2
    polish_iterations: int = 60
    polish_below: float = 5e-3
    max_polish_unknowns: int = 9000
    max_seconds: float | None = None
    seed: int = 0


@dataclass
class CPProblem:
    """Coupling tensor as a linear function of its path coefficients.

    Parameters
    ----------
    paths : sequence of CouplingPath
    shape : (D3, D1, D2)
    normalised : bool
        Whether the blocks carry :func:`tdn.couplings.path_normalisation` or have unit norm.
    """

    paths: Sequence[CouplingPath]
    shape: tuple[int, int, int]
    normalised: bool = False
    blocks: list[np.ndarray] = field(init=False)
    slices: list[tuple[slice, slice, slice]] = field(init=False)
    weights: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        norms = path_normalisation(self.paths) if self.normalised else np.ones(len(self.paths))
        self.blocks = [n * wigner_3j(p) for n, p in zip(norms, self.paths, strict=True)]
        self.slices = [
            (degree_slice(p.l3), degree_slice(p.l1), degree_slice(p.l2)) for p in self.paths
        ]
        self.weights = norms**2

    @classmethod
    def from_degrees(
        cls, paths: Sequence[CouplingPath], l_max1: int, l_max2: int, l_max3: int, **kwargs
    ) -> CPProblem:
        """Problem for features of the given largest degrees."""
        return cls(paths, (dimension(l_max3), dimension(l_max1), dimension(l_max2)), **kwargs)

    def tensor(self, c: np.ndarray) -> np.ndarray:
        """M(c), [D3, D1, D2]."""
        result = np.zeros(self.shape)
        for c_p, block, where in zip(c, self.blocks, self.slices, strict=True):
            result[where] = c_p * block
        return result

    def project(self, tensor: np.ndarray) -> np.ndarray:
        """Coefficients of the nearest M(c), [P]."""
        overlaps = [np.vdot(tensor[w], b) for b, w in zip(self.blocks, self.slices, strict=True)]
        return np.array(overlaps) / self.weights


def khatri_rao(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Column-wise Kronecker product, [I, R], [J, R] -> [I * J, R]."""
    return (a[:, None, :] * b[None, :, :]).reshape(-1, a.shape[1])


def reconstruct(factors: Factors) -> np.ndarray:
    """sum_r output[k,r] input1[i,r] input2[j,r], [D3, D1, D2]."""
    shape = tuple(f.shape[0] for f in factors)
    return (factors[0] @ khatri_rao(factors[1], factors[2]).T).reshape(shape)


def balance(factors: Factors) -> Factors:
    """Equal column norms across the three factors (the same rank-one terms)."""
    norms = [np.linalg.norm(f, axis=0) for f in factors]
    mean = np.cbrt(norms[0] * norms[1] * norms[2])
    return [f * (mean / np.where(n > 0, n, 1.0)) for f, n in zip(factors, norms, strict=True)]


def relative_residual(problem: CPProblem, factors: Factors, c: np.ndarray) -> float:
    """Relative Frobenius error of the factors as a decomposition of M(c)."""
    tensor = problem.tensor(c)
    return float(np.linalg.norm(tensor - reconstruct(factors)) / np.linalg.norm(tensor))


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
    first, last = options.regularisation
    diagonal = np.diag_indices(rank)
    for sweep in range(options.als_iterations):
        progress = sweep / max(options.als_iterations - 1, 1)
        ridge = first * (last / first) ** progress
        for mode in range(3):
            a, b = (factors[m] for m in range(3) if m != mode)
            gram = (a.T @ a) * (b.T @ b)
            gram[diagonal] += ridge
            unfolded = np.moveaxis(tensor, mode, 0).reshape(tensor.shape[mode], -1)
            right = unfolded @ khatri_rao(a, b)
            factors[mode] = scipy.linalg.solve(gram, right.T, assume_a="pos", check_finite=False).T
        if options.free_coefficients and progress >= options.free_after:
            c = problem.project(reconstruct(factors))
            # The ridge shrinks the reconstruction; without this the scale would drift downwards.
            c = c / np.sqrt(np.sum(c**2 * problem.weights) / np.sum(problem.weights))
            c = np.clip(c, *options.band)
            tensor = problem.tensor(c)
        factors = balance(factors)
    return factors, c


def _gauss_newton(
    problem: CPProblem, factors: Factors, residual: np.ndarray, free: bool
) -> tuple[np.ndarray, np.ndarray]:
    """J^T J and J^T r of the residual with respect to (output, input1, input2, c).

    The Gauss-Newton matrix of a CP model needs products of R x R Gram matrices only; the Jacobian
    with its D^3 rows is never formed.
    """
    rank = factors[0].shape[1]
    sizes = [f.size for f in factors]
    starts = np.concatenate([[0], np.cumsum(sizes)])
    total = int(starts[-1])
    size = total + (len(problem.paths) if free else 0)
    matrix, gradient = np.empty((size, size)), np.empty(size)
    grams = [f.T @ f for f in factors]
    for m in range(3):
        a, b = (k for k in range(3) if k != m)
        here = slice(starts[m], starts[m + 1])
        dim = factors[m].shape[0]
        matrix[here, here] = np.kron(np.eye(dim), grams[a] * grams[b])
        unfolded = np.moveaxis(residual, m, 0).reshape(dim, -1)
        gradient[here] = (unfolded @ khatri_rao(factors[a], factors[b])).ravel()
        for k in range(m + 1, 3):
            other = 3 - m - k
            block = (
                factors[m][:, None, None, :]  # [i, r, j, s]: F_m[i,s] F_k[j,r] G_other[r,s]
                * factors[k].T[None, :, :, None]
                * grams[other][None, :, None, :]
            ).reshape(dim * rank, -1)
            there = slice(starts[k], starts[k + 1])
            matrix[here, there] = block
            matrix[there, here] = block.T
    if free:
        for q, (block, (s3, s1, s2)) in enumerate(zip(problem.blocks, problem.slices, strict=True)):
            out, in1, in2 = factors[0][s3], factors[1][s1], factors[2][s2]
            column = [np.zeros_like(f) for f in factors]
            with_in2 = np.einsum("kij,jr->kir", block, in2)
            column[0][s3] = np.einsum("kir,ir->kr", with_in2, in1)
            column[1][s1] = np.einsum("kir,kr->ir", with_in2, out)
            column[2][s2] = np.einsum("kij,kr,ir->jr", block, out, in1, optimize=True)
            flat = -np.concatenate([x.ravel() for x in column])
            matrix[:total, total + q] = flat
            matrix[total + q, :total] = flat
            gradient[total + q] = -np.vdot(residual[s3, s1, s2], block)
        matrix[total:, total:] = np.diag(problem.weights)
    return matrix, gradient


def levenberg_marquardt(
    problem: CPProblem, factors: Factors, c: np.ndarray, options: SolverOptions
) -> tuple[Factors, np.ndarray]:
    """Polish factors and path coefficients together (stage 2)."""
    free = options.free_coefficients
    starts = np.concatenate([[0], np.cumsum([f.size for f in factors])])
    norm = np.linalg.norm(problem.tensor(c))
    residual = reconstruct(factors) - problem.tensor(c)
    cost = float(np.sum(residual**2))
    damping, growth, stalled = 1e-4, 2.0, 0
    for _ in range(options.polish_iterations):
        matrix, gradient = _gauss_newton(problem, factors, residual, free)
        diagonal = np.diag_indices(len(gradient))
        original = matrix[diagonal].copy()
        while True:
            matrix[diagonal] = original + damping
            try:
                cholesky = scipy.linalg.cho_factor(matrix, lower=True, check_finite=False)
                step = -scipy.linalg.cho_solve(cholesky, gradient, check_finite=False)
            except np.linalg.LinAlgError:
                damping *= 10.0
                continue
            new = [
                f + step[starts[m] : starts[m + 1]].reshape(f.shape) for m, f in enumerate(factors)
            ]
            new_c = np.clip(c + step[starts[-1] :], *options.band) if free else c
            new_residual = reconstruct(new) - problem.tensor(new_c)
            new_cost = float(np.sum(new_residual**2))
            # (J^T J + damping) step = -gradient, hence the predicted decrease of the cost:
            predicted = -float(step @ gradient) + damping * float(step @ step)
            if new_cost < cost:
                gain = (cost - new_cost) / max(predicted, 1e-300)
                damping = max(damping * max(1 / 3, 1 - (2 * gain - 1) ** 3), 1e-15)
                growth = 2.0
                break
            damping, growth = damping * growth, growth * 2.0
            if damping > 1e6:
                return balance(factors), c
        stalled = stalled + 1 if new_cost > 0.999 * cost else 0
        factors, c, residual, cost = new, new_c, new_residual, new_cost
        if np.sqrt(cost) < 1e-14 * norm or stalled >= 8:
            break
    return balance(factors), c


@dataclass
class CPSolution:
    """Outcome of :func:`solve_cp`: factors of the plain (not normalised) problem."""

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


def polish(
    problem: CPProblem, factors: Factors, c: np.ndarray, options: SolverOptions
) -> tuple[Factors, np.ndarray]:
    """Levenberg-Marquardt where the dense Gauss-Newton matrix fits, further ALS otherwise."""
    if sum(f.size for f in factors) <= options.max_polish_unknowns:
        return levenberg_marquardt(problem, factors, c, options)
    from .cp_newton import newton_cg  # only large problems need it

    return newton_cg(problem, factors, c, options)


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
    for start in range(max(options.num_starts, 1)):
        elapsed = time.perf_counter() - began
        if start and options.max_seconds is not None and elapsed > options.max_seconds:
            break
        count += 1
        factors = random_factors(problem.shape, rank, options.seed + start)
        c = np.ones(len(problem.paths))
        factors, c = alternating_least_squares(problem, factors, c, options)
        error = relative_residual(problem, factors, c)
        if error < options.polish_below:
            factors, c = polish(problem, factors, c, options)
            error = relative_residual(problem, factors, c)
        if progress is not None:
            progress(f"start {start + 1}: relative error {error:.2e}")
        if best is None or error < best.relative_error:
            best = CPSolution(factors, c, error, count, 0.0)
        if best.exact:
            break
    assert best is not None
    if best.relative_error >= options.polish_below:
        factors, c = polish(problem, best.factors, best.coefficients, options)
        best = CPSolution(factors, c, relative_residual(problem, factors, c), count, 0.0)
    return CPSolution(
        best.factors, best.coefficients, best.relative_error, count, time.perf_counter() - began
    )
