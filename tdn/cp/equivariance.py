r"""Errors of bilinear maps: equivariance, and what float32 arithmetic adds.

A map m(x, y)_k = T_{kij} x_i y_j is equivariant when its deviation under a rotation R,

.. math:: E_R = D_3(R)^T\, T(D_1(R)\,\cdot, D_2(R)\,\cdot) - T ,

vanishes. The supremum of ||m(Rx, Ry) - R m(x, y)|| / (||x|| ||y||) over all x and y is the spectral
norm of the three-way tensor E_R, found here by alternating power iterations.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import scipy.linalg

from .couplings import CouplingPath, degrees, dimension, wigner_3j


@cache
def rotation_generators(degree: int) -> np.ndarray:
    """Generators X_a of rotations about the axes of the l = 1 components, [3, 2l + 1, 2l + 1].

    The Wigner block (l, 1, l) is proportional to them: it is the only equivariant map from a
    vector to matrices on degree l that has the right size. The commutator [X_0, X_1] = X_2 fixes
    the sign. e3nn's ``wigner_D`` is not used because it is accurate to the default dtype only.
    """
    if degree == 0:
        return np.zeros((3, 1, 1))
    block = wigner_3j(CouplingPath(degree, 1, degree)).transpose(2, 0, 1)
    result = block * np.sqrt(degree * (degree + 1) * (2 * degree + 1))
    commutator = result[0] @ result[1] - result[1] @ result[0]
    return result * np.sign(np.vdot(commutator, result[2]))


def wigner_d(l_max: int, rotation_vector: np.ndarray) -> np.ndarray:
    """Wigner D matrix of one rotation, block diagonal over degrees 0..l_max, [D, D].

    Parameters
    ----------
    l_max : int
    rotation_vector : [3]
        Axis times angle (radian), in the order of the l = 1 components (e3nn: x, y, z).
    """
    blocks = [
        scipy.linalg.expm(np.tensordot(rotation_vector, rotation_generators(degree), axes=1))
        for degree in range(l_max + 1)
    ]
    return scipy.linalg.block_diag(*blocks)


def rotation_matrices(l_max: int, count: int, seed: int = 0) -> np.ndarray:
    """Wigner D matrices of random rotations, [count, D, D]."""
    generator = np.random.default_rng(seed)
    quaternions = generator.standard_normal((count, 4))  # isotropic: uniform over rotations
    quaternions /= np.linalg.norm(quaternions, axis=1, keepdims=True)
    angles = 2 * np.arccos(quaternions[:, 0])
    axes = quaternions[:, 1:] / np.linalg.norm(quaternions[:, 1:], axis=1, keepdims=True)
    return np.stack(
        [wigner_d(l_max, angle * axis) for angle, axis in zip(angles, axes, strict=True)]
    )


def inversion_matrix(l_max: int) -> np.ndarray:
    """Inversion acting on features of natural parity (-1)^l, [D, D]."""
    return np.diag((-1.0) ** degrees(l_max))


def transform(tensor: np.ndarray, d3: np.ndarray, d1: np.ndarray, d2: np.ndarray) -> np.ndarray:
    """The map x, y -> D3^T m(D1 x, D2 y) as a tensor, [D3, D1, D2]."""
    step = np.tensordot(d3.T, tensor, axes=1)  # [k, i, j]
    step = np.tensordot(step, d2, axes=1)
    return np.einsum("kij,ia->kaj", step, d1, optimize=True)


def spectral_norm(tensor: np.ndarray, starts: int = 4, iterations: int = 30) -> float:
    """Largest |T(z, x, y)| over unit vectors, by alternating power iterations (a lower bound)."""
    if not np.any(tensor):
        return 0.0
    generator = np.random.default_rng(0)
    tensor_scale = float(np.max(np.abs(tensor)))
    scaled = tensor / tensor_scale
    best = 0.0
    for _ in range(starts):
        x = generator.standard_normal(tensor.shape[1])
        y = generator.standard_normal(tensor.shape[2])
        x, y = x / np.linalg.norm(x), y / np.linalg.norm(y)
        for _ in range(iterations):
            with_y = scaled @ y  # [k, i]
            z = with_y @ x
            z /= max(np.linalg.norm(z), 1e-300)
            x = with_y.T @ z
            x /= max(np.linalg.norm(x), 1e-300)
            y = x @ np.tensordot(z, scaled, axes=1)
            value = float(np.linalg.norm(y))
            y /= max(value, 1e-300)
        best = max(best, value)
    return best * tensor_scale


def equivariance_error(
    tensor: np.ndarray,
    l_max1: int,
    l_max2: int,
    l_max3: int,
    *,
    inversion: bool,
    num_rotations: int = 8,
    seed: int = 0,
) -> float:
    """Sup of ||m(Rx, Ry) - R m(x, y)|| / (||x|| ||y||).

    Parameters
    ----------
    tensor : [D3, D1, D2]
    l_max1, l_max2, l_max3 : int
    inversion : bool
        Whether the inversion is among the R. It holds for parity paths; a map over all paths of
        SO(3) mixes tensors and pseudotensors, so it can be asked for rotations only.
    num_rotations : int
        Number of random rotations.
    seed : int
    """
    l_max = max(l_max1, l_max2, l_max3)
    d1, d2, d3 = (dimension(n) for n in (l_max1, l_max2, l_max3))
    operations = list(rotation_matrices(l_max, num_rotations, seed))
    if inversion:
        operations.append(inversion_matrix(l_max))
    return max(
        spectral_norm(transform(tensor, op[:d3, :d3], op[:d1, :d1], op[:d2, :d2]) - tensor)
        for op in operations
    )


def float32_error(input1: np.ndarray, input2: np.ndarray, output: np.ndarray) -> float:
    """Relative Frobenius error of the reconstruction in float32 against float64."""
    single = [np.asarray(f, dtype=np.float32) for f in (output, input1, input2)]
    exact = np.einsum("kr,ir,jr->kij", output, input1, input2, optimize=True)
    rounded = np.einsum("kr,ir,jr->kij", *single, optimize=True)
    return float(np.linalg.norm(rounded - exact) / np.linalg.norm(exact))
