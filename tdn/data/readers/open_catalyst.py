"""Reading the databases of the Open Catalyst project: OC20, OC22 and what fairchem writes since.

Two formats, both LMDB:

- ASE-LMDB (``*.aselmdb``): keys ``b'1'``, ``b'2'``, ... with zlib-compressed JSON of the rows of
  an ASE database, and the reserved keys ``nextid``, ``deleted_ids`` and ``metadata``. Older files
  hold arrays as nested lists, newer ones as ASE's ``{"__ndarray__": [shape, dtype, values]}``.
- the files of the OC20 and OC22 releases (``*.lmdb``): keys ``b'0'``, ``b'1'``, ... with pickled
  ``torch_geometric.data.Data`` (of version 1 or 2): ``pos``, ``cell``, ``atomic_numbers``, ``y``
  or ``energy``, ``force`` or ``forces``, ``sid``, ``fid``. All directions are periodic.

Units are eV and angstrom. Energies of OC20's S2EF files are adsorption energies, those of OC22
total energies: do not mix the two.

Source: facebookresearch/fairchem, ``core/datasets/lmdb_database.py`` and ``lmdb_dataset.py``; the
package ase-db-backends, ``aselmdb.py``.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import ase
import numpy as np

from tdn.data.bad_frames import Problems
from tdn.data.database.lmdb_file import LmdbFile
from tdn.data.frames import Frame, LabelKeys
from tdn.system.errors import TDNError

from .labels import frame_from_atoms
from .unpickle import MAX_RECORD, UnsafePickleError, load_plain

RESERVED = (b"nextid", b"metadata", b"deleted_ids", b"length")
RESULTS = ("energy", "free_energy", "forces", "stress")


def is_aselmdb(value: bytes) -> bool:
    """Whether the value of an LMDB record is compressed by zlib."""
    head = value[:2]
    return len(head) == 2 and head[0] == 0x78 and int.from_bytes(head, "big") % 31 == 0


def is_pickle(value: bytes) -> bool:
    """Whether the value of an LMDB record is a pickle of protocol 2 or newer."""
    return value[:1] == b"\x80"


def iterate_aselmdb(file: LmdbFile, keys: LabelKeys, problems: Problems) -> Iterator[Frame]:
    """All rows of an ASE-LMDB in the order of their numbers.

    Raises
    ------
    TDNError
        For a bad row, unless ``problems`` skips those.
    """
    next_id = _load_json(file.get(b"nextid")) or 1
    deleted = set(_load_json(file.get(b"deleted_ids")) or ())
    left = file.entries - sum(file.get(key) is not None for key in RESERVED)
    for number in range(1, int(next_id)):
        if number in deleted:
            continue
        value, where = file.get(str(number).encode()), f"record {number} of {file.path.name}"
        if value is None:
            problems.add("missing record", f"{where} is missing")
            continue
        left -= 1
        try:
            yield _row(_load_json(value), keys, number, file.path.name, problems)
        except TDNError as error:
            problems.add("damaged or incomplete record", f"{where}: {error}")
    if left > len(deleted):
        problems.add(
            "records beyond the last number",
            f"{file.path.name} has records that its key nextid ({next_id}) does not count",
        )


def _load_json(value: bytes | None) -> Any:
    if value is None:
        return None
    unpacker = zlib.decompressobj()
    try:
        data = unpacker.decompress(value, MAX_RECORD)
        if unpacker.unconsumed_tail:
            raise TDNError(f"more than {MAX_RECORD} bytes when unpacked")
        return json.loads(data, object_hook=_decode)
    except (zlib.error, ValueError) as error:
        if isinstance(error, TDNError):
            raise
        raise TDNError(f"damaged ({error})") from None


def _decode(item: dict) -> Any:
    """The arrays among ASE's JSON objects; everything else stays a dictionary."""
    if "__ndarray__" in item:
        try:
            shape, dtype, values = item["__ndarray__"]
            return np.array(values, dtype=np.dtype(str(dtype))).reshape(shape)
        except (TypeError, ValueError) as error:
            raise TDNError(f"an array of unknown form ({error})") from None
    if item.get("__ase_objtype__") == "cell":
        return item.get("array")
    return item


def _row(row: Any, keys: LabelKeys, number: int, source: str, problems: Problems) -> Frame:
    """One row of an ASE database; labels may also be among its key-value pairs or data."""
    if not isinstance(row, dict) or "numbers" not in row or "positions" not in row:
        raise TDNError("no structure: numbers or positions are missing")
    extra: dict[str, Any] = {}
    for name in ("key_value_pairs", "data"):
        extra.update(row[name] if isinstance(row.get(name), dict) else {})
    results = {key: row[key] for key in RESULTS if row.get(key) is not None}
    return _to_frame(
        row["numbers"],
        row["positions"],
        row.get("cell"),
        row.get("pbc", False),
        results,
        extra,
        keys,
        number,
        source,
        problems,
    )


def iterate_oc(file: LmdbFile, keys: LabelKeys, problems: Problems) -> Iterator[Frame]:
    """All records of a file of the OC20 or OC22 releases, in the order of their numbers.

    Raises
    ------
    UnsafePickleError
        If a record is more than plain data; nothing of it is executed.
    TDNError
        For a bad record, unless ``problems`` skips those.
    """
    total = file.entries - sum(file.get(key) is not None for key in RESERVED)
    for number in range(total):
        where = f"record {number} of {file.path.name}"
        value = file.get(str(number).encode())
        if value is None:
            problems.add("missing record", f"{where} is missing")
            continue
        try:
            yield _data(load_plain(value), keys, number + 1, file.path.name, problems)
        except UnsafePickleError as error:
            raise UnsafePickleError(f"{where}: {error}") from None
        except TDNError as error:
            problems.add("damaged or incomplete record", f"{where}: {error}")


def _data(data: Any, keys: LabelKeys, number: int, source: str, problems: Problems) -> Frame:
    """One object of torch_geometric, as a dictionary of its fields."""
    if not isinstance(data, dict) or data.get("pos") is None or data.get("atomic_numbers") is None:
        raise TDNError("no structure: pos or atomic_numbers are missing")
    extra = {key: value for key, value in data.items() if value is not None}
    results = {}
    for name, old in (("energy", "y"), ("forces", "force"), ("stress", "stress")):
        value = extra.get(name, extra.get(old))
        if value is not None:
            results[name] = value
    cell = extra.get("cell")
    pbc = extra.get("pbc", (True, True, True))
    return _to_frame(
        data["atomic_numbers"],
        data["pos"],
        cell,
        pbc,
        results,
        extra,
        keys,
        number,
        source,
        problems,
    )


def _to_frame(
    numbers: Any,
    positions: Any,
    cell: Any,
    pbc: Any,
    results: dict[str, Any],
    extra: dict[str, Any],
    keys: LabelKeys,
    number: int,
    source: str,
    problems: Problems,
) -> Frame:
    try:
        cell = np.zeros((3, 3)) if cell is None else np.asarray(cell, np.float64).reshape(3, 3)
        pbc = np.broadcast_to(np.asarray(pbc, bool).reshape(-1), 3)
        atoms = ase.Atoms(
            numbers=np.asarray(numbers).astype(np.int64).reshape(-1),
            positions=np.asarray(positions, np.float64).reshape(-1, 3),
            cell=cell,
            pbc=pbc,
        )
    except (TypeError, ValueError, OverflowError) as error:
        raise TDNError(f"a structure of unknown form ({error})") from None
    if ((atoms.numbers < 0) | (atoms.numbers > 118)).any():
        raise TDNError("atomic numbers outside 1 to 118")
    atoms.info.update(extra)
    atoms.calc = SimpleNamespace(results=results)
    frame = frame_from_atoms(atoms, keys, number, source, problems)
    system = extra.get("sid")
    if system is None:
        return frame
    group = np.asarray(system).reshape(-1)
    return replace(frame, group=str(group[0]) if group.size else None)
