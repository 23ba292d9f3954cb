"""CP problems of coupling tensors and the algebra of CP factors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from .couplings import CouplingPath, degree_slice, dimension, path_normalization, wigner_3j

Factors = list[np.ndarray]  # [output [D3, R], input1 [D1, R], input2 [D2, R]]


@dataclass
class CPProblem:
    """Coupling tensor as a linear function of its path coefficients.

    Parameters
    ----------
    paths : sequence of CouplingPath
    shape : (D3, D1, D2)
    normalized : bool
        Whether the blocks carry :func:`tdn.cp.couplings.path_normalization` or have unit norm.
    """

    paths: Sequence[CouplingPath]
    shape: tuple[int, int, int]
    normalized: bool = False
    blocks: list[np.ndarray] = field(init=False)
    slices: list[tuple[slice, slice, slice]] = field(init=False)
    weights: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        norms = path_normalization(self.paths) if self.normalized else np.ones(len(self.paths))
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


def orthogonal_terms(tensor: np.ndarray) -> tuple[np.ndarray, Factors]:
    r"""Decomposition into mutually orthogonal rank-one terms, the largest first.

    The slice of every output component k is a matrix with a singular value decomposition, so

    .. math:: M = \sum_k \sum_j \sigma_{kj}\; e_k \otimes a_{kj} \otimes b_{kj} .

    The terms are orthonormal up to their :math:`\sigma`, therefore the R largest leave an error of
    exactly :math:`(\sum_{r>R} \sigma_r^2)^{1/2}`: an upper bound for the error of the best CP
    decomposition of rank R, and zero at full rank, D3 * min(D1, D2).

    Returns
    -------
    values : [T]
        Singular values in decreasing order, without zeros.
    factors : [D3, T], [D1, T], [D2, T]
        Balanced factors.
    """
    left, values, right = np.linalg.svd(tensor, full_matrices=False)  # [D3, D1, Q], [D3, Q], ..
    k, j = np.nonzero(values > 1e-12 * values.max())
    order = np.argsort(-values[k, j], kind="stable")
    k, j = k[order], j[order]
    output = np.zeros((tensor.shape[0], len(k)))
    output[k, np.arange(len(k))] = values[k, j]
    return values[k, j], balance([output, left[k, :, j].T, right[k, j, :].T])
