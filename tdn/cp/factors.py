"""CP factors of a coupling tensor with their measured errors, and their files."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tdn.system.atomic_files import atomic_write
from tdn.system.errors import TDNError

from .algebra import Factors, balance, reconstruct
from .couplings import (
    CouplingPath,
    coupling_paths,
    coupling_tensor,
    degrees,
    dimension,
    path_normalization,
)
from .equivariance import equivariance_error, float32_error

FILE_FORMAT = "tdn-cp-factors"
FILE_VERSION = 1
ARRAYS = ("input1", "input2", "output", "path_coefficients")
EXACT_BELOW = 1e-10
"""Largest relative error of a decomposition that is called exact."""


@dataclass(frozen=True, eq=False)
class CPFactors:
    """CP factors of a coupling tensor and their errors.

    Attributes
    ----------
    input1 : [D1, R]
        Factor A of the first input, float64.
    input2 : [D2, R]
        Factor B of the second input.
    output : [D3, R]
        Factor C of the output; the columns of the three factors have equal norms.
    path_coefficients : [P]
        Coefficients c_p in the order of :func:`tdn.cp.couplings.coupling_paths`.
    l_max_input1, l_max_input2, l_max_output : int
        Largest degrees; D = (l_max + 1)^2.
    paths : str
        ``"parity"`` or ``"all"``.
    relative_error : float
        ||M - CP|| / ||M|| (Frobenius): the root mean square relative error of the product of
        inputs with independent components of unit variance.
    equivariance_error : float
        Sup of ||m(Rx, Ry) - R m(x, y)|| / (||x|| ||y||) over x, y and random rotations R (for
        parity paths also the inversion), in float64.
    float32_error : float
        Relative Frobenius error of the same factors in float32 arithmetic.
    normalized : bool
        Whether they stand for the tensor with the normalization per output degree, or for the bare
        sum of Wigner blocks.
    """

    input1: np.ndarray
    input2: np.ndarray
    output: np.ndarray
    path_coefficients: np.ndarray
    l_max_input1: int
    l_max_input2: int
    l_max_output: int
    paths: str
    relative_error: float
    equivariance_error: float
    float32_error: float
    normalized: bool = True

    @property
    def rank(self) -> int:
        """Number of rank-one terms R."""
        return self.output.shape[1]

    @property
    def l_max(self) -> int:
        """Largest degree of the first input."""
        return self.l_max_input1

    @property
    def condition(self) -> float:
        """Sum of the norms of the rank-one terms over the norm of the tensor.

        Rounding errors of a product are amplified at most by this factor; 1 would mean no
        cancellation between terms.
        """
        norms = [np.linalg.norm(f, axis=0) for f in (self.output, self.input1, self.input2)]
        return float(np.sum(norms[0] * norms[1] * norms[2]) / np.linalg.norm(self.target()))

    @property
    def exact(self) -> bool:
        """Whether the decomposition is exact to machine precision."""
        return self.relative_error < EXACT_BELOW

    @property
    def coupling_paths(self) -> tuple[CouplingPath, ...]:
        """The coupling paths, [P]."""
        return coupling_paths(self.l_max_input1, self.l_max_input2, self.l_max_output, self.paths)

    def tensor(self) -> np.ndarray:
        """The tensor that the factors represent, [D3, D1, D2]."""
        return reconstruct([self.output, self.input1, self.input2])

    def target(self) -> np.ndarray:
        """The coupling tensor M that they stand for, [D3, D1, D2]."""
        return coupling_tensor(
            self.coupling_paths,
            self.l_max_input1,
            self.l_max_input2,
            self.l_max_output,
            self.path_coefficients,
            self.normalized,
        )


def measured_factors(
    factors: Factors,
    coefficients: np.ndarray,
    l_max1: int,
    l_max2: int,
    l_max3: int,
    paths: str,
    normalized: bool = True,
) -> CPFactors:
    """Factors ``[output, input1, input2]`` of a coupling tensor with measured errors."""
    output, input1, input2 = balance(factors)
    tensor = reconstruct([output, input1, input2])
    path_list = coupling_paths(l_max1, l_max2, l_max3, paths)
    target = coupling_tensor(path_list, l_max1, l_max2, l_max3, coefficients, normalized)
    return CPFactors(
        input1=input1,
        input2=input2,
        output=output,
        path_coefficients=np.asarray(coefficients),
        l_max_input1=l_max1,
        l_max_input2=l_max2,
        l_max_output=l_max3,
        paths=paths,
        relative_error=float(np.linalg.norm(tensor - target) / np.linalg.norm(target)),
        equivariance_error=equivariance_error(
            tensor, l_max1, l_max2, l_max3, inversion=paths == "parity"
        ),
        float32_error=float32_error(input1, input2, output),
        normalized=normalized,
    )


def degree_scale(paths: tuple[CouplingPath, ...], l_max3: int) -> np.ndarray:
    """Normalization n_{l3} of every output component, [D3] (0 where no path leads)."""
    scale = np.zeros(l_max3 + 1)
    for path, n in zip(paths, path_normalization(paths), strict=True):
        scale[path.l3] = n
    return scale[degrees(l_max3)]


def restrict(factors: CPFactors, l_max: int, l_max_input2: int, l_max_output: int) -> CPFactors:
    """Factors for smaller degrees: rows of the given ones, exact if these are.

    A block of the coupling tensor is the coupling tensor of the smaller degrees, up to the
    normalization per output degree, which is adjusted.
    """
    limits = (factors.l_max_input1, factors.l_max_input2, factors.l_max_output)
    wanted = (l_max, l_max_input2, l_max_output)
    if any(w > m for w, m in zip(wanted, limits, strict=True)):
        raise TDNError(f"degrees {wanted} exceed those of the given factors, {limits}")
    small = coupling_paths(*wanted, factors.paths)
    index = {path: n for n, path in enumerate(factors.coupling_paths)}
    old, new = (
        degree_scale(p, l_max_output)
        for p in (tuple(p for p in factors.coupling_paths if p.l3 <= l_max_output), small)
    )
    output = factors.output[: dimension(l_max_output)]
    if factors.normalized:
        output = output * (new / old)[:, None]
    return measured_factors(
        [output, factors.input1[: dimension(l_max)], factors.input2[: dimension(l_max_input2)]],
        factors.path_coefficients[[index[path] for path in small]],
        *wanted,
        factors.paths,
        factors.normalized,
    )


def without_normalization(factors: CPFactors) -> CPFactors:
    """Factors of the bare sum of Wigner blocks, as exact as those of the normalized tensor.

    An approximation of the one is not the best of the other, since degrees weigh differently.
    """
    wanted = (factors.l_max_input1, factors.l_max_input2, factors.l_max_output)
    scale = degree_scale(factors.coupling_paths, factors.l_max_output)[:, None]
    output = np.divide(factors.output, scale, out=np.zeros_like(factors.output), where=scale > 0)
    return measured_factors(
        [output, factors.input1, factors.input2],
        factors.path_coefficients,
        *wanted,
        factors.paths,
        normalized=False,
    )


def write_npz(path: Path, arrays: dict[str, np.ndarray], metadata: dict) -> None:
    """Write arrays and JSON metadata; the file appears whole or not at all."""
    record = {"format": FILE_FORMAT, "format_version": FILE_VERSION, **metadata}
    with atomic_write(path) as temporary, open(temporary, "wb") as stream:
        np.savez_compressed(
            stream, metadata=np.array(json.dumps(record)), **{k: arrays[k] for k in ARRAYS}
        )


def read_npz(path: Path) -> tuple[dict[str, np.ndarray], dict]:
    """Read what :func:`write_npz` wrote.

    Raises
    ------
    TDNError
        If the file is missing, damaged, of another kind or of another version.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            metadata = json.loads(str(archive["metadata"]))
            arrays = {name: archive[name] for name in ARRAYS}
    except FileNotFoundError:
        raise TDNError(f"CP factor file {path} does not exist") from None
    except Exception as error:  # numpy and zipfile raise many kinds for a damaged file
        raise TDNError(
            f"{path} is not a readable file of CP factors ({error}); delete it to solve again"
        ) from error
    found = (metadata.get("format"), metadata.get("format_version"))
    if found != (FILE_FORMAT, FILE_VERSION):
        raise TDNError(
            f"{path} has format {found[0]} version {found[1]}, expected {FILE_FORMAT} version "
            f"{FILE_VERSION}; delete it to solve again"
        )
    return arrays, metadata


def save_factors(path: str | Path, factors: CPFactors) -> None:
    """Write factors to an npz file (no pickle)."""
    names = ("l_max_input1", "l_max_input2", "l_max_output", "paths")
    names += ("relative_error", "equivariance_error", "float32_error", "normalized")
    arrays = {n: getattr(factors, n) for n in ("input1", "input2", "output", "path_coefficients")}
    write_npz(Path(path), arrays, {name: getattr(factors, name) for name in names})


def read_factors(path: str | Path) -> CPFactors:
    """Read factors that :func:`save_factors` wrote."""
    arrays, metadata = read_npz(Path(path))
    fields = {k: v for k, v in metadata.items() if k not in ("format", "format_version")}
    return CPFactors(**arrays, **fields)
