r"""Coupling paths, Wigner 3j blocks and dense coupling tensors.

With one weight set shared by all coupling paths the Clebsch-Gordan product of two features is a
single bilinear map :math:`z_k = \sum_{ij} M_{kij} x_i y_j` with the fixed tensor

.. math:: M = \sum_{p=(l_1,l_2,l_3)} c_p\, n_{l_3}\, W_p ,
          \qquad n_{l_3} = \sqrt{(2 l_3 + 1) / P_{l_3}} ,

where :math:`W_p` is the Wigner 3j block of path p (unit Frobenius norm), :math:`P_{l_3}` the number
of paths into degree :math:`l_3` and :math:`c_p` a path coefficient near 1. For inputs with
independent components of unit variance every output component of degree :math:`l_3` has variance
mean(:math:`c_p^2`) over the paths into it: exactly 1 for :math:`c_p = 1`.

The order of the components is e3nn's: ``(l, m)`` with m from -l to l, D = (l_max + 1)^2.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Literal, NamedTuple

import numpy as np

from tdn.system.errors import TDNError

PathSelection = Literal["parity", "all"]
PATH_SELECTIONS = ("parity", "all")


class CouplingPath(NamedTuple):
    """One Clebsch-Gordan path: degrees of the two inputs and of the output."""

    l1: int
    l2: int
    l3: int


def dimension(l_max: int) -> int:
    """Number of spherical components (l_max + 1)^2 of degrees 0..l_max."""
    return (l_max + 1) ** 2


def degree_slice(degree: int) -> slice:
    """Position of the components of one degree."""
    return slice(degree**2, (degree + 1) ** 2)


def degrees(l_max: int) -> np.ndarray:
    """Degree of every component, [(l_max + 1)^2]."""
    return np.repeat(np.arange(l_max + 1), 2 * np.arange(l_max + 1) + 1)


def coupling_paths(
    l_max1: int, l_max2: int | None = None, l_max3: int | None = None, paths: str = "parity"
) -> tuple[CouplingPath, ...]:
    """All coupling paths between features of bounded degree.

    Parameters
    ----------
    l_max1, l_max2, l_max3 : int
        Largest degree of the first input, the second input and the output (default: ``l_max1``).
    paths : {"parity", "all"}
        ``"parity"``: l1 + l2 + l3 even, exactly O(3)-equivariant for features of natural parity
        (-1)^l. ``"all"``: every path of SO(3), as in arXiv 2507.01131.

    Raises
    ------
    TDNError
        If ``paths`` is unknown or a degree is negative.
    """
    l_max2 = l_max1 if l_max2 is None else l_max2
    l_max3 = l_max1 if l_max3 is None else l_max3
    if paths not in PATH_SELECTIONS:
        raise TDNError(f"paths is {paths!r}, expected one of {', '.join(PATH_SELECTIONS)}")
    for name, value in (("l_max1", l_max1), ("l_max2", l_max2), ("l_max3", l_max3)):
        if value < 0:
            raise TDNError(f"{name} is {value}, expected a degree of 0 or more")
    return tuple(
        CouplingPath(l1, l2, l3)
        for l1 in range(l_max1 + 1)
        for l2 in range(l_max2 + 1)
        for l3 in range(abs(l1 - l2), min(l1 + l2, l_max3) + 1)
        if paths == "all" or (l1 + l2 + l3) % 2 == 0
    )


@cache
def wigner_3j(path: CouplingPath) -> np.ndarray:
    """Real Wigner 3j block of a path (e3nn's), [2 l3 + 1, 2 l1 + 1, 2 l2 + 1], read-only."""
    import torch  # not at the top: shipped CP factors load without torch and e3nn
    from e3nn import o3

    block = o3.wigner_3j(path.l1, path.l2, path.l3, dtype=torch.float64)
    result = np.ascontiguousarray(block.permute(2, 0, 1).numpy())
    result.setflags(write=False)
    return result


def path_normalization(paths: Sequence[CouplingPath]) -> np.ndarray:
    """Factor n_{l3} = sqrt((2 l3 + 1) / number of paths into l3) of every path, [P]."""
    counts = np.bincount([path.l3 for path in paths])
    return np.array([np.sqrt((2 * path.l3 + 1) / counts[path.l3]) for path in paths])


def coupling_tensor(
    paths: Sequence[CouplingPath],
    l_max1: int,
    l_max2: int | None = None,
    l_max3: int | None = None,
    coefficients: np.ndarray | None = None,
    normalized: bool = True,
) -> np.ndarray:
    """Dense coupling tensor M[k, i, j] (k: output, i: first input, j: second input).

    Parameters
    ----------
    paths : sequence of CouplingPath
    l_max1, l_max2, l_max3 : int
        Largest degrees, as in :func:`coupling_paths`.
    coefficients : [P], optional
        Path coefficients c_p (default 1).
    normalized : bool
        With n_{l3}; otherwise the bare sum of c_p W_p, as in the code of arXiv 2507.01131.

    Returns
    -------
    numpy.ndarray
        float64, [(l_max3 + 1)^2, (l_max1 + 1)^2, (l_max2 + 1)^2].
    """
    l_max2 = l_max1 if l_max2 is None else l_max2
    l_max3 = l_max1 if l_max3 is None else l_max3
    coefficients = np.ones(len(paths)) if coefficients is None else np.asarray(coefficients)
    if coefficients.shape != (len(paths),):
        raise TDNError(
            f"path coefficients have shape {coefficients.shape}, expected ({len(paths)},): "
            "one per path"
        )
    tensor = np.zeros((dimension(l_max3), dimension(l_max1), dimension(l_max2)))
    norms = path_normalization(paths) if normalized else np.ones(len(paths))
    for path, c, n in zip(paths, coefficients, norms, strict=True):
        tensor[degree_slice(path.l3), degree_slice(path.l1), degree_slice(path.l2)] = (
            c * n * wigner_3j(path)
        )
    return tensor
