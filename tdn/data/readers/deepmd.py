"""Reading folders of DeePMD-kit: ``type.raw``, ``type_map.raw`` and ``set.*/*.npy``.

Each set holds ``coord`` [F, 3 N] in angstrom, ``box`` [F, 9] (absent where a file ``nopbc`` stands
in the folder), and as far as they are known ``energy`` [F] in eV, ``force`` [F, 3 N] in eV/angstrom
and ``virial`` [F, 9] in eV, which is minus the stress times the volume. Mixed systems also have
``real_atom_types`` [F, N], in which -1 fills up smaller frames.

Source: DeePMD-kit documentation, "System" and "Formats of a system"; dpdata, ``deepmd/comp.py`` and
``deepmd/mixed.py``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import ase
import numpy as np
from ase.data import atomic_numbers

from tdn.data.bad_frames import Problems
from tdn.data.frames import Frame
from tdn.system.errors import TDNError


def deepmd_systems(folder: Path) -> list[Path]:
    """The systems in a folder and all folders below it, in the order of their names."""
    return sorted(path.parent for path in folder.rglob("type.raw"))


def iterate_deepmd(system: Path, problems: Problems) -> Iterator[Frame]:
    """All frames of one system, set by set.

    Raises
    ------
    TDNError
        If the folder is incomplete, or its arrays do not fit together.
    """
    types, names = _types(system)
    periodic = not (system / "nopbc").exists()
    sets = sorted(path for path in system.glob("set*") if (path / "coord.npy").is_file())
    if not sets:
        raise TDNError(
            f"{system} holds no set.*/coord.npy; convert the data with dpdata to deepmd/npy"
        )
    number = 0
    for folder in sets:
        yield from _frames(folder, types, names, periodic, number)
        number += len(_load(folder, "coord"))


def _types(system: Path) -> tuple[np.ndarray, np.ndarray]:
    """The type of each atom, and the atomic number of each type."""
    try:
        types = np.loadtxt(system / "type.raw", dtype=int, ndmin=1)
        symbols = (system / "type_map.raw").read_text().split()
        names = np.array([atomic_numbers[symbol] for symbol in symbols])
    except (OSError, ValueError) as error:
        raise TDNError(
            f"{system}: type.raw or type_map.raw cannot be read ({error}); type_map.raw names "
            "the element of each type"
        ) from None
    except KeyError as error:
        raise TDNError(
            f"{system / 'type_map.raw'} names {error}, which is no element; expected symbols"
        ) from None
    if len(types) == 0 or types.min() < 0 or types.max() >= len(names):
        raise TDNError(f"{system}: type.raw holds types that type_map.raw does not name")
    return types, names


def _load(folder: Path, name: str) -> np.ndarray | None:
    path = folder / f"{name}.npy"
    if not path.is_file():
        return None
    try:
        return np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise TDNError(f"{path} cannot be read: damaged or no plain array ({error})") from None


def _frames(
    folder: Path, types: np.ndarray, names: np.ndarray, periodic: bool, before: int
) -> Iterator[Frame]:
    count, atoms = len(_load(folder, "coord")), len(types)

    def array(name: str, *shape: int) -> np.ndarray | None:
        found = _load(folder, name)
        if found is None:
            return None
        expected = (count, *shape)
        if found.size != np.prod(expected) or found.dtype.kind not in "iuf":
            raise TDNError(
                f"{folder / name}.npy has shape {list(found.shape)}, expected {list(expected)}"
            )
        return found.reshape(expected)

    positions, box = array("coord", atoms, 3), array("box", 3, 3)
    energy, forces = array("energy"), array("force", atoms, 3)
    virial, mixed = array("virial", 3, 3), array("real_atom_types", atoms)
    if periodic and box is None:
        raise TDNError(f"{folder} has no box.npy; add it, or a file nopbc beside type.raw")
    if mixed is not None and (mixed.min() < -1 or mixed.max() >= len(names)):
        raise TDNError(f"{folder}: real_atom_types.npy holds types that type_map.raw does not name")
    for i in range(count):
        kinds = types if mixed is None else mixed[i].astype(int)
        real = kinds >= 0
        structure = ase.Atoms(
            numbers=names[kinds[real]],
            positions=positions[i][real].astype(np.float64),
            cell=box[i] if periodic else None,
            pbc=periodic,
        )
        volume = abs(np.linalg.det(structure.cell.array))
        stress = None
        if virial is not None and periodic and volume > 0:
            stress = -0.5 * (virial[i] + virial[i].T).astype(np.float64) / volume
        yield Frame(
            atoms=structure,
            number=before + i + 1,
            source=folder.parent.name,
            energy=None if energy is None else float(energy[i]),
            forces=None if forces is None else forces[i][real].astype(np.float64),
            stress=stress,
        )
