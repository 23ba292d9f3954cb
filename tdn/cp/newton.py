r"""Levenberg-Marquardt for CP decompositions: dense for small problems, matrix-free for large ones.

Both minimize ||CP(output, input1, input2) - M(c)||^2 over the factors and the path coefficients
together. The Gauss-Newton matrix of a CP model consists of products of R x R Gram matrices, so the
Jacobian with its D^3 rows is never formed. A step solves

.. math:: (J^T J + \lambda) s = -J^T r

by Cholesky decomposition, or by conjugate gradients with the block-diagonal part as
preconditioner. The damping takes care of the scaling freedom of the rank-one terms.
"""

from __future__ import annotations

import numpy as np
import scipy.linalg
import scipy.sparse

from .algebra import CPProblem, Factors, balance, khatri_rao, reconstruct
from .options import SolverOptions

MAX_DAMPING = 1e6
MAX_STEPS = 100
MAX_DENSE = 2000
"""Unknowns; larger problems take conjugate-gradient steps instead of Cholesky ones."""


def path_columns(problem: CPProblem, factors: Factors) -> np.ndarray:
    """J_factors^T J_c: derivative of the factor gradient by the coefficients, [unknowns, P]."""
    columns = []
    for block, (s3, s1, s2) in zip(problem.blocks, problem.slices, strict=True):
        out, in1, in2 = factors[0][s3], factors[1][s1], factors[2][s2]
        column = [np.zeros_like(f) for f in factors]
        with_in2 = np.tensordot(block, in2, axes=1)  # [k, i, R]
        column[0][s3] = np.einsum("kir,ir->kr", with_in2, in1)
        column[1][s1] = np.einsum("kir,kr->ir", with_in2, out)
        with_out = np.tensordot(out.T, block, axes=1)  # [R, i, j]
        column[2][s2] = np.einsum("rij,ir->jr", with_out, in1)
        columns.append(-np.concatenate([x.ravel() for x in column]))
    return np.stack(columns, axis=1)


def gradient_of(
    problem: CPProblem, factors: Factors, residual: np.ndarray, free: bool
) -> np.ndarray:
    """J^T r with respect to (output, input1, input2, c)."""
    parts = []
    for m, f in enumerate(factors):
        a, b = (factors[k] for k in range(3) if k != m)
        unfolded = np.moveaxis(residual, m, 0).reshape(f.shape[0], -1)
        parts.append((unfolded @ khatri_rao(a, b)).ravel())
    if free:
        parts.append(
            np.array(
                [
                    -np.vdot(residual[where], block)
                    for block, where in zip(problem.blocks, problem.slices, strict=True)
                ]
            )
        )
    return np.concatenate(parts)


class DenseNormalMatrix:
    """J^T J as a dense matrix; :meth:`solve` is a Cholesky decomposition.

    ``free`` [P] is 1 for path coefficients that move and 0 for those that stay; it is empty if
    coefficients are no unknowns at all.
    """

    def __init__(self, problem: CPProblem, factors: Factors, free: np.ndarray) -> None:
        rank = factors[0].shape[1]
        starts = np.concatenate([[0], np.cumsum([f.size for f in factors])])
        total = int(starts[-1])
        size = total + len(free)
        self.matrix = np.empty((size, size))
        grams = [f.T @ f for f in factors]
        for m in range(3):
            a, b = (k for k in range(3) if k != m)
            dim = factors[m].shape[0]
            here = slice(starts[m], starts[m + 1])
            self.matrix[here, here] = np.kron(np.eye(dim), grams[a] * grams[b])
            for k in range(m + 1, 3):
                there = slice(starts[k], starts[k + 1])
                block = (
                    factors[m][:, None, None, :]  # [i, r, j, s]: F_m[i,s] F_k[j,r] G[r,s]
                    * factors[k].T[None, :, :, None]
                    * grams[3 - m - k][None, :, None, :]
                ).reshape(dim * rank, -1)
                self.matrix[here, there] = block
                self.matrix[there, here] = block.T
        if len(free):
            columns = path_columns(problem, factors) * free
            self.matrix[:total, total:] = columns
            self.matrix[total:, :total] = columns.T
            self.matrix[total:, total:] = np.diag(problem.weights)
        self.diagonal = self.matrix.diagonal().copy()

    def solve(self, right: np.ndarray, damping: float) -> np.ndarray:
        """(J^T J + damping)^-1 right."""
        self.matrix[np.diag_indices(len(right))] = self.diagonal + damping
        cholesky = scipy.linalg.cho_factor(self.matrix, lower=True, check_finite=False)
        return scipy.linalg.cho_solve(cholesky, right, check_finite=False)


class ImplicitNormalMatrix:
    """J^T J as an operator; :meth:`solve` is a preconditioned conjugate-gradient iteration."""

    def __init__(
        self, problem: CPProblem, factors: Factors, free: np.ndarray, iterations: int = 1500
    ) -> None:
        self.factors, self.iterations = factors, iterations
        self.starts = np.concatenate([[0], np.cumsum([f.size for f in factors])])
        self.grams = [f.T @ f for f in factors]
        self.blocks = [
            self.grams[1] * self.grams[2],
            self.grams[0] * self.grams[2],
            self.grams[0] * self.grams[1],
        ]
        self.columns = None
        if len(free):  # a path touches the components of three degrees only: mostly zeros
            self.columns = scipy.sparse.csr_array(path_columns(problem, factors) * free)
        self.weights = problem.weights

    def _split(self, vector: np.ndarray) -> list[np.ndarray]:
        return [
            vector[self.starts[m] : self.starts[m + 1]].reshape(f.shape)
            for m, f in enumerate(self.factors)
        ]

    def product(self, vector: np.ndarray) -> np.ndarray:
        """J^T J vector."""
        parts = self._split(vector)
        overlaps = [f.T @ v for f, v in zip(self.factors, parts, strict=True)]
        out = []
        for m in range(3):
            a, b = (k for k in range(3) if k != m)
            mixed = overlaps[a] * self.grams[b] + overlaps[b] * self.grams[a]
            out.append((parts[m] @ self.blocks[m] + self.factors[m] @ mixed.T).ravel())
        result = np.concatenate(out)
        if self.columns is not None:
            c = vector[self.starts[-1] :]
            result += self.columns @ c
            end = self.columns.T @ vector[: self.starts[-1]] + self.weights * c
            result = np.concatenate([result, end])
        return result

    def solve(self, right: np.ndarray, damping: float) -> np.ndarray:
        """Approximate (J^T J + damping)^-1 right."""
        eye = np.eye(self.factors[0].shape[1])
        inverses = [np.linalg.inv(block + damping * eye) for block in self.blocks]

        def precondition(vector: np.ndarray) -> np.ndarray:
            parts = [
                (v @ inverse).ravel()
                for v, inverse in zip(self._split(vector), inverses, strict=True)
            ]
            if self.columns is not None:
                parts.append(vector[self.starts[-1] :] / (self.weights + damping))
            return np.concatenate(parts)

        x = np.zeros_like(right)
        residual = right.copy()
        z = precondition(residual)
        direction = z
        rz = float(residual @ z)
        target = 1e-2 * np.linalg.norm(right)  # an inexact step is enough for a linear rate of 0.01
        for _ in range(self.iterations):
            image = self.product(direction) + damping * direction
            alpha = rz / float(direction @ image)
            x += alpha * direction
            residual -= alpha * image
            if np.linalg.norm(residual) < target:
                break
            z = precondition(residual)
            rz, previous = float(residual @ z), rz
            direction = z + rz / previous * direction
        return x


def levenberg_marquardt(
    problem: CPProblem, factors: Factors, c: np.ndarray, options: SolverOptions
) -> tuple[Factors, np.ndarray]:
    """Polish factors and path coefficients together, to machine precision where possible."""
    free = options.free_coefficients
    dense = sum(f.size for f in factors) <= MAX_DENSE
    starts = np.concatenate([[0], np.cumsum([f.size for f in factors])])
    norm = np.linalg.norm(problem.tensor(c))
    residual = reconstruct(factors) - problem.tensor(c)
    cost = float(np.sum(residual**2))
    # The residual itself sets the scale: far from a solution the model deserves less trust.
    damping, growth, stalled = max(1e-2 * np.sqrt(cost) / norm, 1e-12), 2.0, 0
    for _ in range(MAX_STEPS):
        gradient = gradient_of(problem, factors, residual, free)
        moving = np.zeros(0)
        if free:  # coefficients at the edge of the band that would leave it stay where they are
            push = gradient[starts[-1] :]
            low, high = options.band
            moving = 1.0 - (((c <= low) & (push > 0)) | ((c >= high) & (push < 0)))
            push *= moving
        normal = (DenseNormalMatrix if dense else ImplicitNormalMatrix)(problem, factors, moving)
        while damping < MAX_DAMPING:
            try:
                step = -normal.solve(gradient, damping)
            except np.linalg.LinAlgError:
                damping *= 10.0
                continue
            new = [
                f + step[starts[m] : starts[m + 1]].reshape(f.shape) for m, f in enumerate(factors)
            ]
            new_c = np.clip(c + step[starts[-1] :], *options.band) if free else c
            new_residual = reconstruct(new) - problem.tensor(new_c)
            new_cost = float(np.sum(new_residual**2))
            if new_cost < cost:
                break
            damping, growth = damping * growth, growth * 2.0
        else:
            break
        # Decrease that the quadratic model predicts, since (J^T J + damping) step = -gradient.
        predicted = -float(step @ gradient) + damping * float(step @ step)
        gain = (cost - new_cost) / max(predicted, 1e-300)
        damping = max(damping * max(1 / 3, 1 - (2 * gain - 1) ** 3), 1e-15)
        growth = 2.0
        stalled = stalled + 1 if new_cost > 0.999 * cost else 0
        factors, c, residual, cost = new, new_c, new_residual, new_cost
        if np.sqrt(cost) < 1e-14 * norm or stalled >= 8:
            break
    return balance(factors), c
