"""Coupling paths, Wigner blocks and the coupling tensor."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from e3nn import o3

from tdn.cp.algebra import CPProblem
from tdn.cp.couplings import (
    coupling_paths,
    coupling_tensor,
    degree_slice,
    path_normalization,
    wigner_3j,
)
from tdn.cp.equivariance import inversion_matrix, rotation_matrices, transform, wigner_d
from tdn.system.errors import TDNError


def test_paths_obey_triangle_rule_and_parity():
    every = coupling_paths(3, 2, 4, "all")
    parity = coupling_paths(3, 2, 4, "parity")
    naive = [
        (l1, l2, l3)
        for l1 in range(4)
        for l2 in range(3)
        for l3 in range(5)
        if abs(l1 - l2) <= l3 <= l1 + l2
    ]
    assert [tuple(p) for p in every] == naive
    assert parity == tuple(p for p in every if sum(p) % 2 == 0)
    assert len(parity) < len(every)


@pytest.mark.parametrize("l_max, count", [(1, 4), (2, 11), (3, 23)])
def test_number_of_parity_paths(l_max, count):
    assert len(coupling_paths(l_max)) == count


def test_unknown_selection_is_an_error():
    with pytest.raises(TDNError, match="parity, all"):
        coupling_paths(2, paths="even")
    with pytest.raises(TDNError, match="l_max2 is -1"):
        coupling_paths(2, -1)


def test_wigner_d_rotates_spherical_harmonics():
    """Same basis and same rotations as e3nn's spherical harmonics, to float64 accuracy."""
    matrix = wigner_d(5, np.array([0.3, -0.7, 1.1]))
    rotation = torch.from_numpy(matrix[degree_slice(1), degree_slice(1)])
    vectors = torch.randn(7, 3, dtype=torch.float64)

    def harmonics(v):
        return o3.spherical_harmonics(list(range(6)), v, True).numpy()

    np.testing.assert_allclose(
        harmonics(vectors @ rotation.T), harmonics(vectors) @ matrix.T, atol=1e-12
    )


@pytest.mark.parametrize("paths", ["parity", "all"])
def test_coupling_tensor_is_equivariant_for_any_coefficients(paths):
    l1, l2, l3 = 2, 1, 3
    path_list = coupling_paths(l1, l2, l3, paths)
    c = np.random.default_rng(0).uniform(-2, 2, len(path_list))
    tensor = coupling_tensor(path_list, l1, l2, l3, c)
    operations = [d for d in rotation_matrices(3, 3)]
    if paths == "parity":
        operations.append(inversion_matrix(3))
    for d in operations:
        moved = transform(tensor, d, d[:9, :9], d[:4, :4])
        np.testing.assert_allclose(moved, tensor, atol=1e-12)


def test_all_paths_break_inversion():
    """The reason why parity paths are the default: mirror images must have equal energies."""
    tensor = coupling_tensor(coupling_paths(1, paths="all"), 1)
    p = inversion_matrix(1)
    assert np.abs(transform(tensor, p, p, p) - tensor).max() > 0.1


@pytest.mark.parametrize("paths", ["parity", "all"])
def test_unit_variance_in_gives_unit_variance_out(paths):
    tensor = coupling_tensor(coupling_paths(3, 2, 3, paths), 3, 2, 3)
    np.testing.assert_allclose(np.sum(tensor**2, axis=(1, 2)), 1.0, rtol=1e-12)


def test_blocks_are_those_of_e3nn_and_projection_recovers_coefficients():
    path_list = coupling_paths(3)
    for path in path_list:
        block = o3.wigner_3j(*path, dtype=torch.float64).permute(2, 0, 1)
        np.testing.assert_array_equal(wigner_3j(path), block.numpy())
    assert path_normalization(path_list)[0] == pytest.approx(0.5)  # l3 = 0 has four paths
    c = np.random.default_rng(1).uniform(0.5, 2, len(path_list))
    tensor = coupling_tensor(path_list, 3, coefficients=c)
    problem = CPProblem.from_degrees(path_list, 3, 3, 3, normalized=True)
    np.testing.assert_allclose(problem.project(tensor), c, rtol=1e-12)
    np.testing.assert_allclose(problem.tensor(c), tensor, rtol=0, atol=1e-15)
    with pytest.raises(TDNError, match="one per path"):
        coupling_tensor(path_list, 3, coefficients=c[:-1])
