"""Energies, forces and stresses of a structure, under whatever name its writer chose.

ASE moves labels under its own names (``energy``, ``forces``, ``stress``) into the results of a
calculator; labels under other names stay in ``atoms.info`` and ``atoms.arrays``. All three places
are searched: for the key that a user named, otherwise for the names that are common. Of several
common names in a frame the first in this order is taken:

0. ``energy``, ``forces``, ``stress``
1. ``force``, ``total_energy``, ``virial``, ``virials`` and the like
2. the same after a prefix for reference values: ``REF_energy``, ``dft_forces``, ``DFT_virial``
3. after any other prefix, if it is the only such key: ``mace_energy``, ``pbe_forces``
4. ``free_energy``

Upper and lower case do not matter.
"""

from __future__ import annotations

import functools
import re
from collections import Counter
from typing import Any

import ase
import numpy as np

from tdn.data.bad_frames import MAX_KEYS, Problems
from tdn.data.frames import Frame, LabelKeys
from tdn.system.errors import TDNError

SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "valid": "valid",
    "val": "valid",
    "validation": "valid",
    "test": "test",
}
LABELS = ("energy", "forces", "stress")
_NAME = re.compile(
    r"(?:(?P<prefix>[a-z0-9_]+?)_?)??"
    r"(?P<word>free_energy|(?:total_?|tot_?|potential_?|pot_?)?energy|forces?"
    r"|stress(?:_tensor)?|virials?(?:_tensor)?)"
)
_REFERENCE = {"ref", "reference", "dft", "qm", "target", "true", "label", "abinitio", "aimd"}
# what comes before "energy" or "forces" where the value is another quantity
_OTHER = set(
    "kinetic internal formation atomization binding cohesive adsorption interaction dispersion "
    "solvation d3 d4 zero zpe homo lumo gap fermi band relative delta diff error err std var unc "
    "uncertainty isolated atomic correction hull strain elastic surface repulsion coulomb hartree "
    "exchange correlation xc max min mean rms net constraint spring bias external magnetic average "
    "residual per shift e0 vdw".split()
)
# keys of charge and spin, which no network here takes in
_IGNORED = ("charge", "total_charge", "spin", "total_spin", "multiplicity", "spin_multiplicity")
WEIGHT_KEY = "config_weight"


def frame_from_atoms(
    atoms: ase.Atoms,
    keys: LabelKeys,
    number: int = 1,
    source: str = "structures",
    problems: Problems | None = None,
) -> Frame:
    """Take the labels of one structure.

    Parameters
    ----------
    problems : notes under which keys the labels were, and what was ignored

    Raises
    ------
    TDNError
        If a label has the wrong shape or is no number.
    """
    where = f"frame {number} of {source}"
    problems = problems or Problems()
    found = {label: _find(atoms, label, keys, problems) for label in LABELS}
    config_type = atoms.info.get(keys.config_type)
    return Frame(
        atoms=ase.Atoms(
            numbers=atoms.numbers, positions=atoms.positions, cell=atoms.cell, pbc=atoms.pbc
        ),
        number=number,
        source=source,
        energy=_energy(*found["energy"], where),
        forces=_array(found["forces"][1], (len(atoms), 3), found["forces"][0], where),
        stress=_stress(atoms, *found["stress"], where),
        weight=_weight(atoms, where, problems),
        config_type=None if config_type is None else str(config_type),
        split=_split(atoms, keys.split, where),
    )


def require_named_keys(keys: LabelKeys, problems: Problems, source: str) -> None:
    """Raise unless every key that the user named was found.

    Raises
    ------
    TDNError
        Listing the keys that there are.
    """
    for label in LABELS:
        key = getattr(keys, label)
        if key is not None and problems.keys and not problems.used.get(label):
            raise TDNError(
                f"no frame of {source} has the key {key!r} for its {label}; its frames have the "
                f"keys {', '.join(map(repr, problems.keys))}"
            )


@functools.lru_cache(maxsize=4096)
def _meaning(key: str) -> tuple[str, int] | None:
    """Which label a key names, and its rank among the names of this label."""
    match = _NAME.fullmatch(re.sub(r"[^a-z0-9]+", "_", key.lower()).strip("_"))
    if match is None:
        return None
    prefix, word = match["prefix"], match["word"]
    parts = set(prefix.split("_")) if prefix else set()
    if parts & _OTHER:
        return None
    label = "energy" if "energy" in word else "forces" if word.startswith("force") else "stress"
    if word == "free_energy":
        return label, 4
    if parts:
        return label, 2 if parts <= _REFERENCE else 3
    return label, 0 if word == label else 1


def _places(atoms: ase.Atoms) -> tuple[dict[str, Any], ...]:
    """Wherever ASE puts labels; results are read raw, so constraints change nothing."""
    results = {} if atoms.calc is None else getattr(atoms.calc, "results", {})
    return results, atoms.info, atoms.arrays


def _fits(value: Any, label: str, count: int) -> bool:
    """Whether a value has the shape of a label: a number, [N, 3], or six or nine numbers."""
    if isinstance(value, (str, bool)):
        return False
    try:
        array = np.asarray(value)
    except ValueError:  # a ragged list
        return False
    if array.dtype.kind not in "iuf":
        return False
    if label == "forces":
        return array.shape == (count, 3)
    return array.size == 1 if label == "energy" else array.size in (6, 9)


def _find(atoms: ase.Atoms, label: str, keys: LabelKeys, problems: Problems) -> tuple[str, Any]:
    """The key of a label and its value, which is None where there is none."""
    named = getattr(keys, label)
    places = _places(atoms)
    if named is not None:
        candidates = [(0, named, p[named]) for p in places if p.get(named) is not None]
    else:
        candidates = _candidates(places, label, len(atoms))
    if not candidates:
        # isolated atoms need no forces, molecules no stress
        if label == "energy" or (len(atoms) > 1 and (label == "forces" or atoms.pbc.any())):
            _remember_keys(atoms, problems)
        return named or label, None
    _, key, value = candidates[0]
    problems.used.setdefault(label, Counter())[key if named is None else label] += 1
    for rank, other, another in candidates[1:]:
        # free energies come along with energies, virials with stresses
        if rank < 4 and label != "stress" and not np.array_equal(value, another):
            problems.note(f"frames also have {other!r}, which differs from {key!r}, the one used")
    return key, value


def _remember_keys(atoms: ase.Atoms, problems: Problems) -> None:
    """Note what a frame that lacks a label has instead."""
    for place in _places(atoms):
        labels = ("forces",) if place is atoms.arrays else LABELS
        for key, value in place.items():
            if len(problems.keys) < MAX_KEYS and key not in ("numbers", "positions"):
                kind = next((n for n in labels if _fits(value, n, len(atoms))), "")
                problems.keys.setdefault(key, kind)


def _candidates(
    places: tuple[dict[str, Any], ...], label: str, count: int
) -> list[tuple[int, str, Any]]:
    """Rank, key and value of whatever may be a label, the best first."""
    found = []
    for place in places:
        for key, value in place.items():
            meaning = _meaning(key)
            if value is None or meaning is None or meaning[0] != label:
                continue
            # a value of the wrong shape under ASE's own name is a mistake, not another quantity
            if meaning[1] == 0 or _fits(value, label, count):
                found.append((meaning[1], key, value))
    found.sort(key=lambda item: item[0])
    if found and found[0][0] == 3 and len({key for rank, key, _ in found if rank == 3}) > 1:
        return []  # two methods: the user has to say which
    return found


def _energy(key: str, value: Any, where: str) -> float | None:
    array = _array(value, (1,), key, where)
    return None if array is None else float(array[0])


def _array(value: Any, shape: tuple[int, ...], key: str, where: str) -> np.ndarray | None:
    if value is None:
        return None
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        raise TDNError(f"{where}: {key!r} is {value!r}, expected numbers") from None
    if array.size != int(np.prod(shape)):
        expected = "a single number" if shape == (1,) else f"shape {list(shape)}"
        raise TDNError(f"{where}: {key!r} has shape {list(array.shape)}, expected {expected}")
    return array.reshape(shape)


def _stress(atoms: ase.Atoms, key: str, value: Any, where: str) -> np.ndarray | None:
    """Stress [3, 3]; a virial W becomes -W / V. Structures without volume have none."""
    volume = abs(np.linalg.det(atoms.cell.array))
    if value is None or volume <= 0 or not atoms.pbc.any():
        return None
    if np.size(value) == 6:  # Voigt order of ASE: xx yy zz yz xz xy
        xx, yy, zz, yz, xz, xy = _array(value, (6,), key, where)
        matrix = np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])
    else:
        matrix = _array(value, (3, 3), key, where)
    matrix = 0.5 * (matrix + matrix.T)
    return -matrix / volume if "virial" in key.lower() else matrix


def _weight(atoms: ase.Atoms, where: str, problems: Problems) -> float:
    """The weight of the frame in the loss; keys that no network heeds are noted."""
    ignored = [key for key in _IGNORED if key in atoms.info]
    if ignored:
        problems.note(f"frames have {', '.join(map(repr, ignored))}, which the network ignores")
    for key in atoms.info:
        if re.fullmatch(r"config_\w+_weight", key):
            problems.note(f"frames have {key!r}, which is ignored: only {WEIGHT_KEY} counts")
    value = _array(atoms.info.get(WEIGHT_KEY), (1,), WEIGHT_KEY, where)
    if value is None:
        return 1.0
    if not (np.isfinite(value[0]) and value[0] >= 0):
        raise TDNError(f"{where}: {WEIGHT_KEY} is {value[0]}, expected a number of at least 0")
    return float(value[0])


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
