"""Signs of wrong units or of the wrong sign of stresses."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.sparse

from tdn.data.frames import Frame
from tdn.data.units import STRESS_UNITS
from tdn.graph import neighbor_list

# pair potentials: reach in angstrom, functions per pair of elements, atoms of the frames they fit
REACH, SHORTEST, FUNCTIONS, MAX_ATOMS = 5.0, 0.8, 8, 3000
SMALL_FORCE = 1e-3  # eV/angstrom; forces below it say nothing
# numbers to be explained per parameter, and how well stresses must follow the fit for a statement
MIN_NUMBERS, MIN_CORRELATION = 4, 0.85
# a factor below this is put down to the fit
LARGE_FACTOR = 3.0
# bulk moduli of matter in eV/angstrom^3 (diamond: 2.8), and what is needed to determine one
LARGEST_MODULUS, MIN_FRAMES, SIGNIFICANT = 6.0, 8, 6.0


def stress_consistency(frames: Sequence[Frame]) -> str | None:
    """A warning if stresses are not those that energies and forces tell of.

    Pair potentials are fitted to energies and forces; where their virials follow the stresses of
    the frames up to a factor, this is the unit of the stresses, and a negative one means the
    opposite sign. Where no pair potential describes the frames, the change of the pressure with the
    volume is compared with the bulk moduli of matter.
    """
    frames = [
        f
        for f in frames
        if f.stress is not None and len(f.atoms) > 1 and np.isfinite(f.stress).all()
    ]
    factor = _fitted_factor(frames)
    if factor is not None:
        if 1 / LARGE_FACTOR < factor < LARGE_FACTOR:
            return None
        return (
            f"stresses contradict energies and forces, which explain stresses {factor:.3g} times "
            f"as large{_explanation(factor)}"
        )
    modulus = _bulk_modulus(frames)
    if modulus is None or 0 < modulus < LARGEST_MODULUS:
        return None
    text = f"stresses change with the volume as for a bulk modulus of {modulus:.3g} eV/A^3"
    if modulus < 0:
        return f"{text}, and matter has a positive one{_advice('-eV/A^3')}"
    return f"{text}, larger than that of any matter{_advice('GPa')}, or kbar"


def _fitted_factor(frames: Sequence[Frame]) -> float | None:
    """What stresses are to be multiplied with to be those of the fit; None where it fails."""
    frames = [f for f in frames if f.energy is not None and f.forces is not None]
    if not frames or max(np.abs(f.forces).max() for f in frames) < SMALL_FORCE:
        return None
    count = max(1, round(MAX_ATOMS / np.mean([len(f.atoms) for f in frames])))
    frames = frames[:: -(-len(frames) // count)]
    numbers = sorted({int(n) for f in frames for n in f.atoms.numbers})
    parameters = FUNCTIONS * len(numbers) * (len(numbers) + 1) // 2
    if sum(f.forces.size for f in frames) < MIN_NUMBERS * parameters:
        return None
    terms = [_pair_terms(frame, numbers) for frame in frames]
    groups = np.unique([f.atoms.get_chemical_formula() for f in frames], return_inverse=True)[1]
    energies = _centered(np.array([f.energy for f in frames]), groups)
    by_energy = _centered(np.array([t[0] for t in terms]), groups)
    forces = np.concatenate([f.forces.ravel() for f in frames])
    weight = np.linalg.norm(forces) / max(np.linalg.norm(energies), 1e-9)
    design = np.concatenate([*(t[1] for t in terms), weight * by_energy])
    target = np.concatenate([forces, weight * energies])
    square = design.T @ design
    shift = 1e-6 * np.trace(square) / parameters + 1e-12
    solution = np.linalg.solve(square + shift * np.eye(parameters), design.T @ target)
    fitted = _centered(np.array([t[2] @ solution for t in terms]), groups)
    volumes = np.array([abs(np.linalg.det(f.atoms.cell.array)) for f in frames])
    found = _centered(np.array([f.stress.ravel() for f in frames]) * volumes[:, None], groups)
    product = np.sqrt((fitted**2).sum() * (found**2).sum())
    if product == 0 or abs((fitted * found).sum() / product) < MIN_CORRELATION:
        return None
    return float((fitted * found).sum() / (found**2).sum())


def _centered(values: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Values minus their mean over frames of the same composition."""
    counts = np.bincount(groups)
    flat = values.reshape(len(values), -1)
    means = np.stack([np.bincount(groups, column) / counts for column in flat.T], axis=1)
    return (flat - means[groups]).reshape(values.shape)


def _pair_terms(frame: Frame, numbers: list[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Energy [P], forces [3 N, P] and derivative by the strain [9, P] of each pair function.

    The functions are Gaussians of the distance times (1 - r^2 / R^2)^2.
    """
    atoms, kinds = frame.atoms, len(numbers)
    (i, j), shift = neighbor_list(atoms.positions, atoms.cell.array, atoms.pbc, REACH)
    vectors = atoms.positions[j] + shift @ atoms.cell.array - atoms.positions[i]
    distance = np.linalg.norm(vectors, axis=1)
    width = (REACH - SHORTEST) / (FUNCTIONS - 1)
    x = (distance[:, None] - np.linspace(SHORTEST, REACH, FUNCTIONS)) / width
    ratio = distance[:, None] / REACH
    envelope, gaussian = (1 - ratio**2) ** 2, np.exp(-0.5 * x**2)
    slope = gaussian * (-x / width * envelope - 4 * ratio / REACH * (1 - ratio**2))
    kind = np.searchsorted(numbers, atoms.numbers)
    low, high = np.minimum(kind[i], kind[j]), np.maximum(kind[i], kind[j])
    pair = low * kinds - low * (low - 1) // 2 + high - low
    columns = pair[:, None] * FUNCTIONS + np.arange(FUNCTIONS)
    shape = (len(distance), FUNCTIONS * kinds * (kinds + 1) // 2)
    rows = np.repeat(np.arange(len(distance)), FUNCTIONS)

    def spread(values: np.ndarray) -> scipy.sparse.csr_matrix:
        return scipy.sparse.csr_matrix((values.ravel(), (rows, columns.ravel())), shape)

    value, derivative = spread(gaussian * envelope), spread(slope)
    unit = vectors / np.maximum(distance, 1e-9)[:, None]
    receives = scipy.sparse.csr_matrix(
        (np.ones(len(i)), (i, np.arange(len(i)))), (len(atoms), len(i))
    )
    forces = [(receives.multiply(unit[:, k]) @ derivative).toarray() for k in range(3)]
    strain = (vectors[:, :, None] * unit[:, None, :]).reshape(-1, 9)
    # each pair stands twice in the list
    return (
        0.5 * np.asarray(value.sum(axis=0)).ravel(),
        np.stack(forces, axis=1).reshape(3 * len(atoms), -1),
        0.5 * (derivative.T @ strain).T,
    )


def _bulk_modulus(frames: Sequence[Frame]) -> float | None:
    """Slope of minus the pressure by the logarithm of the volume; None where it is uncertain."""
    frames = [f for f in frames if f.atoms.pbc.all()]
    if len({f.atoms.get_chemical_formula() for f in frames}) != 1 or len(frames) < MIN_FRAMES:
        return None
    volume = np.log([f.atoms.get_volume() for f in frames])
    if volume.std() < 1e-3:
        return None
    tension = np.array([np.trace(f.stress) / 3 for f in frames])
    x, y = volume - volume.mean(), tension - tension.mean()
    slope = (x * y).sum() / (x**2).sum()
    error = np.sqrt(((y - slope * x) ** 2).sum() / (len(x) - 2) / (x**2).sum())
    return float(slope) if abs(slope) > SIGNIFICANT * error else None


def _explanation(factor: float) -> str:
    unit = min(STRESS_UNITS, key=lambda u: abs(np.log(abs(factor) / STRESS_UNITS[u])))
    if not 1 / LARGE_FACTOR < abs(factor) / STRESS_UNITS[unit] < LARGE_FACTOR:
        return "; check their unit and sign"
    return _advice(f"-{unit}" if factor < 0 else unit)


def _advice(unit: str) -> str:
    sign = ", positive under compression as in VASP" if unit.startswith("-") else ""
    return (
        f": in {unit.removeprefix('-')}{sign}? eV/A^3, positive under tension, are expected "
        f"(data.stress_unit='{unit}', tdn-data convert --stress-unit={unit})"
    )
