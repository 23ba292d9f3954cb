"""Settings of the solver for CP decompositions."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class SolverOptions:
    """Settings of :func:`tdn.cp.solver.solve_cp`.

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
        start is polished in the end if ``polish_best``.
    polish_best : bool
        Whether to polish the best start although it is far from exact.
    max_dense_unknowns : int
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
    polish_iterations: int = 100
    polish_below: float = 5e-3
    polish_best: bool = True
    max_dense_unknowns: int = 2000
    max_seconds: float | None = None
    seed: int = 0
