"""Frames from any file that ASE reads.

ASE moves labels under its own names (``energy``, ``forces``, ``stress``) into the results of a
calculator; labels under other names stay in ``atoms.info`` and ``atoms.arrays``. Both places are
searched for the configured keys.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ase
import ase.io
import numpy as np

from tdn.data.bad_frames import Problems
from tdn.data.frames import Frame, LabelKeys
from tdn.system.errors import TDNError

VIRIAL_KEYS = ("virial", "virials")
SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "valid": "valid",
    "val": "valid",
    "validation": "valid",
    "test": "test",
}


def iterate_ase(path: Path, keys: LabelKeys, problems: Problems) -> Iterator[Frame]:
    """The frames of a file that ASE reads, one after the other.

    Raises
    ------
    TDNError
        If the file is of an unknown kind. For a frame that cannot be read, unless ``problems``
        skips those; the message names the frame, counted from one.
    """
    number = 0
    frames = _iterate(path)
    while True:
        try:
            atoms = next(frames)
        except StopIteration:
            return
        except TDNError as error:
            if number == 0:
                raise  # not a file of frames
            problems.add("damaged, and everything behind it", str(error))
            return
        number += 1
        try:
            frame = frame_from_atoms(atoms, keys, number, path.name)
        except TDNError as error:
            problems.add("unusable structure or labels", str(error))
            continue
        yield frame


def _iterate(path: Path) -> Iterator[ase.Atoms]:
    """ASE's reader with its many exceptions turned into one line each."""
    number = 0
    try:
        for atoms in ase.io.iread(path, index=":"):
            number += 1
            if not isinstance(atoms, ase.Atoms):
                raise TDNError(f"{path} holds {type(atoms).__name__}, expected structures")
            yield atoms
    except TDNError:
        raise
    except Exception as error:  # what a reader throws on foreign bytes is not documented
        reason = " ".join(str(error).split())[:150] or type(error).__name__
        if number == 0:
            raise TDNError(
                f"{path} cannot be read: expected extended XYZ or another format of ASE ({reason})"
            ) from None
        raise TDNError(
            f"frame {number + 1} of {path} cannot be read: cut short or damaged ({reason}); "
            "repair or remove it"
        ) from None


def frame_from_atoms(
    atoms: ase.Atoms, keys: LabelKeys, number: int = 1, source: str = "structures"
) -> Frame:
    """Take the labels of one structure.

    Raises
    ------
    TDNError
        If the structure has no atoms or positions that are no numbers, or a label has the wrong
        shape or is no number.
    """
    where = f"frame {number} of {source}"
    if len(atoms) == 0:
        raise TDNError(f"{where} has no atoms; remove it")
    if (atoms.numbers == 0).any():
        raise TDNError(f"{where} has an atom of unknown element 'X'; name its element")
    if not (np.isfinite(atoms.positions).all() and np.isfinite(atoms.cell.array).all()):
        raise TDNError(f"{where}: positions or cell contain NaN or infinity; remove the frame")
    energy = _array(_find(atoms, keys.energy), (1,), keys.energy, where)
    forces = _array(_find(atoms, keys.forces), (len(atoms), 3), keys.forces, where)
    config_type = atoms.info.get(keys.config_type)
    bare = ase.Atoms(
        numbers=atoms.numbers, positions=atoms.positions, cell=atoms.cell, pbc=atoms.pbc
    )
    return Frame(
        atoms=bare,
        number=number,
        source=source,
        energy=None if energy is None else float(energy[0]),
        forces=forces,
        stress=_stress(atoms, keys.stress, where),
        config_type=None if config_type is None else str(config_type),
        split=_split(atoms, keys.split, where),
    )


def _find(atoms: ase.Atoms, key: str) -> Any:
    """A label from wherever ASE puts it; results are read raw, so constraints change nothing."""
    results = {} if atoms.calc is None else getattr(atoms.calc, "results", {})
    for place in (results, atoms.info, atoms.arrays):
        if place.get(key) is not None:
            return place[key]
    return None


def _array(value: Any, shape: tuple[int, ...], key: str, where: str) -> np.ndarray | None:
    if value is None:
        return None
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        raise TDNError(f"{where}: '{key}' is {value!r}, expected numbers") from None
    if array.size != int(np.prod(shape)):
        expected = "a single number" if shape == (1,) else f"shape {list(shape)}"
        raise TDNError(f"{where}: '{key}' has shape {list(array.shape)}, expected {expected}")
    return array.reshape(shape)


def _stress(atoms: ase.Atoms, key: str, where: str) -> np.ndarray | None:
    """Stress [3, 3]; a virial W becomes -W / V. Structures without volume have none."""
    volume = abs(np.linalg.det(atoms.cell.array))
    if volume <= 0 or not atoms.pbc.any():
        return None
    for name in (key, *VIRIAL_KEYS):
        value = _find(atoms, name)
        if value is None:
            continue
        array = np.asarray(value)
        if array.size == 6:  # Voigt order of ASE: xx yy zz yz xz xy
            xx, yy, zz, yz, xz, xy = _array(value, (6,), name, where)
            matrix = np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])
        else:
            matrix = _array(value, (3, 3), name, where)
        matrix = 0.5 * (matrix + matrix.T)
        return -matrix / volume if "virial" in name.lower() else matrix
    return None


def _split(atoms: ase.Atoms, key: str | None, where: str) -> str | None:
    if key is None:
        return None
    value = atoms.info.get(key)
    if value is None:
        if len(atoms) == 1:  # an isolated atom belongs to no set
            return None
        raise TDNError(
            f"{where} has no key '{key}' (data.split_key); give every frame "
            f"{key}=train, valid or test"
        )
    if str(value).lower() not in SPLIT_NAMES:
        raise TDNError(f"{where}: {key}={value}: expected train, valid or test")
    return SPLIT_NAMES[str(value).lower()]
