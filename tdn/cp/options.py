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
    polish_best : bool
        Whether to polish the best start although it is far from exact.
    max_seconds : float or None
        No new start once this much time has passed.
    seed : int
        Seed of the first start; start n uses ``seed + n``.
    """

    band: tuple[float, float] = (0.8, 1.25)
    free_coefficients: bool = True
    num_starts: int = 10
    polish_best: bool = True
    max_seconds: float | None = None
    seed: int = 0
